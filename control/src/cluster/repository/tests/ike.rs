//! IKE SAs in a repository, and the number of the run.

use redb::ReadableTable as _;
use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use redb::{Database, TableDefinition};

use super::super::{RepositoryError, StoredIke, Write};
use super::{KEY, LATE, done, embedded, key, one, open, refusal, run};

fn ike(spi: u64, seed: u8, expires: u64) -> StoredIke {
    StoredIke {
        spi,
        expires,
        state: [seed; 200][..].into(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn ike_sas_are_there_again_and_no_run_has_the_number_of_another(
        lives in prop::collection::vec(
            prop::collection::vec((0..5_u64, any::<u8>(), any::<bool>(), any::<bool>()), 0..20),
            1..5,
        ),
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let (settings, _) = embedded(&folder);
            let mut model: BTreeMap<u64, StoredIke> = BTreeMap::new();
            for (life, writes) in (1..).zip(&lives) {
                let (mut repository, pairs) = open(&settings).await;
                assert!(pairs.is_empty());
                assert_eq!(repository.run(), life);
                model.retain(|_, stored| stored.expires == LATE);
                let expected: Vec<_> = model.values().cloned().collect();
                assert_eq!(repository.take_ike(), expected);
                for (number, (spi, seed, late, erase)) in (1..).zip(writes.iter().copied()) {
                    let spi = spi << 40;
                    let write = if erase {
                        model.remove(&spi);
                        Write::EraseIke { spi }
                    } else {
                        let stored = ike(spi, seed, if late { LATE } else { 1 });
                        model.insert(spi, stored.clone());
                        Write::Ike(stored)
                    };
                    repository.write(number, write);
                }
                repository.close().await;
            }
        });
    }
}

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ike");
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");

#[test]
fn a_damaged_ike_sa_or_run_stops_the_start() {
    run(async {
        let (spi, other) = (0x0123_4567_89ab_cdef, 0x0123_4567_89ab_cdee);
        for what in ["record", "place", "run", "no run"] {
            let folder = tempfile::tempdir().unwrap();
            let (settings, file) = embedded(&folder);
            let (mut repository, _) = open(&settings).await;
            repository.write(1, Write::Ike(ike(spi, 7, LATE)));
            done(&mut repository, 1).await;
            repository.close().await;
            let bytes = fs::read(&file).unwrap();
            let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            assert!(!has(&[7; 8]) && !has(&KEY[..8]), "a key is shown");
            let write = Database::open(&file).unwrap().begin_write().unwrap();
            {
                let mut records = write.open_table(RECORDS).unwrap();
                let mut record = records.get(spi).unwrap().unwrap().value().to_vec();
                match what {
                    "record" => {
                        record[60] ^= 1;
                        records.insert(spi, record.as_slice()).unwrap();
                    }
                    "place" => drop(records.insert(other, record.as_slice()).unwrap()),
                    what => {
                        let mut about = write.open_table(ABOUT).unwrap();
                        let mut run = about.remove("run").unwrap().unwrap().value().to_vec();
                        run[30] ^= 1;
                        if what == "run" {
                            about.insert("run", run.as_slice()).unwrap();
                        }
                    }
                }
            }
            write.commit().unwrap();
            let error = refusal(&settings, key()).await;
            assert!(matches!(error, RepositoryError::Damaged { .. }), "{error}");
            let text = error.to_string();
            let named = if what == "place" { other } else { spi };
            let expected = match what {
                "record" | "place" => format!("{named:016x}"),
                _ => "the number of the last run".to_owned(),
            };
            assert!(text.contains(&expected), "{what}: {text}");
        }
    });
}

/// One of a time when IKE SAs were not kept.
#[test]
fn a_repository_without_them_is_taken_as_it_is() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (settings, file) = embedded(&folder);
        one(&settings, 5 << 20).await;
        let write = Database::open(&file).unwrap().begin_write().unwrap();
        assert!(write.delete_table(RECORDS).unwrap());
        write.open_table(ABOUT).unwrap().remove("run").unwrap();
        write.commit().unwrap();
        let (mut repository, pairs) = open(&settings).await;
        assert_eq!((pairs.len(), repository.run()), (1, 1));
        assert_eq!(repository.take_ike(), []);
    });
}
