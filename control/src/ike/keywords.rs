//! Proposals as text, in the words of strongSwan: `aes256gcm16-prfsha256-x25519`.

use std::fmt;
use std::str::FromStr;

use super::crypto::{Group, IkeCipher, Prf};
use super::proposal::{EspCipher, EspProposal, IkeProposal};

/// A proposal that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProposal {
    #[error("found `{found}`, expected {}", any_of(.known))]
    Unknown {
        found: String,
        known: Vec<&'static str>,
    },
    #[error("found `{found}` twice, expected it once")]
    Twice { found: String },
    /// Nothing of a kind that every proposal needs.
    #[error("found no {kind}, expected {}", any_of(.known))]
    Missing {
        kind: &'static str,
        known: Vec<&'static str>,
    },
}

fn any_of(known: &[&str]) -> String {
    let known: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
    match &known[..] {
        [one] => one.clone(),
        _ => format!("one of {}", known.join(", ")),
    }
}

/// What a word stands for; the first word of a thing is the one that is written.
type Words<T> = [(&'static str, T)];

const IKE_CIPHERS: &Words<IkeCipher> = &[
    ("aes256gcm16", IkeCipher::Aes256Gcm16),
    ("aes128gcm16", IkeCipher::Aes128Gcm16),
    ("chacha20poly1305", IkeCipher::ChaCha20Poly1305),
];
const ESP_CIPHERS: &Words<EspCipher> = &[
    ("aes256gcm16", EspCipher::Aes256Gcm),
    ("aes128gcm16", EspCipher::Aes128Gcm),
    ("chacha20poly1305", EspCipher::ChaCha20Poly1305),
];
const PRFS: &Words<Prf> = &[
    ("prfsha256", Prf::HmacSha256),
    ("prfsha384", Prf::HmacSha384),
    ("prfsha512", Prf::HmacSha512),
];
const GROUPS: &Words<Group> = &[
    ("x25519", Group::X25519),
    ("curve25519", Group::X25519),
    ("ecp256", Group::P256),
    ("ecp384", Group::P384),
];
const ADDITIONAL: &Words<Option<Group>> =
    &[("ke1_mlkem768", Some(Group::MlKem768)), ("ke1_none", None)];
const ESN: &Words<bool> = &[("esn", true), ("noesn", false)];

fn words<T>(list: &Words<T>) -> impl Iterator<Item = &'static str> {
    list.iter().map(|(word, _)| *word)
}

/// Adds what `word` stands for to `to`; false if it stands for nothing here.
fn take<T: Copy + PartialEq>(
    word: &str,
    list: &Words<T>,
    to: &mut Vec<T>,
) -> Result<bool, BadProposal> {
    let Some((_, thing)) = list.iter().find(|(known, _)| *known == word) else {
        return Ok(false);
    };
    if to.contains(thing) {
        let found = word.to_owned();
        return Err(BadProposal::Twice { found });
    }
    to.push(*thing);
    Ok(true)
}

fn needs<T, U>(kind: &'static str, found: &[T], list: &Words<U>) -> Result<(), BadProposal> {
    match found.is_empty() {
        true => Err(BadProposal::Missing {
            kind,
            known: words(list).collect(),
        }),
        false => Ok(()),
    }
}

impl FromStr for IkeProposal {
    type Err = BadProposal;

    /// Words with `-` between them: at least one cipher, one PRF and one group. Of several of a kind
    /// the first is preferred. Integrity has no word, since every cipher is an AEAD.
    fn from_str(text: &str) -> Result<IkeProposal, BadProposal> {
        let mut read = IkeProposal {
            ciphers: Vec::new(),
            prfs: Vec::new(),
            groups: Vec::new(),
            additional: Vec::new(),
        };
        for word in text.split('-') {
            let known = take(word, IKE_CIPHERS, &mut read.ciphers)?
                || take(word, PRFS, &mut read.prfs)?
                || take(word, GROUPS, &mut read.groups)?
                || take(word, ADDITIONAL, &mut read.additional)?;
            if !known {
                let all = words(IKE_CIPHERS).chain(words(PRFS));
                let all = all.chain(words(GROUPS)).chain(words(ADDITIONAL));
                return Err(BadProposal::Unknown {
                    found: word.to_owned(),
                    known: all.collect(),
                });
            }
        }
        needs("cipher", &read.ciphers, IKE_CIPHERS)?;
        needs("PRF", &read.prfs, PRFS)?;
        needs("key exchange method", &read.groups, GROUPS)?;
        Ok(read)
    }
}

impl FromStr for EspProposal {
    type Err = BadProposal;

    /// Words with `-` between them: at least one cipher. Without `esn` and `noesn`, the latter.
    fn from_str(text: &str) -> Result<EspProposal, BadProposal> {
        let mut read = EspProposal {
            ciphers: Vec::new(),
            esn: Vec::new(),
            groups: Vec::new(),
        };
        for word in text.split('-') {
            let known = take(word, ESP_CIPHERS, &mut read.ciphers)?
                || take(word, ESN, &mut read.esn)?
                || take(word, GROUPS, &mut read.groups)?;
            if !known {
                let all = words(ESP_CIPHERS).chain(words(ESN)).chain(words(GROUPS));
                return Err(BadProposal::Unknown {
                    found: word.to_owned(),
                    known: all.collect(),
                });
            }
        }
        needs("cipher", &read.ciphers, ESP_CIPHERS)?;
        if read.esn.is_empty() {
            read.esn.push(false);
        }
        Ok(read)
    }
}

fn spell<'a, T: PartialEq>(
    things: &'a [T],
    list: &'a Words<T>,
) -> impl Iterator<Item = &'static str> + 'a {
    things.iter().filter_map(|thing| {
        let known = list.iter().find(|(_, known)| known == thing);
        known.map(|(word, _)| *word)
    })
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = spell(&self.ciphers, IKE_CIPHERS)
            .chain(spell(&self.prfs, PRFS))
            .chain(spell(&self.groups, GROUPS))
            .chain(spell(&self.additional, ADDITIONAL));
        f.write_str(&words.collect::<Vec<_>>().join("-"))
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = spell(&self.ciphers, ESP_CIPHERS)
            .chain(spell(&self.esn, ESN))
            .chain(spell(&self.groups, GROUPS));
        f.write_str(&words.collect::<Vec<_>>().join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ike(text: &str) -> Result<IkeProposal, String> {
        text.parse().map_err(|e: BadProposal| e.to_string())
    }

    fn esp(text: &str) -> Result<EspProposal, String> {
        text.parse().map_err(|e: BadProposal| e.to_string())
    }

    #[test]
    fn words_in_any_order_and_back() {
        let read = ike("aes256gcm16-prfsha256-x25519").unwrap();
        assert_eq!(read.ciphers, [IkeCipher::Aes256Gcm16]);
        assert_eq!(
            (&read.prfs[..], read.additional.len()),
            (&[Prf::HmacSha256][..], 0)
        );
        assert_eq!(read.groups, [Group::X25519]);
        let all = "chacha20poly1305-aes128gcm16-prfsha384-prfsha512-ecp384-ecp256-curve25519-\
                   ke1_mlkem768-ke1_none";
        let read = ike(all).unwrap();
        assert_eq!(read.groups, [Group::P384, Group::P256, Group::X25519]);
        assert_eq!(read.additional, [Some(Group::MlKem768), None]);
        assert_eq!(read.to_string(), all.replace("curve25519", "x25519"));
        assert_eq!(
            ike("ecp256-prfsha256-aes128gcm16").unwrap().groups,
            [Group::P256]
        );
        let default = IkeProposal::default();
        assert_eq!(ike(&default.to_string()), Ok(default));

        let read = esp("aes256gcm16").unwrap();
        assert_eq!((&read.esn[..], read.groups.len()), (&[false][..], 0));
        let all = "chacha20poly1305-aes256gcm16-esn-noesn-x25519-ecp384";
        assert_eq!(esp(all).unwrap().to_string(), all);
        let default = EspProposal::default();
        assert_eq!(esp(&default.to_string()), Ok(default));
    }

    #[test]
    fn errors_say_what_was_found_and_what_was_expected() {
        let cases = [
            (
                "aes256gcm16-prfsha256",
                "found no key exchange method, expected one of `x25519`, ",
            ),
            (
                "aes256gcm16-x25519",
                "found no PRF, expected one of `prfsha256`, `prfsha384`, ",
            ),
            (
                "prfsha256-x25519",
                "found no cipher, expected one of `aes256gcm16`, ",
            ),
            (
                "aes256gcm16-prfsha256-x25519-x25519",
                "found `x25519` twice, expected it once",
            ),
            (
                "x25519-curve25519",
                "found `curve25519` twice, expected it once",
            ),
            (
                "aes256gcm16-sha256-x25519",
                "found `sha256`, expected one of `aes256gcm16`, ",
            ),
            (
                "3des-prfsha1-modp1024",
                "found `3des`, expected one of `aes256gcm16`, ",
            ),
            (
                "aes256gcm16-prfsha256-mlkem768",
                "found `mlkem768`, expected one of ",
            ),
            (
                "aes256gcm16-prfsha256-x25519-ke1_x25519",
                "found `ke1_x25519`, expected one of ",
            ),
            (
                "aes256gcm16-prfsha256-x25519-esn",
                "found `esn`, expected one of ",
            ),
            (
                "AES256GCM16-prfsha256-x25519",
                "found `AES256GCM16`, expected one of ",
            ),
            (
                "aes256gcm16--prfsha256-x25519",
                "found ``, expected one of ",
            ),
            ("", "found ``, expected one of "),
        ];
        for (text, expected) in cases {
            let error = ike(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let cases = [
            (
                "esn",
                "found no cipher, expected one of `aes256gcm16`, `aes128gcm16`, ",
            ),
            (
                "aes256gcm16-prfsha256",
                "found `prfsha256`, expected one of ",
            ),
            ("aes256gcm16-esn-esn", "found `esn` twice, expected it once"),
            (
                "aes256gcm16-ke1_mlkem768",
                "found `ke1_mlkem768`, expected one of ",
            ),
        ];
        for (text, expected) in cases {
            let error = esp(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
