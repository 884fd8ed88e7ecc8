//! A policy file: judged, and each diagnostic can be shown.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Text that is no UTF-8 is not looked at.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let report = evergate::policy::check("fuzz", text);
    for diagnostic in &report.diagnostics {
        let _ = diagnostic.render("fuzz", text).to_string();
    }
    if let Ok(policy) = report.into_policy() {
        let _ = policy.resolve(None, &mut StdRng::seed_from_u64(1));
    }
}
