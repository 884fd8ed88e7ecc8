//! The repository in a real etcd cluster of three members, on loopback: members are killed, the quorum goes and comes
//! back, and a second authority takes over.

mod repository_support;

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evergate::cluster::repository::{
    Outcome, Reader, Repository, RepositoryError, RepositoryKey, Settings, Stored, Tls, Write,
};
use evergate_tests::store::{self, Model};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use repository_support::{Writer, runtime};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);
const MEMBERS: usize = 3;

struct Cluster {
    folder: TempDir,
    /// For clients, and for the other members.
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Child>>,
    /// Toward clients.
    scheme: &'static str,
    words: Vec<String>,
}

impl Cluster {
    fn start() -> Self {
        let cluster = Self::with("http", Vec::new());
        let until = Instant::now() + LONG;
        while cluster.leader().is_none() {
            assert!(
                Instant::now() < until,
                "the members of etcd found no leader"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    /// With further words of the command line.
    fn with(scheme: &'static str, words: Vec<String>) -> Self {
        // Held together, so that none comes twice.
        let free = |_| TcpListener::bind("127.0.0.1:0").expect("a port");
        let held: Vec<_> = (0..2 * MEMBERS).map(free).collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let ports = held.chunks(2).map(|two| (port(&two[0]), port(&two[1])));
        let mut cluster = Self {
            folder: tempfile::tempdir().expect("a folder"),
            ports: ports.collect(),
            members: (0..MEMBERS).map(|_| None).collect(),
            scheme,
            words,
        };
        drop(held);
        (0..MEMBERS).for_each(|member| cluster.begin(member));
        cluster
    }

    fn begin(&mut self, member: usize) {
        let peer = |(_, port): &(u16, u16)| format!("http://127.0.0.1:{port}");
        let all = self.ports.iter().enumerate();
        let all: Vec<_> = all
            .map(|(n, ports)| format!("m{n}={}", peer(ports)))
            .collect();
        let client = format!("{}://127.0.0.1:{}", self.scheme, self.ports[member].0);
        let peer = peer(&self.ports[member]);
        let name = format!("m{member}");
        let log = std::fs::File::create(self.folder.path().join(format!("{name}.log")));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.folder.path().join(&name))
            .args(["--name", &name, "--log-level", "warn"])
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &all.join(","),
                "--initial-cluster-token",
                "evergate",
            ])
            .args(&self.words)
            .stdout(Stdio::null())
            .stderr(log.expect("a file for the log"))
            .spawn()
            .expect(
                "etcd can not be started: `cargo xtask setup` installs it (Debian: etcd-server)",
            );
        self.members[member] = Some(child);
    }

