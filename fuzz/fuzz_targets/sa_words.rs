//! A hand-written session: what is accepted is shown and read back the same.
#![no_main]

use evergate::sadb::{Secrets, SessionSpec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(spec) = SessionSpec::from_words(text.split_whitespace()) {
        let again = SessionSpec::from_words(spec.words(Secrets::Shown));
        assert_eq!(again.as_ref(), Ok(&spec));
        let _ = spec.words(Secrets::Hidden);
    }
});
