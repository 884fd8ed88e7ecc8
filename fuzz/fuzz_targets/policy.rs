//! A policy file: judged, and each diagnostic can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

fuzz_target!(|text: &str| {
    let report = evergate::policy::check("fuzz", text);
    for diagnostic in &report.diagnostics {
        let _ = diagnostic.render("fuzz", text).to_string();
    }
    if let Ok(policy) = report.into_policy() {
        let _ = policy.resolve(None, &mut StdRng::seed_from_u64(1));
    }
});
