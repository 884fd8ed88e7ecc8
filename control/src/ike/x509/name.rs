//! Whom a certificate names, and for what (RFC 4945 sections 3.1 and 5.1.3); distinguished names.

use std::net::IpAddr;
use std::str::FromStr as _;

use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{
    Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef,
};
use x509_cert::der::{Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, SubjectAltName};
use x509_cert::name::{Name, RelativeDistinguishedName};

use super::super::identity::Identity;
use super::refused::Refused;

/// Whether a certificate names an identity: by one of its subject alternative names, or a
/// distinguished name by its subject. The common name counts for nothing else, and a wildcard
/// stands for itself.
pub(super) fn names(certificate: &Certificate, identity: &Identity) -> bool {
    let tbs = certificate.tbs_certificate();
    let alternative = || match tbs.get_extension::<SubjectAltName>() {
        Ok(Some((_, SubjectAltName(names)))) => names,
        _ => Vec::new(),
    };
    let address = |octets: &[u8]| {
        alternative().into_iter().any(|name| match name {
            GeneralName::IpAddress(found) => found.as_bytes() == octets,
            _ => false,
        })
    };
    match identity {
        Identity::Fqdn(wanted) => alternative().into_iter().any(|name| match name {
            GeneralName::DnsName(found) => found.as_str().eq_ignore_ascii_case(wanted),
            _ => false,
        }),
        Identity::Email(wanted) => alternative().into_iter().any(|name| match name {
            GeneralName::Rfc822Name(found) => same_mailbox(found.as_str(), wanted),
            _ => false,
        }),
        Identity::Ipv4(wanted) => address(&wanted.octets()),
        Identity::Ipv6(wanted) => address(&wanted.octets()),
        Identity::Dn(wanted) => tbs.subject().to_der().is_ok_and(|s| dn_matches(&s, wanted)),
        Identity::KeyId(_) | Identity::Other { .. } => false,
    }
}

/// The user principal name of Windows, an OtherName.
const UPN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The names that a user can have by a certificate: host names, e-mail addresses and user principal
/// names among its subject alternative names; if there is none, its common name.
pub(super) fn users(certificate: &Certificate) -> Vec<String> {
    let tbs = certificate.tbs_certificate();
    let alternative = match tbs.get_extension::<SubjectAltName>() {
        Ok(Some((_, SubjectAltName(names)))) => names,
        _ => Vec::new(),
    };
    let named = alternative.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) | GeneralName::Rfc822Name(name) => Some(name.to_string()),
        GeneralName::OtherName(other) if other.type_id == UPN => {
            let name = other.value.decode_as::<Utf8StringRef<'_>>().ok()?;
            Some(name.as_str().to_owned())
        }
        _ => None,
    });
    let named: Vec<String> = named.collect();
    if !named.is_empty() {
        return named;
    }
    let common = tbs.subject().iter().filter(|part| part.oid == COMMON_NAME);
    common.filter_map(plain).collect()
}

/// Domains do not tell upper from lower case, local parts may.
fn same_mailbox(a: &str, b: &str) -> bool {
    match (a.rsplit_once('@'), b.rsplit_once('@')) {
        (Some((user, host)), Some((other, place))) => {
            user == other && host.eq_ignore_ascii_case(place)
        }
        _ => false,
    }
}

/// Names of a certificate, for messages that say what was found.
pub(super) fn shown(certificate: &Certificate) -> Vec<String> {
    let tbs = certificate.tbs_certificate();
    let mut shown = vec![tbs.subject().to_string()];
    if let Ok(Some((_, SubjectAltName(names)))) = tbs.get_extension::<SubjectAltName>() {
        shown.extend(names.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) | GeneralName::Rfc822Name(name) => Some(name.to_string()),
            GeneralName::IpAddress(octets) => {
                let v4 = <[u8; 4]>::try_from(octets.as_bytes()).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(octets.as_bytes()).map(IpAddr::from);
                v4.or(v6).ok().map(|address| address.to_string())
            }
            _ => None,
        }));
    }
    shown
}

/// RFC 4945 section 5.1.3.2: with a key usage, it must have digitalSignature or nonRepudiation.
pub(super) fn check_usage(certificate: &Certificate) -> Result<(), Refused> {
    match certificate.tbs_certificate().get_extension::<KeyUsage>() {
        Ok(None) => Ok(()),
        Ok(Some((_, usage))) if usage.digital_signature() || usage.non_repudiation() => Ok(()),
        Ok(Some(_)) => Err(Refused::Usage),
        Err(_) => Err(Refused::Unreadable),
    }
}

