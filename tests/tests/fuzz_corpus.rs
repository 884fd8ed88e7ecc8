//! The corpus of the fuzz targets, which was made from real exchanges (`cargo xtask corpus`): each
//! file goes through its target, and so do changes of it.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evergate_tests::fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng, RngExt as _, SeedableRng as _};

/// Bytes of all files together: they are in git.
const MOST_BYTES: usize = 400 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds")
}

/// The files of each target, in the order of their names.
fn files() -> BTreeMap<String, Vec<(PathBuf, Vec<u8>)>> {
    let list = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let read = |path: PathBuf| {
        let data = fs::read(&path).unwrap();
        (path, data)
    };
    let folders = list(&corpus()).into_iter().map(|dir| {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        (name, list(&dir).into_iter().map(read).collect())
    });
    folders.collect()
}

fn run(target: Target, data: &[u8], what: &str) {
    // The bytes, and not only a line of the parser, are what is needed to find the fault.
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{what}, these bytes: {hex}");
    }
}

#[test]
fn each_target_takes_its_corpus() {
    let files = files();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, targets, "folders of the corpus, and targets");
    let mut bytes = 0;
    for (name, target) in TARGETS {
        assert!(!files[*name].is_empty(), "{name} has no corpus");
        for (path, data) in &files[*name] {
            bytes += data.len();
            run(*target, data, &path.display().to_string());
        }
    }
    assert!(bytes <= MOST_BYTES, "{bytes} bytes are in git");
}

/// One change of what a real peer has said.
fn change(data: &mut Vec<u8>, other: &[u8], rng: &mut impl Rng) {
    let at = rng.random_range(0..=data.len());
    let end = data.len().min(at + rng.random_range(1..32));
    match rng.random_range(0..8) {
        0 => data.truncate(at),
        1 => drop(data.drain(at..end)),
        2 => data.extend_from_within(at..end),
        3 => data
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|b| *b ^= 1 << rng.random_range(0..8)),
        4 => data
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|b| *b = rng.random()),
        // Where a length may stand.
        5 => {
            let word = [0, rng.random_range(0..80)];
            let places = data.iter_mut().skip(at).zip(word);
            places.for_each(|(place, new)| *place = new);
        }
        6 => {
            let new: Vec<u8> = (0..rng.random_range(1..16)).map(|_| rng.random()).collect();
            data.splice(at..at, new);
        }
        // Of another message.
        _ => {
            let from = rng.random_range(0..=other.len());
            let until = other.len().min(from + rng.random_range(1..64));
            data.splice(at..end, other[from..until].iter().copied());
        }
    }
}

/// What each target gets at least, also where the machine is slow.
const LEAST: u64 = 10;

/// Changes the corpus for so long, shared by all targets; yields how often each target was called.
fn shake(time: Duration, seed: u64) -> Vec<(&'static str, u64)> {
    let files = files();
    let mut rng = StdRng::seed_from_u64(seed);
    let share = time / u32::try_from(TARGETS.len()).unwrap();
    let mut counts = Vec::new();
    for (name, target) in TARGETS {
        let files = &files[*name];
        let (until, mut count) = (Instant::now() + share, 0);
        while count < LEAST || Instant::now() < until {
            let [(_, one), (_, other)] = [(); 2].map(|()| &files[rng.random_range(0..files.len())]);
            let mut data = one.clone();
            for _ in 0..rng.random_range(1..6) {
                change(&mut data, other, &mut rng);
            }
            run(*target, &data, name);
            count += 1;
        }
        counts.push((*name, count));
    }
    counts
}

#[test]
fn each_target_takes_changes_of_its_corpus() {
    let counts = shake(Duration::from_secs(5), 1);
    assert_eq!(counts.len(), TARGETS.len());
    assert!(
        counts.iter().all(|(_, count)| *count >= LEAST),
        "{counts:?}"
    );
}

/// `EVERGATE_FUZZ_SECONDS=600 cargo test --release -p evergate-tests --test fuzz_corpus -- --ignored
/// --nocapture`
#[test]
#[ignore = "as long as one has time: EVERGATE_FUZZ_SECONDS, 60 by default"]
fn for_long() {
    let seconds = std::env::var("EVERGATE_FUZZ_SECONDS");
    let seconds = seconds.map_or(60, |text| text.parse().expect("a number of seconds"));
    for (name, count) in shake(Duration::from_secs(seconds), rand::rng().random()) {
        println!("{name}: {count}");
    }
}
