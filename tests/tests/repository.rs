//! The embedded repository under the worst that a process can meet: it is killed in the middle of writes, and its
//! disk takes no more.

mod repository_support;

use std::time::Duration;

use evergate::cluster::repository::{Repository, RepositoryKey, Settings, Stored};
use evergate_tests::store::{self, Model};
use repository_support::{Writer, runtime};
use rustix::process::{Resource, Rlimit, Signal, prlimit};

fn stored(file: &std::path::Path) -> Vec<Stored> {
    let file = file.to_owned();
    runtime().block_on(async {
        let settings = Settings::Embedded { file };
        let key = RepositoryKey::from(store::KEY);
        let (repository, stored) = Repository::open(&settings, key).await.expect("opened");
        repository.close().await;
        stored
    })
}

#[test]
fn what_was_done_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sas");
    let (mut model, mut at) = (Model::new(), 0);
    let mut written = 0;
    for round in 0..12_u64 {
        let mut writer = Writer::start(at + 1, file.to_str().unwrap(), false);
        writer.wait(|line| line == "open", Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(3 + round * 37 % 150));
        writer.signal(Signal::KILL);
        let done = writer.rest().max(at);
        written += done - at;
        let now = stored(&file);
        at = store::reach(&mut model, at, done, &now).unwrap_or_else(|| {
            panic!("round {round}: done up to {done}, and what is stored is no state after that")
        });
    }
    // Killed before it had done anything, it would have shown nothing.
    assert!(written > 1000, "{written}");
    println!("{written} writes were done in 12 lives");
}

#[test]
fn a_disk_that_takes_no_more_is_told_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sas");
    let mut writer = Writer::start(1, file.to_str().unwrap(), true);
    let long = Duration::from_secs(20);
    writer.wait(|line| line == "done 500", long);
    let pid = writer.pid();
    let limit = |current| {
        let limit = Rlimit {
            current,
            maximum: None,
        };
        prlimit(Some(pid), Resource::Fsize, limit).expect("a limit");
    };
    limit(Some(4096));
    writer.wait(|line| line.starts_with("away "), long);
    std::thread::sleep(Duration::from_millis(700));
    limit(None);
    // Nothing was done meanwhile, and it was told once.
    let next = writer.wait(|_| true, long);
    assert_eq!(next, "back");
    (0..3000).for_each(|_| assert!(writer.wait(|_| true, long).starts_with("done ")));
    writer.signal(Signal::KILL);
    let done = writer.rest();
    let reached = store::reach(&mut Model::new(), 0, done, &stored(&file));
    assert!(
        reached.is_some(),
        "done up to {done}, and what is stored is no state after that"
    );
}
