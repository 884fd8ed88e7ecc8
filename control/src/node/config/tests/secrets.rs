//! Keys, in the configuration and in files beside it: no message shows one, and no stranger reads one.

use super::*;

#[test]
fn no_message_and_no_debug_shows_a_key() {
    const KEY: &str = "hunter2hunter2hunter2";
    let line = "psk = \"correct horse battery staple\"";
    let spoilt = [
        format!("psk = {KEY}"),
        format!("psk = \"{KEY}"),
        format!("psk = '{KEY}\""),
        format!("psk = [\"{KEY}\"]"),
        format!("psk = {{ key = \"{KEY}\" }}"),
        format!("psk = \"{KEY}\" x"),
        format!("psk = \"{KEY}\"\npsk = \"{KEY}\""),
        format!("psk = \"\\q{KEY}\""),
        format!("psk = \"0x{KEY}\""),
        format!("psk = \"{KEY}\"\npsk_file = \"x\""),
    ];
    for bad in spoilt {
        let said = problems(&CLIENT.replace(line, &bad)).join("\n");
        assert!(!said.contains("hunter"), "{bad}: {said}");
        assert!(
            said.starts_with("14:") || said.starts_with("15:"),
            "{bad}: {said}"
        );
    }
    let config = read(&CLIENT.replace(line, &format!("psk = \"{KEY}\""))).unwrap();
    let debug = format!("{config:?}");
    assert!(
        debug.contains("Psk(21 bytes, not shown)") && !debug.contains("hunter"),
        "{debug}"
    );
}

#[test]
fn key_files_are_read_beside_the_configuration_and_must_be_private() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("node.toml");
    let key = dir.path().join("gw-a.psk");
    let line = "psk = \"correct horse battery staple\"";
    std::fs::write(&config, CLIENT.replace(line, "psk_file = \"gw-a.psk\"")).unwrap();
    let set_key = |text: &str, mode| {
        std::fs::write(&key, text).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
    };
    for (text, bytes) in [
        ("sixteen or more bytes\n", &b"sixteen or more bytes"[..]),
        ("sixteen or more bytes\r\n", b"sixteen or more bytes"),
        ("0x0123456789abcdef\n", b"\x01\x23\x45\x67\x89\xab\xcd\xef"),
    ] {
        set_key(text, 0o640);
        assert_eq!(
            Config::load(&config).unwrap().peers[0]
                .psk
                .as_ref()
                .unwrap()
                .as_bytes(),
            bytes
        );
    }
    let said = || Config::load(&config).unwrap_err().to_string();
    set_key("sixteen or more bytes", 0o644);
    let shown = key.display();
    assert_eq!(
        said(),
        format!(
            "{}:14:12: psk_file of gw-a.example: {shown} is open to everybody (mode 0644), \
             expected 0600 or 0640; run `chmod 600 {shown}`",
            config.display()
        )
    );
    set_key("short\n", 0o600);
    assert!(
        said().contains("found 5 bytes, expected at least 8"),
        "{}",
        said()
    );
    set_key(&"x".repeat(5000), 0o600);
    assert!(
        said().contains("has 5000 bytes, expected at most 4096"),
        "{}",
        said()
    );
}

#[test]
fn a_readable_file_with_a_key_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, CLIENT).unwrap();
    let warnings = |mode| {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Config::load(&path).unwrap().warnings
    };
    assert_eq!(warnings(0o640), []);
    let said = warnings(0o644)[0].to_string();
    assert!(
        said.contains("everybody may read it (mode 0644); run `chmod 600"),
        "{said}"
    );
    let missing = Config::load(&dir.path().join("none.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("cannot read the configuration "),
        "{missing}"
    );
}
