//! An XDP program that lets everything pass, for the veth ends that face a gateway.
//!
//! The kernel hands what a program answers with `XDP_TX` on to the other end of a veth pair only
//! when that end has an XDP program too. GRO there, which is enough for a redirect, is not: the
//! packets enter the ring, but nothing wakes the receiver until other traffic does.

use anyhow::{Context, Result};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind};
use object::{SymbolScope, write};
use std::path::Path;

/// `r0 = XDP_PASS; exit`
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
/// The section that `ip link set … xdp obj FILE sec SECTION` loads.
pub(super) const SECTION: &str = "xdp";

/// Writes the program as an object file.
pub(super) fn write_object(path: &Path) -> Result<()> {
    std::fs::write(path, elf()?).with_context(|| format!("can not write {}", path.display()))
}

fn elf() -> write::Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let text = object.add_section(Vec::new(), SECTION.into(), SectionKind::Text);
    object.append_section_data(text, &CODE, 8);
    object.add_symbol(Symbol {
        name: b"pass".to_vec(),
        value: 0,
        size: CODE.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(text),
        flags: SymbolFlags::None,
    });
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"Dual MIT/GPL\0", 1);
    object.write()
}
