//! The file of ticket keys.

use super::*;

#[test]
fn ticket_keys_are_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let load = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let line = format!("tries = 7\nticket_keys = \"{}\"", path.display());
        read(&GATEWAY.replace("tries = 7", &line)).map(|config| config.ike.ticket_keys)
    };
    let (one, two) = ("a1".repeat(32), "0b".repeat(32));
    let keys = load(&format!("# of today\n{one}\n\n0x{two}\n"), 0o600).unwrap();
    let key = |byte| TicketKey::new(&[byte; 32]).unwrap();
    assert!(keys == [key(0xa1), key(0x0b)]);
    for (text, mode, said) in [
        ("", 0o600, "found 0 keys, expected 1 to 16"),
        ("# nothing\n", 0o600, "found 0 keys"),
        (&one[1..], 0o600, "keys:1: found something else"),
        (
            &format!("{one}\n{two}00"),
            0o600,
            "keys:2: found something else",
        ),
        ("a password", 0o600, "expected 64 hexadecimal digits"),
        (&one, 0o644, "is open to everybody"),
    ] {
        let error = load(text, mode).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(
            !error.contains(&one) && !error.contains("password"),
            "{error}"
        );
    }
}
