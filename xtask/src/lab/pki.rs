//! Certificates for the nodes of the lab, made by `openssl` as operators make them.

use super::topology::GATEWAYS;
use super::{Lab, Place};
use crate::sh;
use anyhow::{Context, Result};
use std::process::Command;

/// A CA with its own folder, and a CRL of nothing.
const AUTHORITY: &str = r#"
openssl req -x509 $NEWKEY -nodes -keyout ca.key -out ca.pem -days 30 \
  -subj "/CN=Lab CA" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
rm -f index.txt*; touch index.txt; echo 1000 > crlnumber
cat > ca.cnf <<'END'
[ca]
default_ca = x
[x]
database = index.txt
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_crl_days = 3
crl_extensions = e
rand_serial = yes
unique_subject = no
policy = p
[p]
commonName = supplied
[e]
authorityKeyIdentifier = keyid
END
openssl ca -config ca.cnf -gencrl -out ca.crl
"#;

/// What keys are certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// On P-256.
    Ecdsa,
    /// Of 2048 bits.
    Rsa,
    /// Of 4096 bits: an IKE message with a certificate of these does not fit into a packet.
    LongRsa,
}

impl KeyKind {
    /// For `openssl req`.
    fn words(self) -> &'static str {
        match self {
            KeyKind::Ecdsa => "-newkey ec -pkeyopt ec_paramgen_curve:P-256",
            KeyKind::Rsa => "-newkey rsa:2048",
            KeyKind::LongRsa => "-newkey rsa:4096",
        }
    }
}

impl Lab {
    /// Makes a CA, and a certificate for each node.
    pub(super) fn make_certificates(&self, kind: KeyKind) -> Result<()> {
        self.openssl(&AUTHORITY.replace("$NEWKEY", kind.words()))?;
        for place in [Place::Client]
            .into_iter()
            .chain(GATEWAYS.map(Place::Gateway))
        {
            self.certify(place, &format!("{place}.example"), kind, "-days 3")?;
        }
        Ok(())
    }

    /// Gives a node a certificate of another name, a host's or an e-mail address.
    pub(crate) fn rename(&self, place: Place, name: &str) -> Result<()> {
        self.certify(place, name, KeyKind::Ecdsa, "-days 3")
    }

    fn certify(&self, place: Place, name: &str, kind: KeyKind, validity: &str) -> Result<()> {
        let newkey = kind.words();
        let what = if name.contains('@') { "email" } else { "DNS" };
        self.openssl(&format!(
            "openssl req {newkey} -nodes -keyout {place}.key -out {place}.csr -subj /CN={name}\n\
             printf 'subjectAltName={what}:{name}\\nkeyUsage=critical,digitalSignature\\n' \
             > {place}.ext\n\
             openssl ca -batch -notext -config ca.cnf {validity} -in {place}.csr -out {place}.pem \
             -extfile {place}.ext\n"
        ))
    }

    /// Puts a node's certificate on the CRL. The nodes know when they read it again.
    pub(crate) fn revoke(&self, place: Place) -> Result<()> {
        self.openssl(&format!(
            "openssl ca -config ca.cnf -revoke {place}.pem\n\
             openssl ca -config ca.cnf -gencrl -out ca.crl\n"
        ))
    }

    /// Gives a node a certificate whose time is over.
    pub(crate) fn expire(&self, place: Place) -> Result<()> {
        self.certify(
            place,
            &format!("{place}.example"),
            KeyKind::Ecdsa,
            "-startdate 20200101000000Z -enddate 20210101000000Z",
        )
    }

    /// `[local]` of a node's file.
    pub(super) fn local_toml(place: Place) -> String {
        format!(
            "[local]\ncert = \"{place}.pem\"\nkey = \"{place}.key\"\nca = [\"ca.pem\"]\n\
             crl = [\"ca.crl\"]\n"
        )
    }

    fn openssl(&self, script: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(self.dir());
        sh::read(&mut command)
            .map(drop)
            .context("certificates for the lab (openssl is needed)")
    }
}
