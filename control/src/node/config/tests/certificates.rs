//! Certificates, keys, CAs and CRLs in the configuration, made as the manual says.

use std::process::Command;

use super::*;

/// A directory with a CA, a gateway's certificate and key, and a CRL.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.run(&commands());
        files
    }

    fn run(&self, script: &str) {
        let output = Command::new("sh")
            .args(["-euc", script])
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    fn load(&self, text: &str) -> Result<Config, ConfigError> {
        let path = self.0.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        Config::load(&path)
    }

    /// What is wrong with a text, without the directory.
    fn said(&self, text: &str) -> String {
        let said = self.load(text).unwrap_err().to_string();
        said.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// The commands that the manual tells operators to paste.
fn commands() -> String {
    let manual = include_str!("../../../../../docs/configuration.md");
    let rest = manual.split("```sh\n# A CA").nth(1).unwrap();
    format!("# A CA{}", rest.split("```").next().unwrap())
}

fn gateway() -> String {
    let manual = include_str!("../../../../../docs/configuration.md");
    let mut examples = manual.split("```toml\n").skip(1);
    let example = examples.find(|e| e.contains("[local]")).unwrap();
    example.split("```").next().unwrap().to_owned()
}

#[test]
fn the_manual_s_commands_make_what_its_example_wants() {
    let files = Files::new();
    let config = files.load(&gateway()).unwrap();
    assert_eq!(config.warnings, []);
    let own = config.x509.own.unwrap();
    assert_eq!(own.shown()[1..], ["gw-a.example"]);
    assert_eq!(config.x509.trust.counts(), (1, 1));
    let [cert, mixed] = &config.peers[..] else {
        panic!("{:?}", config.peers)
    };
    assert_eq!((cert.auth, cert.auth_own), (Auth::Cert, Auth::Cert));
    assert!(cert.psk.is_none());
    assert_eq!((mixed.auth, mixed.auth_own), (Auth::Psk, Auth::Cert));
    assert!(mixed.psk.is_some());
}

#[test]
fn each_mistake_is_told_with_its_file() {
    let files = Files::new();
    let good = gateway();
    files.run(
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out other.key
         openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out p521.key
         openssl pkcs8 -topk8 -in gw-a.key -passout pass:secret -out locked.key
         cp gw-a.key open.key; chmod 644 open.key; echo nothing > empty.pem",
    );
    for (from, to, expected) in [
        (
            "gw-a.pem",
            "none.pem",
            "local.cert: cannot read none.pem: No such file or directory (os error 2)",
        ),
        (
            "gw-a.pem",
            "empty.pem",
            "local.cert: empty.pem: found nothing, expected PEM with -----BEGIN CERTIFICATE-----",
        ),
        (
            "gw-a.pem",
            "client-1.pem",
            "local.cert: client-1.pem: the private key does not belong to the first certificate, \
             which is of CN=client-1.example",
        ),
        (
            "gw-a.key",
            "other.key",
            "local.cert: gw-a.pem: the private key does not belong to the first certificate, \
             which is of CN=gw-a.example",
        ),
        (
            "gw-a.key",
            "p521.key",
            "local.key: p521.key: the private key can not be used: expected ECDSA on P-256 or \
             P-384, Ed25519, or RSA with 2048 to 4096 bits",
        ),
        (
            "gw-a.key",
            "locked.key",
            "local.key: locked.key: found an encrypted key, expected one without a password",
        ),
        (
            "gw-a.key",
            "open.key",
            "local.key: open.key is open to everybody (mode 0644), expected 0600 or 0640; run \
             `chmod 600 open.key`",
        ),
        (
            "gw-a.key",
            "gw-a.pem",
            "local.key: gw-a.pem is open to everybody (mode 0644), expected 0600 or 0640; run \
             `chmod 600 gw-a.pem`",
        ),
        (
            "identity = \"gw-a.example\"",
            "identity = \"gw-z.example\"",
            "local.cert: gw-a.pem: the certificate names CN=gw-a.example, gw-a.example; expected \
             this node's identity gw-z.example among its subject alternative names",
        ),
        (
            "\"ca.pem\"",
            "\"gw-a.pem\"",
            "local.ca: gw-a.pem: certificate 1 of CN=gw-a.example is no CA's",
        ),
        (
            "\"ca.crl\"",
            "\"ca.pem\"",
            "local.crl: ca.pem: found nothing, expected PEM with -----BEGIN X509 CRL-----",
        ),
        (
            "key = \"gw-a.key\"\n",
            "",
            "local.cert: found without `key`, expected the file of its private key",
        ),
        (
            "auth = \"cert\"\ninner",
            "auth = \"cret\"\ninner",
            "peer.auth: found `cret`, expected one of `psk`, `cert`; did you mean `cert`?",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let said = files.said(&good.replacen(from, to, 1));
        let (_, found) = said.split_once(": ").unwrap();
        assert!(found.starts_with(expected), "{from} -> {to}: {said}");
    }
    let from = good.find("[local]").unwrap();
    let until = good[from..].find("\n\n").unwrap() + from;
    let without = format!("{}{}", &good[..from], &good[until..]);
    let said = files.said(&without);
    assert!(said.contains("peer.auth: client-1.example is to show a certificate, but no CA is"));
    assert!(said.contains("peer.auth_own: found no certificate to show to client-1.example"));
    let no_psk = good
        .lines()
        .filter(|l| !l.starts_with("psk"))
        .collect::<Vec<_>>();
    let said = files.said(&no_psk.join("\n"));
    assert!(
        said.contains("the pre-shared key of laptop@example.org is missing"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_has_expired_is_a_warning() {
    let files = Files::new();
    files.run(
        "openssl req -x509 -key gw-a.key -subj /CN=gw-a.example -days 1 -out gw-a.pem \
           -addext subjectAltName=DNS:gw-a.example -addext basicConstraints=CA:FALSE 2>/dev/null",
    );
    let warnings = files.load(&gateway()).unwrap().warnings;
    assert!(
        warnings[0]
            .text
            .contains("gw-a.pem: the certificate expires at"),
        "{warnings:?}"
    );
}

#[test]
fn identities_may_be_distinguished_names() {
    let identity = |text: &str| text.parse::<Identity>().map(|i| i.to_string());
    assert_eq!(
        identity("CN=gw-a, O=Example"),
        Ok("CN=gw-a,O=Example".into())
    );
    assert_eq!(identity("nosuch=gw-a"), Err(()));
    let name = "CN=gw-a,O=Example".parse().unwrap();
    let name = super::super::super::peers::identity(&name);
    assert_eq!(name.to_string(), "CN=gw-a,O=Example");
}

/// Users of EAP, added to the manual's gateway.
#[test]
fn users_are_read_and_checked() {
    let files = Files::new();
    files.run("umask 077; echo 'correct horse' > anna.password");
    let user = "\n[[eap_user]]\nname = \"anna\"\npassword_file = \"anna.password\"\n\
                \n[[eap_user]]\nname = \"bert@example.org\"\npassword = \"battery staple\"\n\
                inner = [\"10.99.0.9\"]\n";
    let good = gateway() + user;
    let config = files.load(&good).unwrap();
    let names: Vec<&str> = config.users.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names, ["anna", "bert@example.org"]);
    assert_eq!(config.users[1].inner.len(), 1);
    assert!(!format!("{config:?}").contains("staple"));
    for (from, to, expected) in [
        (
            "name = \"anna\"",
            "name = \"Bert@example.org\"",
            "eap_user.name: found bert@example.org again",
        ),
        (
            "name = \"anna\"",
            "name = \"Client-1.example\"",
            "eap_user.name: found Client-1.example, which is a [[peer]] too",
        ),
        (
            "name = \"anna\"",
            "name = \"\"",
            "eap_user.name: found \"\", expected 1 to 253 bytes without control characters",
        ),
        (
            "password_file = \"anna.password\"",
            "password = \"short\"",
            "password of anna: found 5 bytes, expected at least 8",
        ),
        (
            "password_file = \"anna.password\"\n",
            "",
            "the password of anna is missing: expected `password` or `password_file`",
        ),
        (
            "anna.password",
            "gw-a.pem",
            "password_file of anna: gw-a.pem is open to everybody",
        ),
        (
            "10.99.0.9",
            "10.99.0.7",
            "eap_user.inner: bert@example.org has an address that is client-1.example's",
        ),
        (
            "cert = \"gw-a.pem\"\nkey = \"gw-a.key\"\n",
            "",
            "[[eap_user]]: a gateway proves itself to users by its certificate",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let said = files.said(&good.replacen(from, to, 1));
        assert!(said.contains(expected), "{from} -> {to}: {said}");
    }
    let client = CLIENT.to_owned() + user;
    let said = problems(&client).join("\n");
    assert!(said.contains("[[eap_user]]: found on a client"), "{said}");
}

/// Peers and users that are not named one by one, added to the manual's gateway.
#[test]
fn patterns_are_read_and_checked() {
    let files = Files::new();
    files.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout x.key \
           -out other-ca.pem -subj /CN=Other -addext basicConstraints=critical,CA:TRUE 2>/dev/null",
    );
    let groups = "\n[[peer]]\nidentity = \"*.branch.example.org\"\nauth = \"cert\"\n\
                  ca = [\"ca.pem\"]\n\n[[peer]]\nidentity = \"CN=*,O=Example\"\nauth = \"cert\"\n\
                  \n[[eap_user]]\nname = \"*@example.org\"\nauth = \"cert\"\n\
                  \n[[eap_user]]\nname = \"anna\"\nauth = \"cert\"\n";
    let good = gateway() + groups;
    let config = files.load(&good).unwrap();
    assert_eq!(config.warnings, []);
    let read: Vec<_> = config
        .groups
        .iter()
        .map(|g| (g.names.to_string(), g.authorities.len(), g.eap))
        .collect();
    let expected = [
        ("*.branch.example.org".to_owned(), 1, false),
        ("CN=*,O=Example".to_owned(), 0, false),
        ("*@example.org".to_owned(), 0, true),
    ];
    assert_eq!(read, expected);
    assert_eq!(config.peers.len(), 2);
    assert!(config.users[0].password.is_none());
    for (from, to, expected) in [
        (
            "\"*.branch.example.org\"",
            "\"b*.example.org\"",
            "peer.identity: found `b*.example.org`, expected `*@` and a domain, `*.` and a domain, \
             or a distinguished name with `*`",
        ),
        (
            "\"*.branch.example.org\"\nauth = \"cert\"\n",
            "\"*.branch.example.org\"\n",
            "peer.auth: *.branch.example.org are many, who can not share a key; expected auth = \
             \"cert\"",
        ),
        (
            "ca = [\"ca.pem\"]\n\n[[peer]]",
            "inner = [\"10.99.0.9\"]\n\n[[peer]]",
            "peer.inner: found for *.branch.example.org, expected only for a single name",
        ),
        (
            "ca = [\"ca.pem\"]\n\n[[peer]]",
            "outside = \"192.0.2.9\"\n\n[[peer]]",
            "peer.outside: found for *.branch.example.org, expected only for a single name",
        ),
        (
            "ca = [\"ca.pem\"]\n\n[[peer]]",
            "ca = [\"other-ca.pem\"]\n\n[[peer]]",
            "peer.ca: other-ca.pem: found a CA that is not trusted; expected one of `ca` in [local]",
        ),
        (
            "ca = [\"ca.pem\"]\n\n[[peer]]",
            "auth_own = \"psk\"\n\n[[peer]]",
            "peer.auth_own: *.branch.example.org are many, who can not share a key",
        ),
        (
            "\"CN=*,O=Example\"",
            "\"*.Branch.example.org\"",
            "peer.identity: found *.branch.example.org again",
        ),
        (
            "inner = [\"10.99.0.7\"]",
            "ca = [\"ca.pem\"]",
            "peer.ca: found with a single name, expected only with a pattern",
        ),
        (
            "[pool]\nnetworks = [\"10.99.0.0/24\"]\n",
            "",
            "*.branch.example.org can get no inner address: expected a [pool]",
        ),
        (
            "name = \"*@example.org\"\nauth = \"cert\"",
            "name = \"*@example.org\"\npassword = \"battery staple\"",
            "eap_user.auth: *@example.org are many, who can not share a password",
        ),
        (
            "name = \"*@example.org\"",
            "name = \"CN=*,O=Example\"",
            "eap_user.name: found `CN=*,O=Example`, expected `*@` or `*.` and a domain",
        ),
        (
            "ca = [\"ca.pem\"]\ncrl = [\"ca.crl\"]\n",
            "",
            "eap_user.auth: users are to show certificates, but no CA is trusted",
        ),
        (
            "name = \"anna\"\nauth = \"cert\"",
            "name = \"anna\"\nauth = \"certificate\"",
            "eap_user.auth: found `certificate`, expected one of `password`, `cert`",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let said = files.said(&good.replacen(from, to, 1));
        assert!(said.contains(expected), "{from} -> {to}: {said}");
    }
    let client = CLIENT.replacen("gw-a.example", "*.example", 1);
    let said = problems(&client).join("\n");
    assert!(
        said.contains("peer.identity: found the pattern *.example on a client"),
        "{said}"
    );
}
