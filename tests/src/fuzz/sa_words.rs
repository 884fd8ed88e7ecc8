//! A hand-written session: what is accepted is shown and read back the same.

use evergate::sadb::{Secrets, SessionSpec};

/// Text that is no UTF-8 is not looked at.
pub fn sa_words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(spec) = SessionSpec::from_words(text.split_whitespace()) {
        let again = SessionSpec::from_words(spec.words(Secrets::Shown));
        assert_eq!(again.as_ref(), Ok(&spec));
        let _ = spec.words(Secrets::Hidden);
    }
}
