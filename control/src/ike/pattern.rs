//! Identities that have something in common.

use std::fmt;
use std::str::FromStr;

use super::identity::Identity;
use super::x509::{dn_fits, dn_from_text, dn_to_text};

/// What an identity has to look like.
///
/// `*@example.org` is each e-mail address of that domain, `*.example.org` each host name with one
/// more label, `CN=*,O=Example` each distinguished name with the same attributes in the same order,
/// of which those with a `*` may have any value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The domain of an e-mail address.
    Email(String),
    /// What follows the first label of a host name.
    Fqdn(String),
    /// A distinguished name in DER, with `*` as some values.
    Dn(Vec<u8>),
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern {0:?}: expected *@domain, *.domain or a distinguished name with * as a value")]
pub struct NotAPattern(pub String);

impl Pattern {
    /// Whether an identity is one of these.
    pub fn fits(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Pattern::Email(domain), Identity::Email(found)) => {
                let parts = found.rsplit_once('@');
                parts.is_some_and(|(user, host)| {
                    !user.is_empty() && host.eq_ignore_ascii_case(domain)
                })
            }
            (Pattern::Fqdn(domain), Identity::Fqdn(found)) => {
                let parts = found.split_once('.');
                // A wildcard in a certificate is nobody's name.
                parts.is_some_and(|(label, rest)| {
                    !label.is_empty() && !label.contains('*') && rest.eq_ignore_ascii_case(domain)
                })
            }
            (Pattern::Dn(pattern), Identity::Dn(found)) => dn_fits(pattern, found),
            _ => false,
        }
    }
}

impl FromStr for Pattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Pattern, NotAPattern> {
        let domain = |rest: &str| {
            let label = |l: &str| {
                let sane = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                (1..=63).contains(&l.len()) && l.bytes().all(sane)
            };
            rest.len() <= 253 && rest.split('.').all(label)
        };
        let pattern = match (text.strip_prefix("*@"), text.strip_prefix("*.")) {
            (Some(rest), _) if domain(rest) => Some(Pattern::Email(rest.to_owned())),
            (_, Some(rest)) if domain(rest) => Some(Pattern::Fqdn(rest.to_owned())),
            _ if text.contains("=*") => dn_from_text(text).map(Pattern::Dn),
            _ => None,
        };
        pattern.ok_or_else(|| NotAPattern(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Email(domain) => write!(f, "*@{domain}"),
            Pattern::Fqdn(domain) => write!(f, "*.{domain}"),
            Pattern::Dn(der) => f.write_str(&dn_to_text(der).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fits() {
        for (pattern, identity, expected) in [
            ("*@example.org", "anna@example.org", true),
            ("*@example.org", "anna@EXAMPLE.org", true),
            ("*@example.org", "anna@x.example.org", false),
            ("*@example.org", "anna@example.org.evil.net", false),
            ("*@example.org", "anna@evil.net@example.org", true),
            ("*@example.org", "@example.org", false),
            ("*@example.org", "example.org", false),
            ("*.branch.example.org", "b7.branch.example.org", true),
            ("*.branch.example.org", "B7.Branch.Example.org", true),
            ("*.branch.example.org", "x.b7.branch.example.org", false),
            ("*.branch.example.org", "branch.example.org", false),
            ("*.branch.example.org", ".branch.example.org", false),
            ("*.branch.example.org", "*.branch.example.org", false),
            (
                "*.branch.example.org",
                "b7.branch.example.org.evil.net",
                false,
            ),
            ("*.branch.example.org", "anna@branch.example.org", false),
            ("CN=*,O=Example", "CN=gw-a,O=Example", true),
            ("CN=*,O=Example", "CN=gw-a,O=EXAMPLE", true),
            ("CN=*,O=Example", "CN=gw-a,O=Other", false),
            ("CN=*,O=Example", "CN=gw-a,OU=x,O=Example", false),
            ("CN=*,O=Example", "O=Example", false),
            ("CN=*,O=Example", "OU=gw-a,O=Example", false),
            ("CN=*,OU=*,O=Example", "CN=a,OU=b,O=Example", true),
            ("CN=*,O=Example", "gw-a.example", false),
        ] {
            let (read, identity) = (pattern.parse::<Pattern>(), identity.parse::<Identity>());
            let (read, identity) = (read.unwrap(), identity.unwrap());
            assert_eq!(read.fits(&identity), expected, "{pattern} {identity}");
            assert_eq!(read.to_string(), pattern);
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for text in [
            "",
            "*",
            "*@",
            "*.",
            "**",
            "anna@example.org",
            "gw.example",
            "a*.example",
            "*@*",
            "*.*.example",
            "x.*.example",
            "*@a b",
            "*.example..org",
            "CN=gw-a,O=Example",
            "=*",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
