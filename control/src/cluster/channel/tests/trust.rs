//! Who is let in, and whom an edge believes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;
use crate::cluster::channel::ChannelError;

/// What the listener says of a stranger.
async fn refused(listener: &mut Listener) -> String {
    match heard(listener).await {
        Heard::Refused { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_is_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut listener = listener(&ca).await;
    let to = listener.local_addr();
    let client = |credentials: &Credentials| credentials.client().unwrap();

    // Of another CA, but believing ours.
    let mut files = other.files(&["one.example"]);
    files.ca = ca.dir.path().join("ca.pem");
    let _raw = Raw::connect(client(&files.read()), to).await;
    let why = refused(&mut listener).await;
    assert!(why.contains("UnknownIssuer"), "{why}");

    // Of ours, with names that are not an edge's, or several edges'.
    let one = ["one.example", "two.example"];
    let cases: [(&[&str], &str); 4] = [
        (&["three.example"], "names no edge: three.example"),
        (&["*.example"], "names no edge"),
        (&["192.0.2.1"], "names no edge: no DNS name"),
        (&one, "names several edges: one.example, two.example"),
    ];
    for (names, expected) in cases {
        let mut raw = Raw::connect(client(&ca.files(names).read()), to)
            .await
            .unwrap();
        let why = refused(&mut listener).await;
        assert!(why.contains(expected), "{why}");
        assert!(
            raw.tls.read_u8().await.is_err(),
            "{expected}: a word to a stranger"
        );
    }

    // Speaks something else.
    let mut config = client(&ca.credentials("one.example"));
    config.alpn_protocols.clear();
    let _raw = Raw::connect(config, to).await;
    let why = refused(&mut listener).await;
    assert!(why.contains("does not want to speak"), "{why}");

    // No TLS at all.
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    refused(&mut listener).await;

    // An edge comes in all the same.
    let _raw = Raw::edge(&ca, "one.example", to).await;
    let connected = heard(&mut listener).await;
    assert!(matches!(connected, Heard::Connected { edge: ONE, .. }));
}

#[tokio::test]
async fn without_a_certificate_or_by_tls_1_2_nobody_comes_in() {
    let ca = Ca::new();
    let mut listener = listener(&ca).await;
    let to = listener.local_addr();
    let files = ca.files(&["one.example"]);
    let mut roots = rustls::RootCertStore::empty();
    let der = crate::files::read_pem::<rustls_pki_types::CertificateDer<'_>>(&files.ca, "");
    roots.add(der.unwrap().remove(0).into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = |version| {
        rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
    };

    let mut none = config(&rustls::version::TLS13).with_no_client_auth();
    none.alpn_protocols = vec![crate::cluster::channel::ALPN.to_vec()];
    let mut raw = Raw::connect(none, to).await.unwrap();
    let why = refused(&mut listener).await;
    assert!(why.contains("sent no certificates"), "{why}");
    assert!(raw.tls.read_u8().await.is_err());

    let chain =
        crate::files::read_pem::<rustls_pki_types::CertificateDer<'_>>(&files.certificate, "");
    let chain = chain.unwrap().into_iter().map(Into::into).collect();
    let key = crate::files::read_key(&files.key).unwrap();
    let mut old = config(&rustls::version::TLS12)
        .with_client_auth_cert(chain, key)
        .unwrap();
    old.alpn_protocols = vec![crate::cluster::channel::ALPN.to_vec()];
    let error = Raw::connect(old, to)
        .await
        .err()
        .expect("TLS 1.2 is refused");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let why = refused(&mut listener).await;
    assert!(
        why.contains("Tls12NotOffered") || why.contains("Tls13"),
        "{why}"
    );
}

#[tokio::test]
async fn another_version_is_refused_with_a_clear_text() {
    let ca = Ca::new();
    let mut listener = listener(&ca).await;
    let config = ca.credentials("two.example").client().unwrap();
    let mut raw = Raw::connect(config, listener.local_addr()).await.unwrap();
    let version = wire::VERSION + 1;
    raw.send(&Up::Greeting { version }).await;
    let ours = wire::VERSION;
    assert_eq!(raw.receive().await, Down::Greeting { version: ours });
    let why = refused(&mut listener).await;
    let expected = format!("edge 2 speaks version {version} of the protocol, this node {ours}");
    assert_eq!(why, expected);

    // Whoever does not greet is no edge either.
    let config = ca.credentials("two.example").client().unwrap();
    let mut raw = Raw::connect(config, listener.local_addr()).await.unwrap();
    raw.send(&Up::Query { spi: 1 }).await;
    let why = refused(&mut listener).await;
    assert!(why.contains("before its greeting"), "{why}");
}

#[tokio::test]
async fn an_edge_believes_its_authority_only() {
    let (ca, other) = (Ca::new(), Ca::new());
    let address = LOOPBACK.parse().unwrap();
    let bind = async |ca: &Ca, name| {
        let credentials = ca.credentials(name);
        Listener::bind(address, &credentials, known())
            .await
            .unwrap()
    };
    let (stranger, misnamed) = (bind(&other, AUTHORITY).await, bind(&ca, "x.example").await);
    let mut right = bind(&ca, AUTHORITY).await;
    let places = [&stranger, &misnamed, &right].map(Listener::local_addr);
    let authorities = places.map(|place| (place, AUTHORITY.to_owned())).into();
    let mut uplink = Uplink::start(authorities, &ca.credentials("one.example"));
    for (place, expected) in places.into_iter().zip(["UnknownIssuer", "not valid for"]) {
        let failed = soon(uplink.next()).await;
        let News::Failed { authority, why } = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(authority, place);
        assert!(why.contains(expected), "{why}");
    }
    let authority = places[2];
    assert_eq!(soon(uplink.next()).await, News::Connected { authority });
    // The others are tried again when this one is gone, and not told of again.
    assert!(matches!(heard(&mut right).await, Heard::Connected { .. }));
    drop(right);
    assert!(matches!(soon(uplink.next()).await, News::Ended { .. }));
    let failed = soon(uplink.next()).await;
    let expected = "refused";
    assert!(
        matches!(&failed, News::Failed { authority, why }
            if *authority == places[2] && why.contains(expected)),
        "{failed:?}"
    );
    let more = timeout(Duration::from_millis(700), uplink.next()).await;
    assert!(more.is_err(), "told again: {more:?}");
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let ca = Ca::new();
    let mut listener = listener(&ca).await;
    let to = listener.local_addr();
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(to).await.unwrap());
    }
    let since = Instant::now();
    let _raw = Raw::edge(&ca, "one.example", to).await;
    let mut refused = 0;
    loop {
        match heard(&mut listener).await {
            Heard::Connected { edge, .. } => break assert_eq!(edge, ONE),
            Heard::Refused { .. } => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(since.elapsed() < super::super::HANDSHAKE, "it had to wait");
    // The oldest went at once, all others when their time was over.
    let mut byte = [0];
    assert_eq!(soon(silent[0].read(&mut byte)).await.unwrap_or(0), 0);
    assert_eq!(soon(silent[79].read(&mut byte)).await.unwrap_or(0), 0);
    assert!(since.elapsed() > super::super::HANDSHAKE - Duration::from_millis(500));
    assert!(refused > 0 || matches!(heard(&mut listener).await, Heard::Refused { .. }));
}

#[tokio::test]
async fn names_must_be_names_and_the_edges_own() {
    let ca = Ca::new();
    let bind = async |known: &[(u16, &str)]| {
        let known = known.iter().map(|(edge, name)| Known {
            edge: EdgeId(*edge),
            name: (*name).to_owned(),
        });
        let address = LOOPBACK.parse().unwrap();
        let credentials = ca.credentials(AUTHORITY);
        let listener = Listener::bind(address, &credentials, known.collect()).await;
        listener.err().map(|error| error.to_string())
    };
    let found = bind(&[(1, "one example")]).await;
    let expected = "edge 1 has the name one example, expected a DNS name";
    assert_eq!(found.as_deref(), Some(expected));
    for known in [
        [(1, "a.example"), (2, "A.example")],
        [(1, "a.example"), (1, "b.example")],
    ] {
        let found = bind(&known).await.unwrap();
        assert!(found.starts_with("two edges have"), "{found}");
    }
}

#[test]
fn files_are_told_by_name() {
    let ca = Ca::new();
    let (files, other) = (ca.files(&["one.example"]), ca.files(&["two.example"]));
    let read = |certificate: &PathBuf, key: &PathBuf, ca: &[PathBuf]| {
        let error = Credentials::read(certificate, key, ca).expect_err("an error");
        assert!(matches!(error, ChannelError::File(_)), "{error}");
        error.to_string()
    };
    let cas = std::slice::from_ref(&files.ca);
    let (certificate, key) = (files.certificate.display(), files.key.display());

    let found = read(&files.certificate, &other.key, cas);
    let other_key = other.key.display();
    let expected = format!(
        "{other_key}: found the key of another certificate, expected that of the first one in \
         {certificate}"
    );
    assert_eq!(found, expected);
    let found = read(&files.key, &files.key, cas);
    assert!(
        found.starts_with(&format!("{key}: found nothing, expected PEM")),
        "{found}"
    );
    let found = read(&files.certificate, &files.certificate, cas);
    // Certificates are open to everybody, which no key may be.
    assert!(found.contains("is open to everybody"), "{found}");
    fs::set_permissions(&files.certificate, Permissions::from_mode(0o600)).unwrap();
    let found = read(&files.certificate, &files.certificate, cas);
    let expected = format!("{certificate}: found no private key, expected PEM");
    assert!(found.starts_with(&expected), "{found}");
    let found = read(&files.certificate, &files.key, &[]);
    assert!(found.contains("no CA for the channel"), "{found}");
    let gone = ca.dir.path().join("gone.pem");
    let found = read(&files.certificate, &files.key, &[gone]);
    assert!(
        found.contains("gone.pem") && found.contains("No such file"),
        "{found}"
    );
    fs::set_permissions(&files.key, Permissions::from_mode(0o644)).unwrap();
    let found = read(&files.certificate, &files.key, cas);
    assert!(
        found.contains("is open to everybody (mode 0644)"),
        "{found}"
    );
}
