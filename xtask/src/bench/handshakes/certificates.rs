//! Certificates for very many clients: `openssl`, a process for each, would take minutes.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::fmt::Write as _;
use std::path::Path;

/// Writes `ca.pem`, `gw1.pem`, `gw1.key`, and `clients.pem` with a certificate and a key for each
/// client.
pub(super) fn write(dir: &Path, count: usize) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Lab CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    std::fs::write(dir.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let (certificate, key) = certify(&issuer, "gw1.example")?;
    std::fs::write(dir.join("gw1.pem"), certificate)?;
    private(&dir.join("gw1.key"), &key)?;
    let mut clients = String::new();
    for number in 1..=count {
        let (certificate, key) = certify(&issuer, &format!("client-{number}.example"))?;
        let _ = write!(clients, "{certificate}{key}");
    }
    private(&dir.join("clients.pem"), &clients)
}

fn certify(issuer: &Issuer<'_, KeyPair>, name: &str) -> Result<(String, String)> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, "")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(std::fs::write(path, text)?)
}