    /// SIGKILL.
    fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().expect("a member that runs");
        child.kill().and_then(|()| child.wait()).expect("its end");
    }

    fn endpoints(&self) -> Vec<String> {
        let clients = self.ports.iter();
        clients
            .map(|(port, _)| format!("127.0.0.1:{port}"))
            .collect()
    }

    fn settings(&self) -> Settings {
        Settings::Etcd {
            endpoints: self.endpoints(),
            prefix: "evergate/test".to_owned(),
            tls: None,
            user: None,
        }
    }

    /// What the member says of itself: its own number and the leader's.
    fn status(&self, member: usize) -> Option<(String, String)> {
        let (port, _) = self.ports[member];
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(LONG)).ok()?;
        let request =
            "POST /v3/maintenance/status HTTP/1.0\r\nHost: etcd\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let body: serde_json::Value = serde_json::from_str(body).ok()?;
        let own = body["header"]["member_id"].as_str()?.to_owned();
        Some((own, body["leader"].as_str()?.to_owned()))
    }

    fn leader(&self) -> Option<usize> {
        let led = |member: &usize| {
            self.status(*member)
                .is_some_and(|(own, leader)| own == leader)
        };
        (0..MEMBERS).find(led)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn key() -> RepositoryKey {
    RepositoryKey::from(store::KEY)
}

async fn open(settings: &Settings) -> (Repository, Vec<Stored>) {
    let open = Repository::open(settings, key());
    timeout(LONG, open).await.expect("in time").expect("opened")
}

async fn next(repository: &mut Repository) -> Outcome {
    timeout(LONG, repository.next()).await.expect("in time")
}

#[test]
fn what_is_done_survives_the_death_of_the_leader() {
    let mut cluster = Cluster::start();
    let settings = cluster.settings();
    runtime().block_on(async {
        let (mut repository, stored) = open(&settings).await;
        assert_eq!(stored, []);
        let (mut given, mut done, mut away) = (0, 0, 0);
        while done < 4000 {
            while repository.waiting() < 300 {
                given += 1;
                repository.write(given, store::write(given));
            }
            match next(&mut repository).await {
                Outcome::Done { number } => {
                    assert_eq!(number, done + 1);
                    done = number;
                    if done == 2000 {
                        cluster.kill(cluster.leader().expect("a leader"));
                    }
                }
                Outcome::Away { .. } => away += 1,
                Outcome::Back => (),
                Outcome::Deposed { why } => panic!("{why}"),
            }
        }
        assert!(away <= 3, "{away}");
        let other = RepositoryKey::from([1; 32]);
        let refused = Repository::open(&settings, other)
            .await
            .expect_err("another key");
        assert!(
            matches!(refused, RepositoryError::WrongKey { .. }),
            "{refused}"
        );
        // What waits is written before another may have it.
        repository.close().await;
        let (repository, stored) = open(&settings).await;
        let mut model = Model::new();
        (1..=given).for_each(|number| store::apply(&mut model, store::write(number)));
        assert!(model.values().eq(&stored));
        repository.close().await;
    });
}

#[test]
fn a_second_authority_waits_and_the_first_one_writes_no_more() {
    let cluster = Cluster::start();
    let place = format!("etcd:evergate/test@{}", cluster.endpoints().join(","));
    let mut first = Writer::start(1, &place, false);
    first.wait(|line| line == "done 1000", LONG);
    first.signal(Signal::STOP);
    let settings = cluster.settings();
    runtime().block_on(async {
        let stopped = Instant::now();
        let (mut second, stored) = open(&settings).await;
        let waited = stopped.elapsed();
        assert!(waited > Duration::from_secs(2), "{waited:?}");
        println!(
            "the second authority had it {:.1} s after the first one was stopped",
            waited.as_secs_f64()
        );
        second.write(
            1,
            Write::Pair {
                pair: Box::new(store::pair(5_000_000)),
                kept: store::kept(1),
            },
        );
        assert_eq!(next(&mut second).await, Outcome::Done { number: 1 });
        first.signal(Signal::CONT);
        let mut last = String::new();
        while !last.starts_with("deposed ") {
            last = first.wait(|line| !line.starts_with("done "), LONG);
            println!("{last}");
        }
        // It has ended by itself.
        let done = first.rest();
        let mut model = Model::new();
        let reached = store::reach(&mut model, 0, done, &stored);
        assert!(
            reached.is_some(),
            "done up to {done}, and no state after that is stored"
        );
        let mut expected: Vec<_> = model.into_values().collect();
        expected.push(Stored {
            pair: store::pair(5_000_000),
            kept: store::kept(1),
        });
        second.close().await;
        let released = Instant::now();
        let (third, stored) = open(&settings).await;
        assert!(stored == expected);
        assert!(
            released.elapsed() < Duration::from_secs(2),
            "{:?}",
            released.elapsed()
        );
        third.close().await;
    });
}

#[test]
fn without_a_quorum_it_is_away_and_goes_on_when_there_is_one_again() {
    let mut cluster = Cluster::start();
    let settings = cluster.settings();
    runtime().block_on(async {
        let (mut repository, _) = open(&settings).await;
        let times = store::time(&mut repository, (1..=500).map(store::write), 1).await;
        println!(
            "a write is durable after {:.1} ms (median), {:.1} ms (99 %)",
            times.share(500).as_secs_f64() * 1e3,
            times.share(990).as_secs_f64() * 1e3
        );
        let (reader, other) = (
            RepositoryKey::from(store::KEY),
            RepositoryKey::from([1; 32]),
        );
        assert!(Reader::open(&settings, other).await.is_err());
        let mut reader = Reader::open(&settings, reader).await.unwrap().unwrap();
        let mut model = Model::new();
        (1..=500).for_each(|number| store::apply(&mut model, store::write(number)));
        let mut fetched = Vec::new();
        for spi in (0..store::PAIRS).map(|number| store::pair(number).spi()) {
            let start = Instant::now();
            let found = reader.fetch(spi).await.expect("an answer");
            fetched.push(start.elapsed());
            assert!(found.as_ref() == model.get(&spi));
        }
        fetched.sort_unstable();
        println!(
            "a pair is fetched in {:.1} ms (median), {:.1} ms (99 %)",
            fetched[fetched.len() / 2].as_secs_f64() * 1e3,
            fetched[fetched.len() * 99 / 100].as_secs_f64() * 1e3
        );
        cluster.kill(0);
        cluster.kill(2);
        // With nothing to write, too.
        let told = next(&mut repository).await;
        assert!(matches!(told, Outcome::Away { .. }), "{told:?}");
        for number in 1..=300 {
            repository.write(number, store::write(number));
        }
        let quiet = timeout(Duration::from_secs(3), repository.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        // Longer than the writer's lease: without a quorum nobody can take its place either.
        tokio::time::sleep(Duration::from_secs(4)).await;
        cluster.begin(0);
        cluster.begin(2);
        assert_eq!(next(&mut repository).await, Outcome::Back);
        for number in 1..=300 {
            assert_eq!(next(&mut repository).await, Outcome::Done { number });
        }
        repository.close().await;
    });
}

/// Files of a CA, and of a certificate and its key that it signed.
fn certificate(folder: &Path, name: &str, ca: &CertifiedIssuer<'_, KeyPair>) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let names = vec!["etcd.example".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let signed = params.signed_by(&key, ca).unwrap();
    let file = |kind: &str, text: String| {
        let path = folder.join(format!("{name}.{kind}"));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    };
    (file("crt", signed.pem()), file("key", key.serialize_pem()))
}

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn by_certificates_both_sides_know_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (good, other) = (ca(), ca());
    for (name, ca) in [("ca.pem", &good), ("other.pem", &other)] {
        std::fs::write(path(name), ca.pem()).unwrap();
    }
    let (certificate_file, key_file) = certificate(folder.path(), "etcd", &good);
    let word = |name: &str, file: PathBuf| format!("--{name}={}", file.display());
    let words = vec![
        word("cert-file", certificate_file),
        word("key-file", key_file),
        word("trusted-ca-file", path("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let cluster = Cluster::with("https", words);
    let ours = certificate(folder.path(), "authority", &good);
    let theirs = certificate(folder.path(), "stranger", &other);
    let with = |ca: &str, identity: Option<&(PathBuf, PathBuf)>, name: &str| {
        let identity = identity.map(|(certificate, key)| (&**certificate, &**key));
        Settings::Etcd {
            endpoints: cluster.endpoints(),
            prefix: "evergate/test".to_owned(),
            tls: Some(Tls::read(&path(ca), identity, Some(name.to_owned())).unwrap()),
            user: None,
        }
    };
    runtime().block_on(async {
        let (mut repository, _) = open(&with("ca.pem", Some(&ours), "etcd.example")).await;
        repository.write(1, store::write(1));
        assert_eq!(next(&mut repository).await, Outcome::Done { number: 1 });
        repository.close().await;
        // Each takes as long as a cluster may be away, so they wait together.
        let refused = [
            with("other.pem", Some(&ours), "etcd.example"),
            with("ca.pem", Some(&ours), "another.example"),
            with("ca.pem", Some(&theirs), "etcd.example"),
            with("ca.pem", None, "etcd.example"),
        ];
        let [a, b, c, d] = refused.each_ref().map(|with| Repository::open(with, key()));
        let all = tokio::join!(a, b, c, d);
        for result in [all.0, all.1, all.2, all.3] {
            let error = result.expect_err("must be refused");
            assert!(
                matches!(error, RepositoryError::Unavailable { .. }),
                "{error}"
            );
            // For each member, in a few words.
            let text = error.to_string();
            assert!(text.to_lowercase().contains("certificate"), "{text}");
            assert!(text.len() < 600, "{text}");
        }
    });
}
