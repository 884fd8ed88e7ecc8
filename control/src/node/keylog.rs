//! Keys for Wireshark, on the operator's word alone: `evergate run --keylog DIR`. Whoever reads the
//! two files reads the traffic, so they are their owner's only, and their being written is told
//! wherever an operator looks.
//!
//! The files are tables of Wireshark's preferences ("UAT"): `ikev2_decryption_table` and `esp_sa`.
//! Wireshark 4.0 has to read them, so an SA has the eight columns that it knows; newer ones take the
//! length of the sequence number for 32 bits then.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

use super::events::{EventKind, EventLog, NewEvent};
use crate::api::model;
use crate::esp::Cipher;
use crate::ike::{IkeCipher, IkeSaKeys};
use crate::sadb::{Direction, SaSpec, SessionSpec};

/// Names that Wireshark expects in its folder of preferences.
const IKE_FILE: &str = "ikev2_decryption_table";
const ESP_FILE: &str = "esp_sa";

/// At most so many bytes in one run: peers decide how many sessions there are.
const MOST_BYTES: usize = 64 << 20;

/// Why keys can not be written.
#[derive(Debug, Error)]
pub(super) enum NoKeyLog {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is {found}, expected {expected}", .path.display())]
    Unsafe {
        path: PathBuf,
        found: String,
        expected: &'static str,
    },
}

/// Where keys go, if anywhere.
pub(super) struct KeyLog {
    dir: Option<PathBuf>,
    files: Option<Files>,
    /// Lines written in this run.
    lines: u64,
    bytes: usize,
    events: EventLog,
}

struct Files {
    ike: File,
    esp: File,
}

