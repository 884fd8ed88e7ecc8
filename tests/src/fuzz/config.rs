//! The configuration of a node: judged, and each problem can be shown. What it says is not obeyed, but
//! for the files that it names, which are not there.

use std::path::Path;

use evergate::node::config::Config;

/// Text that is no UTF-8 is not looked at.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(Path::new("/nowhere/node.toml"), text) {
        Ok(config) => {
            for problem in &config.warnings {
                assert!(problem.line >= 1 && problem.column >= 1);
                let _ = problem.to_string();
            }
            // It goes to logs.
            let _ = format!("{config:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
