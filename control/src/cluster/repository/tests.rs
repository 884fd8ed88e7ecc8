mod ike;
mod power;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, future};

use proptest::prelude::*;
use redb::{Database, ReadableDatabase as _, TableDefinition};
use tempfile::TempDir;

use super::super::pair::Half;
use super::super::{EdgeId, Kept, Pair};
use super::{
    Outcome, Repository, RepositoryError, RepositoryKey, Settings, Stored, WAITING, Write,
};
use crate::esp::Cipher;

/// Beyond the life of this code.
const LATE: u64 = 1 << 40;
const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";

fn key() -> RepositoryKey {
    RepositoryKey::from(KEY)
}

fn half(spi: u32, seed: u8) -> Half {
    Half {
        spi,
        cipher: Cipher::Aes256Gcm,
        key: [seed ^ 0x5a; 32][..].into(),
        salt: [seed; 4][..].into(),
    }
}

fn pair(spi: u32, seed: u8, expires: u64) -> Pair {
    Pair {
        client: format!("client{seed}.example"),
        inner: vec!["10.0.0.130".parse().unwrap()],
        class: (seed.is_multiple_of(2)).then(|| "staff".to_owned()),
        local: "192.0.2.1".parse().unwrap(),
        remote: "198.51.100.2".parse().unwrap(),
        encap: None,
        roams: false,
        initiator: seed.is_multiple_of(3),
        lane: 0,
        own_port: false,
        inbound: half(spi, seed),
        outbound: half(!spi, seed.wrapping_add(1)),
        remote_inner: vec!["10.0.0.130/32".parse().unwrap()],
        local_inner: vec!["10.0.0.0/24".parse().unwrap()],
        heartbeat_key: Some([seed; 16][..].into()),
        esn: true,
        replay_window: 64,
        expires,
    }
}

fn kept(number: u64) -> Kept {
    Kept {
        term: number as u32,
        owner: (!number.is_multiple_of(3)).then_some(EdgeId(number as u16)),
        reserved: number << 24,
        hard: number << 28,
        rekey: number.is_multiple_of(2),
    }
}

fn embedded(folder: &TempDir) -> (Settings, PathBuf) {
    let file = folder.path().join("sas");
    (Settings::Embedded { file: file.clone() }, file)
}

async fn open(settings: &Settings) -> (Repository, Vec<Stored>) {
    Repository::open(settings, key()).await.unwrap()
}

async fn refusal(settings: &Settings, key: RepositoryKey) -> RepositoryError {
    Repository::open(settings, key)
        .await
        .expect_err("must be refused")
}

/// Waits until all that was written is done, in order.
async fn done(repository: &mut Repository, mut next: u64) {
    while repository.waiting() > 0 {
        assert_eq!(repository.next().await, Outcome::Done { number: next });
        next += 1;
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// One pair, written and closed.
async fn one(settings: &Settings, spi: u32) {
    let (mut repository, _) = open(settings).await;
    let write = Write::Pair {
        pair: Box::new(pair(spi, 7, LATE)),
        kept: kept(1),
    };
    repository.write(1, write);
    done(&mut repository, 1).await;
    repository.close().await;
}

#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    /// Wait until all is durable.
    Wait,
    /// Close with what waits, and open again.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..6u32, any::<u8>(), any::<bool>(), any::<u16>(), 0..4u8);
    let write = write.prop_map(|(spi, seed, late, number, what)| {
        let (spi, number) = (spi + 0x0123_4560, u64::from(number));
        Step::Write(match what {
            0 | 1 => {
                let pair = pair(spi, seed, if late { LATE } else { 1 });
                let (pair, kept) = (Box::new(pair), kept(number));
                Write::Pair { pair, kept }
            }
            2 => Write::Kept {
                spi,
                kept: kept(number),
            },
            _ => Write::Erase { spi },
        })
    });
    let step = prop_oneof![12 => write, 1 => Just(Step::Wait), 1 => Just(Step::Reopen)];
    prop::collection::vec(step, 1..60)
}

/// What a store is, in the fewest words.
fn apply(model: &mut BTreeMap<u32, Stored>, write: &Write) {
    match write.clone() {
        Write::Pair { pair, kept } => {
            model.insert(pair.spi(), Stored { pair: *pair, kept });
        }
        Write::Kept { spi, kept } => {
            if let Some(stored) = model.get_mut(&spi) {
                stored.kept = kept;
            }
        }
        Write::Erase { spi } => {
            model.remove(&spi);
        }
        Write::Ike(_) | Write::EraseIke { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_there_after_a_reopening_is_what_was_written(steps in steps()) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let (settings, _) = embedded(&folder);
            let (mut repository, stored) = open(&settings).await;
            assert_eq!(stored, []);
            let mut model = BTreeMap::new();
            let (mut number, mut told) = (0, 1);
            for step in steps.iter().chain([&Step::Reopen]) {
                match step {
                    Step::Write(write) => {
                        number += 1;
                        repository.write(number, write.clone());
                        apply(&mut model, write);
                    }
                    Step::Wait => {
                        done(&mut repository, told).await;
                        told = number + 1;
                    }
                    Step::Reopen => {
                        repository.close().await;
                        let (again, stored) = open(&settings).await;
                        repository = again;
                        told = number + 1;
                        model.retain(|_, stored| stored.pair.expires == LATE);
                        let expected: Vec<_> = model.values().cloned().collect();
                        assert_eq!(stored, expected);
                    }
                }
            }
        });
    }
}