impl KeyLog {
    /// Off; `dir` is where the operator lets keys go.
    pub(super) fn new(dir: Option<PathBuf>, events: EventLog) -> KeyLog {
        KeyLog {
            dir,
            files: None,
            lines: 0,
            bytes: 0,
            events,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.files.is_some()
    }

    /// For the status; `None` if the node may not write keys at all.
    pub(super) fn view(&self) -> Option<model::KeyLog> {
        self.dir.as_ref().map(|dir| model::KeyLog {
            on: self.is_on(),
            directory: dir.display().to_string(),
            lines: self.lines,
        })
    }

    /// Begins to write; false if the operator has not allowed it.
    ///
    /// # Errors
    /// Others could read what would be written, or nothing can be.
    pub(super) fn begin(&mut self) -> Result<bool, NoKeyLog> {
        let Some(dir) = &self.dir else {
            return Ok(false);
        };
        if self.files.is_none() {
            private_dir(dir)?;
            self.files = Some(Files {
                ike: private_file(&dir.join(IKE_FILE))?,
                esp: private_file(&dir.join(ESP_FILE))?,
            });
            let text = format!(
                "keys of ALL sessions are written to {}: whoever reads them reads the traffic",
                dir.display()
            );
            self.tell(text);
        }
        Ok(true)
    }

    /// Writes no more.
    pub(super) fn end(&mut self) {
        if self.files.take().is_some() {
            let text = format!("no more keys are written; there are {} lines", self.lines);
            self.tell(text);
        }
    }

    /// The keys of an IKE SA.
    pub(super) fn ike(&mut self, keys: &IkeSaKeys) {
        if self.is_on() {
            self.write(|files| &mut files.ike, &ike_line(keys));
        }
    }

    /// The keys of a session's ESP SAs, between the addresses that it has now.
    pub(super) fn esp(&mut self, spec: &SessionSpec) {
        for (direction, sa) in spec.sas() {
            if self.is_on() {
                self.write(|files| &mut files.esp, &esp_line(spec, direction, sa));
            }
        }
    }

    fn write(&mut self, of: fn(&mut Files) -> &mut File, line: &str) {
        let Some(files) = &mut self.files else { return };
        self.bytes = self.bytes.saturating_add(line.len());
        let outcome = match self.bytes > MOST_BYTES {
            true => Err(io::Error::other("more than 64 MiB of them")),
            // At once: two lines never mix.
            false => of(files).write_all(line.as_bytes()),
        };
        match outcome {
            Ok(()) => self.lines += 1,
            Err(error) => {
                self.files = None;
                self.tell(format!("no more keys are written: {error}"));
            }
        }
    }

    fn tell(&self, text: String) {
        self.events.push(NewEvent::new(EventKind::Keylog, text));
    }
}

/// A folder that nobody but its owner, who we are, can look into; made if it is missing.
fn private_dir(dir: &Path) -> Result<(), NoKeyLog> {
    let failed = |source| NoKeyLog::Io {
        path: dir.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = dir.symlink_metadata().map_err(failed)?;
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    if !found.is_dir() || mode & 0o077 != 0 || owner != own_uid() {
        let what = if found.is_dir() {
            "a folder"
        } else {
            "no folder"
        };
        return Err(NoKeyLog::Unsafe {
            path: dir.to_owned(),
            found: format!("{what} of user {owner} with mode {mode:04o}"),
            expected: "a folder of the user who runs the node with mode 0700",
        });
    }
    Ok(())
}

/// Opens a file to append to, 0600 and ours alone.
fn private_file(path: &Path) -> Result<File, NoKeyLog> {
    let failed = |source| NoKeyLog::Io {
        path: path.to_owned(),
        source,
    };
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(nofollow.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    let (mode, owner, links) = (found.mode() & 0o7777, found.uid(), found.nlink());
    if !found.is_file() || mode & 0o077 != 0 || owner != own_uid() || links != 1 {
        return Err(NoKeyLog::Unsafe {
            path: path.to_owned(),
            found: format!("a file of user {owner} with mode {mode:04o} and {links} names"),
            expected: "a plain file of the user who runs the node with mode 0600 and one name",
        });
    }
    Ok(file)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// SPIi, SPIr, SK_ei, SK_er, cipher, SK_ai, SK_ar, integrity: an AEAD has none of the latter three.
fn ike_line(keys: &IkeSaKeys) -> Zeroizing<String> {
    let cipher = match keys.cipher {
        IkeCipher::Aes128Gcm16 => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        IkeCipher::Aes256Gcm16 => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        // Not in Wireshark's list yet.
        IkeCipher::ChaCha20Poly1305 => "ChaCha20-Poly1305 [RFC7634]",
    };
    // No byte of it is moved while it grows, or it would leave keys behind.
    let mut line = Zeroizing::new(String::with_capacity(512));
    // Writing to a String does not fail, here and below.
    let _ = write!(line, "{:016x},{:016x},", keys.spi_i, keys.spi_r);
    hex(&mut line, &keys.sk_ei);
    line.push(',');
    hex(&mut line, &keys.sk_er);
    let _ = writeln!(line, ",\"{cipher}\",,,\"NONE [RFC4306]\"");
    line
}

/// Protocol, source, destination, SPI, cipher, key, integrity, its key.
fn esp_line(spec: &SessionSpec, direction: Direction, sa: &SaSpec) -> Zeroizing<String> {
    let (from, to) = match direction {
        Direction::In => (spec.outside_remote, spec.outside_local),
        Direction::Out => (spec.outside_local, spec.outside_remote),
    };
    let protocol = match from {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    let cipher = match sa.cipher {
        Cipher::Aes128Gcm | Cipher::Aes256Gcm => "AES-GCM with 16 octet ICV [RFC4106]",
        // From Wireshark 4.2 on; 4.0 refuses a table with it.
        Cipher::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
    };
    let mut line = Zeroizing::new(String::with_capacity(512));
    let _ = write!(
        line,
        "\"{protocol}\",\"{from}\",\"{to}\",\"{:#010x}\",\"{cipher}\",\"0x",
        sa.spi
    );
    hex(&mut line, sa.key.expose());
    hex(&mut line, sa.salt.expose());
    line.push_str("\",\"NULL\",\"\"\n");
    line
}

fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::esp::{Key, Salt};
    use crate::ike::Secret;
    use crate::sadb::Producer;

    fn key(length: u8) -> Vec<u8> {
        (0..length).collect()
    }

    fn ike(cipher: IkeCipher, length: u8) -> IkeSaKeys {
        IkeSaKeys {
            spi_i: 0x0102_0304_0506_0708,
            spi_r: 0xa1,
            cipher,
            sk_ei: Secret::new(&key(length)),
            sk_er: Secret::new(&vec![0xee; length.into()]),
        }
    }

    fn session() -> SessionSpec {
        let at = |text: &str| text.parse().unwrap();
        let mut spec = SessionSpec::new(at("192.0.2.1"), at("198.51.100.7"), Producer::Ike);
        let sa = |spi, cipher, length| {
            let key = Key::new(&key(length)).unwrap();
            SaSpec::new(spi, cipher, key, Salt::from([0xa, 0xb, 0xc, 0xd]))
        };
        spec.inbound = Some(sa(0x1000, Cipher::Aes128Gcm, 16));
        spec.outbound = Some(sa(0xc0ff_ee01, Cipher::ChaCha20Poly1305, 32));
        spec
    }

    #[test]
    fn lines_are_those_of_wireshark() {
        assert_eq!(
            *ike_line(&ike(IkeCipher::Aes128Gcm16, 20)),
            "0102030405060708,00000000000000a1,000102030405060708090a0b0c0d0e0f10111213,\
             eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee,\"AES-GCM-128 with 16 octet ICV [RFC5282]\",\
             ,,\"NONE [RFC4306]\"\n"
        );
        let spec = session();
        let lines: Vec<_> = spec
            .sas()
            .map(|(way, sa)| esp_line(&spec, way, sa))
            .collect();
        assert_eq!(
            *lines[0],
            "\"IPv4\",\"198.51.100.7\",\"192.0.2.1\",\"0x00001000\",\
             \"AES-GCM with 16 octet ICV [RFC4106]\",\"0x000102030405060708090a0b0c0d0e0f0a0b0c0d\",\
             \"NULL\",\"\"\n"
        );
        let chacha = "\"IPv4\",\"192.0.2.1\",\"198.51.100.7\",\"0xc0ffee01\",\
                      \"ChaCha20 with Poly1305 [RFC7634]\",";
        assert!(lines[1].starts_with(chacha), "{}", *lines[1]);
        let longest = ike_line(&ike(IkeCipher::Aes256Gcm16, 36));
        for line in lines.iter().chain([&longest]) {
            assert_eq!(line.capacity(), 512, "it has moved");
        }
    }

    #[test]
    fn without_the_operators_word_nothing_is_written() {
        let mut log = KeyLog::new(None, EventLog::new());
        assert!(!log.begin().unwrap());
        log.ike(&ike(IkeCipher::Aes128Gcm16, 20));
        log.esp(&session());
        assert!(!log.is_on());
        assert_eq!((log.view(), log.lines), (None, 0));
        assert!(log.events.since(0).is_empty());
    }

    #[test]
    fn files_are_their_owners_only_and_grow() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("keys");
        let events = EventLog::new();
        for round in 1..=2 {
            let mut log = KeyLog::new(Some(dir.clone()), events.clone());
            log.esp(&session());
            assert!(log.begin().unwrap());
            log.ike(&ike(IkeCipher::Aes256Gcm16, 36));
            log.esp(&session());
            assert_eq!(log.view().unwrap().lines, 3);
            log.end();
            log.esp(&session());
            assert!(!log.view().unwrap().on);
            for (file, lines) in [(IKE_FILE, 1), (ESP_FILE, 2)] {
                let path = dir.join(file);
                let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
                assert_eq!(mode, 0o600);
                let text = fs::read_to_string(path).unwrap();
                assert_eq!(text.lines().count(), lines * round);
            }
        }
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        let told: Vec<String> = events.since(0).into_iter().map(|e| e.text).collect();
        assert_eq!(told.len(), 4);
        assert!(told[0].starts_with("keys of ALL sessions are written to "));
        assert_eq!(told[1], "no more keys are written; there are 3 lines");
        let digits = "000102030405";
        assert!(told.iter().all(|text| !text.contains(digits)), "{told:?}");
    }

    #[test]
    fn what_others_could_read_is_not_written_to() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("keys");
        let begin = || {
            let mut log = KeyLog::new(Some(dir.clone()), EventLog::new());
            log.begin().unwrap_err().to_string()
        };
        let to =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        fs::create_dir(&dir).unwrap();
        to(&dir, 0o750);
        assert!(
            begin().contains("with mode 0750, expected a folder"),
            "{}",
            begin()
        );
        to(&dir, 0o700);
        let file = dir.join(IKE_FILE);
        fs::write(&file, "").unwrap();
        to(&file, 0o640);
        assert!(
            begin().contains("with mode 0640 and 1 names"),
            "{}",
            begin()
        );
        to(&file, 0o600);
        fs::hard_link(&file, dir.join("other")).unwrap();
        assert!(
            begin().contains("with mode 0600 and 2 names"),
            "{}",
            begin()
        );
        fs::remove_file(&file).unwrap();
        symlink(dir.join("other"), &file).unwrap();
        assert!(begin().contains(IKE_FILE), "{}", begin());
        fs::remove_file(&file).unwrap();
        fs::rename(&dir, parent.path().join("elsewhere")).unwrap();
        symlink(parent.path().join("elsewhere"), &dir).unwrap();
        assert!(begin().contains("is no folder"), "{}", begin());
    }

    #[test]
    fn there_is_an_end_to_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("keys");
        let mut log = KeyLog::new(Some(dir.clone()), EventLog::new());
        assert!(log.begin().unwrap());
        log.bytes = MOST_BYTES - 300;
        log.ike(&ike(IkeCipher::Aes256Gcm16, 36));
        assert!(log.is_on());
        log.ike(&ike(IkeCipher::Aes256Gcm16, 36));
        assert!(!log.is_on());
        let told = log.events.since(0).pop().unwrap();
        assert_eq!(
            told.text,
            "no more keys are written: more than 64 MiB of them"
        );
        assert!(told.kind.is_warning());
    }
}
