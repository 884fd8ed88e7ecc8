//! Flags of the BPF linker.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Headers lie at any offset. Without this every word of a packet is loaded byte by byte, which
    // is slow and needs more stack than BPF has. Packet memory may be read so on every architecture
    // that allows it to the kernel itself (x86-64, arm64 and others).
    println!("cargo:rustc-link-arg=--cpu-features=+allows-misaligned-mem-access");
}