/// Reads a distinguished name as text (RFC 4514: the most specific part first), with blanks after
/// commas. `None` if it is not one.
pub(crate) fn dn_from_text(text: &str) -> Option<Vec<u8>> {
    let mut plain = String::new();
    for part in text.split(',') {
        let within = plain.ends_with('\\');
        if !plain.is_empty() {
            plain.push(',');
        }
        plain.push_str(if within { part } else { part.trim_start() });
    }
    let name = Name::from_str(&plain).ok()?;
    let empty = name.is_empty();
    name.to_der().ok().filter(|_| !empty)
}

/// A distinguished name as text; `None` if it can not be read.
pub(crate) fn dn_to_text(der: &[u8]) -> Option<String> {
    let name = Name::from_der(der).ok().filter(|name| !name.is_empty())?;
    Some(name.to_string())
}

/// Whether two distinguished names are the same: in the same order, with the same attributes, whose
/// texts may be of different string types, and differ in case and blanks (RFC 5280 section 7.1).
pub(crate) fn dn_matches(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    agree(a, b, same_attribute)
}

/// Whether a distinguished name is as `pattern` says, in which the value `*` stands for any.
pub(crate) fn dn_fits(pattern: &[u8], name: &[u8]) -> bool {
    let any = |a: &AttributeTypeAndValue| text(a).as_deref() == Some("*");
    agree(pattern, name, |wanted, found| {
        wanted.oid == found.oid && any(wanted) || same_attribute(wanted, found)
    })
}

fn agree(
    a: &[u8],
    b: &[u8],
    same: impl Fn(&AttributeTypeAndValue, &AttributeTypeAndValue) -> bool,
) -> bool {
    let (Ok(a), Ok(b)) = (Name::from_der(a), Name::from_der(b)) else {
        return false;
    };
    let same_rdn = |a: &RelativeDistinguishedName, b: &RelativeDistinguishedName| {
        a.len() == b.len() && a.iter().all(|one| b.iter().any(|other| same(one, other)))
    };
    a.len() == b.len() && a.iter_rdn().zip(b.iter_rdn()).all(|(a, b)| same_rdn(a, b))
}

/// Bytes that are the same for all names that match this one. They are no name.
pub(crate) fn dn_key(name: &[u8]) -> Vec<u8> {
    let Ok(parsed) = Name::from_der(name) else {
        return name.to_vec();
    };
    let mut key = Vec::new();
    for rdn in parsed.iter_rdn() {
        let attributes = rdn.iter().map(|attribute| {
            let value = match text(attribute) {
                Some(text) => text.into_bytes(),
                None => [&[0], attribute.value.value()].concat(),
            };
            (attribute.oid, value)
        });
        // Those of one set have no order.
        let mut attributes: Vec<_> = attributes.collect();
        attributes.sort();
        for (oid, value) in attributes {
            let lengths = [oid.as_bytes().len(), value.len()].map(|n| (n as u64).to_be_bytes());
            key.extend_from_slice(lengths.as_flattened());
            key.extend_from_slice(oid.as_bytes());
            key.extend_from_slice(&value);
        }
        key.push(0xff);
    }
    key
}

fn same_attribute(a: &AttributeTypeAndValue, b: &AttributeTypeAndValue) -> bool {
    let texts = (text(a), text(b));
    a.oid == b.oid
        && match texts {
            (Some(a), Some(b)) => a == b,
            _ => a.value == b.value,
        }
}

/// The value of an attribute in lower case, with single blanks.
fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    let text = plain(attribute)?;
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    Some(words.join(" "))
}

/// The value of an attribute, if it is a text.
fn plain(attribute: &AttributeTypeAndValue) -> Option<String> {
    let value = &attribute.value;
    let text = match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value).ok()?.as_str(),
        Tag::PrintableString => PrintableStringRef::try_from(value).ok()?.as_str(),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok()?.as_str(),
        Tag::TeletexString => TeletexStringRef::try_from(value).ok()?.as_str(),
        _ => return None,
    };
    Some(text.to_owned())
}
