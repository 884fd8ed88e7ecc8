//! The channel over real sockets on loopback, with certificates made for each test.

mod ends;
mod frames;
mod notary;
mod talk;
mod trust;

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Credentials, Heard, Known, Listener, News, Uplink};
use crate::cluster::EdgeId;
use crate::cluster::wire::{self, Down, Up};

const LOOPBACK: &str = "127.0.0.1:0";
const AUTHORITY: &str = "authority.example";
const ONE: EdgeId = EdgeId(1);
const TWO: EdgeId = EdgeId(2);

/// A CA, and where its files are.
struct Ca {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of a node.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Ca {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let mut params = CertificateParams::default();
        let name = dir.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    fn files(&self, names: &[&str]) -> Files {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.clone()).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.dir.path().join(format!("{}.{end}", names.join("-")));
        let files = Files {
            certificate: path("pem"),
            key: path("key"),
            ca: self.dir.path().join("ca.pem"),
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
        files
    }

    fn credentials(&self, name: &str) -> Credentials {
        self.files(&[name]).read()
    }
}

impl Files {
    fn read(&self) -> Credentials {
        Credentials::read(&self.certificate, &self.key, std::slice::from_ref(&self.ca)).unwrap()
    }
}

fn known() -> Vec<Known> {
    [(ONE, "one.example"), (TWO, "two.example")]
        .map(|(edge, name)| Known {
            edge,
            name: name.to_owned(),
        })
        .into()
}

async fn listener(ca: &Ca) -> Listener {
    let credentials = ca.credentials(AUTHORITY);
    let address = LOOPBACK.parse().unwrap();
    Listener::bind(address, &credentials, known())
        .await
        .unwrap()
}

fn uplink(ca: &Ca, name: &str, authority: SocketAddr) -> Uplink {
    let authorities = vec![(authority, AUTHORITY.to_owned())];
    Uplink::start(authorities, &ca.credentials(name))
}

/// What a test waits for comes long before.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let waited = timeout(Duration::from_secs(20), future).await;
    waited.expect("it should have come")
}

/// The next thing that is not of strangers.
async fn heard(listener: &mut Listener) -> Heard {
    soon(listener.next()).await
}

/// A listener and an uplink with a connection between them.
async fn connected(ca: &Ca) -> (Listener, Uplink) {
    let mut listener = listener(ca).await;
    let authority = listener.local_addr();
    let mut uplink = uplink(ca, "one.example", authority);
    let connected = heard(&mut listener).await;
    assert!(
        matches!(connected, Heard::Connected { edge: ONE, .. }),
        "{connected:?}"
    );
    assert_eq!(soon(uplink.next()).await, News::Connected { authority });
    (listener, uplink)
}

/// TLS by hand, to do what an edge does not.
struct Raw {
    tls: TlsStream<TcpStream>,
}

impl Raw {
    async fn connect(config: rustls::ClientConfig, to: SocketAddr) -> std::io::Result<Self> {
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(AUTHORITY).unwrap();
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let tls = connector.connect(name, stream).await?;
        Ok(Self { tls })
    }

    /// As an edge that has greeted and was greeted.
    async fn edge(ca: &Ca, name: &str, to: SocketAddr) -> Self {
        let config = ca.credentials(name).client().unwrap();
        let mut raw = Self::connect(config, to).await.unwrap();
        let version = wire::VERSION;
        raw.send(&Up::Greeting { version }).await;
        assert_eq!(raw.receive().await, Down::Greeting { version });
        raw
    }

    async fn send(&mut self, message: &Up) {
        let bytes = wire::encode(message).unwrap();
        self.tls.write_all(&bytes).await.unwrap();
        self.tls.flush().await.unwrap();
    }

    async fn receive(&mut self) -> Down {
        let mut prefix = [0; wire::PREFIX];
        self.tls.read_exact(&mut prefix).await.unwrap();
        let mut content = vec![0; wire::content_len(prefix).unwrap()];
        self.tls.read_exact(&mut content).await.unwrap();
        wire::decode(&content).unwrap()
    }
}

/// A listener and an edge by hand, both greeted.
async fn met(ca: &Ca) -> (Listener, Raw) {
    let mut listener = listener(ca).await;
    let raw = Raw::edge(ca, "one.example", listener.local_addr()).await;
    let connected = heard(&mut listener).await;
    assert!(matches!(connected, Heard::Connected { edge: ONE, .. }));
    (listener, raw)
}