#[test]
fn the_file_is_private_and_shows_no_key() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (settings, file) = embedded(&folder);
        one(&settings, 0x0123_4567).await;
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let there: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(there.len(), 1, "{there:?}");
        let bytes = fs::read(&file).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        let pair = pair(0x0123_4567, 7, LATE);
        for secret in [
            &pair.inbound.key,
            &pair.outbound.key,
            pair.heartbeat_key.as_ref().unwrap(),
        ] {
            // The record is not there in another form either.
            assert!(!has(&secret.expose()[..8]));
        }
        assert!(!has(pair.client.as_bytes()) && !has(&KEY[..8]));
        // The table itself is there to be seen: the search finds what is in the file.
        assert!(has(b"pairs"));
    });
}

#[test]
fn another_key_is_refused_and_changes_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (settings, _) = embedded(&folder);
        one(&settings, 5 << 20).await;
        let error = refusal(&settings, RepositoryKey::from([7; 32])).await;
        assert!(matches!(error, RepositoryError::WrongKey { .. }), "{error}");
        let (_, stored) = open(&settings).await;
        assert_eq!(stored.len(), 1);
    });
}

#[test]
fn a_second_writer_is_refused_by_name_of_the_file() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (settings, file) = embedded(&folder);
        let (first, _) = open(&settings).await;
        let error = refusal(&settings, key()).await;
        assert!(matches!(error, RepositoryError::InUse { .. }), "{error}");
        assert!(
            error.to_string().contains(file.to_str().unwrap()),
            "{error}"
        );
        first.close().await;
        open(&settings).await;
    });
}

/// Changes a record with nothing of ours.
fn meddle(file: &Path, table: &str, spi: u32, change: impl FnOnce(&mut Vec<u8>)) {
    let table = TableDefinition::<u32, &[u8]>::new(table);
    let database = Database::open(file).unwrap();
    let read = database.begin_read().unwrap().open_table(table).unwrap();
    let mut record = read.get(spi).unwrap().unwrap().value().to_vec();
    drop(read);
    change(&mut record);
    let write = database.begin_write().unwrap();
    match record.is_empty() {
        true => drop(write.open_table(table).unwrap().remove(spi).unwrap()),
        false => {
            let mut table = write.open_table(table).unwrap();
            table.insert(spi, record.as_slice()).unwrap();
        }
    }
    write.commit().unwrap();
}

#[test]
fn a_damaged_record_stops_the_start_and_is_named() {
    let spi = 0x0123_4567;
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change); 6] = [
        ("kept", |record| record[30] ^= 1),
        ("kept", |record| record[2] ^= 1),
        ("kept", |record| record.truncate(30)),
        ("kept", Vec::clear),
        ("pairs", |record| *record.last_mut().unwrap() ^= 0x80),
        ("pairs", Vec::clear),
    ];
    run(async {
        for (table, change) in cases {
            let folder = tempfile::tempdir().unwrap();
            let (settings, file) = embedded(&folder);
            one(&settings, spi).await;
            meddle(&file, table, spi, change);
            let error = refusal(&settings, key()).await;
            assert!(
                matches!(error, RepositoryError::Damaged { spi: Some(found), .. } if found == spi),
                "{error}"
            );
            assert!(error.to_string().contains("0x01234567"), "{error}");
        }
    });
}

#[test]
fn a_record_in_the_place_of_another_is_refused() {
    let (one_spi, other_spi) = (0x0123_4567, 0x0123_4568);
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (settings, file) = embedded(&folder);
        one(&settings, one_spi).await;
        one(&settings, other_spi).await;
        let mut other = Vec::new();
        meddle(&file, "kept", other_spi, |record| other.clone_from(record));
        meddle(&file, "kept", one_spi, |record| *record = other);
        let error = refusal(&settings, key()).await;
        assert!(
            matches!(error, RepositoryError::Damaged { spi: Some(found), .. } if found == one_spi),
            "{error}"
        );
    });
}

#[test]
fn a_file_that_is_no_repository_stays_as_it_is() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (settings, file) = embedded(&folder);
        let text = "something else entirely, and longer than a header\n".repeat(200);
        fs::write(&file, &text).unwrap();
        let error = refusal(&settings, key()).await;
        assert!(
            error.to_string().contains(file.to_str().unwrap()),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    });
}

#[test]
fn a_key_is_64_digits_in_a_private_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let put = |text: &str, mode| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        RepositoryKey::read(&file)
    };
    let digits = "00ff".repeat(16);
    let read = put(&format!("{digits}\n"), 0o600).unwrap();
    let expected = std::array::from_fn(|at| if at % 2 == 0 { 0 } else { 0xff });
    assert!(read.is(&RepositoryKey::from(expected).id()));
    for (text, mode) in [
        (&*digits, 0o644),
        ("abc", 0o600),
        (&digits[2..], 0o600),
        ("", 0o600),
    ] {
        let error = put(text, mode).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
        assert!(text.is_empty() || !error.contains(text), "{error}");
    }
}

#[test]
fn more_writes_than_may_wait_end_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (settings, _) = embedded(&folder);
        let (mut repository, _) = open(&settings).await;
        for number in 0..=WAITING as u64 {
            repository.write(number, Write::Erase { spi: 1 });
        }
        for _ in 0..2 {
            assert!(matches!(repository.next().await, Outcome::Deposed { .. }));
        }
    });
}

#[test]
fn to_wait_for_what_happens_can_be_given_up_at_any_time() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (settings, _) = embedded(&folder);
        let (mut repository, _) = open(&settings).await;
        for number in 1..=50 {
            repository.write(number, Write::Erase { spi: 1 });
        }
        let mut expected = 1;
        while repository.waiting() > 0 {
            tokio::select! {
                biased;
                outcome = repository.next() => {
                    assert_eq!(outcome, Outcome::Done { number: expected });
                    expected += 1;
                }
                () = async { tokio::task::yield_now().await; future::ready(()).await } => (),
            }
        }
        assert_eq!(expected, 51);
    });
}
