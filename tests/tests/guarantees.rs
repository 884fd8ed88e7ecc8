//! Every line of `docs/guarantees.md` names what shows it. Those must be there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources under a folder, as one text.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            text += &fs::read_to_string(&path).expect("a source");
        }
    }
    text
}

/// What is in backticks in the last column of each table.
fn named(page: &str) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let last = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit("| ").next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

/// A module such as `kms::tests::damping`: in a file of its own, or within that of its parent.
fn is_module(name: &str) -> bool {
    let path = root().join("control/src").join(name.replace("::", "/"));
    if path.is_dir() || path.with_extension("rs").is_file() {
        return true;
    }
    let (Some(parent), Some(last)) = (path.parent(), path.file_name().and_then(|f| f.to_str()))
    else {
        return false;
    };
    let files = [parent.with_extension("rs"), parent.join("mod.rs")];
    let wanted = format!("mod {last} {{");
    let mut texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    texts.any(|text| text.contains(&wanted))
}

#[test]
fn what_shows_a_guarantee_is_there() {
    let page = fs::read_to_string(root().join("docs/guarantees.md")).expect("the page");
    let cases = sources(&root().join("xtask/src"));
    let names = named(&page);
    assert!(names.len() > 30, "the tables are read: {names:?}");
    for name in names {
        let found = match name {
            _ if name.starts_with("cargo xtask ") => {
                let task = name.split(' ').nth(2).expect("a task");
                let mut letters = task.chars();
                let variant: String = letters
                    .next()
                    .map(|first| first.to_ascii_uppercase())
                    .into_iter()
                    .chain(letters)
                    .collect();
                cases.contains(&format!("Task::{variant}"))
            }
            _ if name.contains('/') => root().join(name).is_file(),
            _ if name.contains("::") => is_module(name),
            _ => cases.contains(&format!("\"{name}\"")),
        };
        assert!(found, "{name}: there is no such case, module or file");
    }
}
