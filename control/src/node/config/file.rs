//! The file as it is written: every key optional and still text, with its place, so that the check
//! can report all that is wrong, where it is, in its own words.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use toml::Spanned;

use super::secret::SecretText;
use super::{Problem, duration};

pub(super) type Text = Option<Spanned<String>>;
pub(super) type List = Option<Spanned<Vec<Spanned<String>>>>;
pub(super) type Number = Option<Spanned<i64>>;
pub(super) type Flag = Option<Spanned<bool>>;
pub(super) type Time = Option<Spanned<TimeText>>;
pub(super) type Table<T> = Option<Spanned<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: Text,
    pub(super) role: Text,
    pub(super) identity: Text,
    pub(super) socket: Text,
    pub(super) state: Text,
    pub(super) policy: Text,
    pub(super) privileges: Table<Privileges>,
    pub(super) local: Table<Local>,
    pub(super) outside: Table<Outside>,
    pub(super) inside: Table<Inside>,
    pub(super) heartbeat: Table<Heartbeat>,
    pub(super) esp: Table<Esp>,
    pub(super) ike: Table<Ike>,
    pub(super) drain: Table<Drain>,
    pub(super) steering: Table<Steering>,
    pub(super) front: Table<Front>,
    pub(super) behind: Table<Behind>,
    pub(super) channel: Table<Channel>,
    pub(super) connectivity: Table<Connectivity>,
    pub(super) filter: Table<Filter>,
    pub(super) repository: Table<Repository>,
    pub(super) pool: Table<Pool>,
    #[serde(default, rename = "peer")]
    pub(super) peers: Vec<Spanned<Peer>>,
    #[serde(default, rename = "eap_user")]
    pub(super) users: Vec<Spanned<EapUser>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Local {
    pub(super) cert: Text,
    pub(super) key: Text,
    #[serde(default)]
    pub(super) ca: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) crl: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Privileges {
    pub(super) user: Text,
    pub(super) socket_group: Text,
    pub(super) sandbox: Flag,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outside {
    pub(super) interface: Text,
    pub(super) address: Text,
    pub(super) xdp: Text,
    pub(super) path_mtu: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inside {
    pub(super) interface: Text,
    pub(super) mtu: Number,
    pub(super) xdp: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heartbeat {
    pub(super) accept: Text,
    pub(super) strangers: Flag,
    pub(super) dead_man: Time,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Esp {
    pub(super) proposals: List,
    pub(super) backend: Text,
    pub(super) replay_window: Number,
    pub(super) workers: Number,
    pub(super) busy_poll: Time,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ike {
    pub(super) proposals: List,
    pub(super) fragment_size: Number,
    pub(super) retransmit: Time,
    pub(super) tries: Number,
    pub(super) liveness: Time,
    pub(super) guard: Number,
    pub(super) threads: Number,
    pub(super) encap: Text,
    pub(super) mobike: Flag,
    pub(super) keep_alive: Time,
    pub(super) rekey_child: Time,
    pub(super) rekey_ike: Time,
    pub(super) rekey_jitter: Number,
    pub(super) reauth: Time,
    pub(super) ticket_keys: Text,
    pub(super) rekey_bytes: Number,
    pub(super) rekey_packets: Number,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    #[serde(default)]
    pub(super) gateways: Vec<Spanned<String>>,
    pub(super) patience: Time,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    pub(super) default: Text,
    #[serde(default, rename = "class")]
    pub(super) classes: Vec<Spanned<FilterClass>>,
    #[serde(default, rename = "user")]
    pub(super) users: Vec<Spanned<FilterUser>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterClass {
    pub(super) name: Text,
    pub(super) rule: Text,
    #[serde(default)]
    pub(super) direct: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterUser {
    pub(super) address: Text,
    pub(super) class: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Steering {
    pub(super) number: Number,
    pub(super) address: Text,
    #[serde(default, rename = "gateway")]
    pub(super) gateways: Vec<Spanned<SteeredGateway>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SteeredGateway {
    pub(super) number: Number,
    pub(super) address: Text,
    pub(super) by: Text,
    pub(super) mtu: Number,
    pub(super) interface: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Front {
    pub(super) number: Number,
    pub(super) address: Text,
    pub(super) key: Text,
    pub(super) heartbeat: Time,
    pub(super) tries: Number,
    #[serde(default, rename = "node")]
    pub(super) nodes: Vec<Spanned<SteeredGateway>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Behind {
    pub(super) address: Text,
    pub(super) key: Text,
    #[serde(default)]
    pub(super) fronts: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    pub(super) cert: Text,
    pub(super) key: Text,
    #[serde(default)]
    pub(super) ca: Vec<Spanned<String>>,
    pub(super) listen: Text,
    pub(super) number: Number,
    pub(super) distribution: Text,
    pub(super) negotiation: Text,
    pub(super) interface: Text,
    pub(super) notary: Flag,
    #[serde(default, rename = "edge")]
    pub(super) edges: Vec<Spanned<ChannelEdge>>,
    #[serde(default, rename = "authority")]
    pub(super) authorities: Vec<Spanned<ChannelAuthority>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelEdge {
    pub(super) number: Number,
    pub(super) name: Text,
    pub(super) chosen: Flag,
    pub(super) translated: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelAuthority {
    pub(super) number: Number,
    pub(super) address: Text,
    pub(super) name: Text,
    pub(super) translated: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connectivity {
    pub(super) listen: Text,
    pub(super) patience: Time,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Repository {
    pub(super) key: Text,
    pub(super) file: Text,
    #[serde(default)]
    pub(super) etcd: Vec<Spanned<String>>,
    pub(super) prefix: Text,
    pub(super) ca: Text,
    pub(super) cert: Text,
    pub(super) cert_key: Text,
    pub(super) name: Text,
    pub(super) user: Text,
    pub(super) password_file: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    #[serde(default)]
    pub(super) networks: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) identity: Text,
    pub(super) auth: Text,
    pub(super) auth_own: Text,
    #[serde(default)]
    pub(super) ca: Vec<Spanned<String>>,
    pub(super) psk: Option<Spanned<SecretText>>,
    pub(super) psk_file: Text,
    pub(super) outside: Text,
    pub(super) redirects: Flag,
    pub(super) class: Text,
    #[serde(default)]
    pub(super) inner: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EapUser {
    pub(super) name: Text,
    pub(super) auth: Text,
    #[serde(default)]
    pub(super) ca: Vec<Spanned<String>>,
    pub(super) password: Option<Spanned<SecretText>>,
    pub(super) password_file: Text,
    #[serde(default)]
    pub(super) inner: Vec<Spanned<String>>,
}

/// The text of a duration; a bare number gets told that it lacks a unit.
pub(super) struct TimeText(pub(super) String);

impl<'de> Deserialize<'de> for TimeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InQuotes;

        impl Visitor<'_> for InQuotes {
            type Value = TimeText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(duration::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TimeText, E> {
                Ok(TimeText(text.to_owned()))
            }
        }

        deserializer.deserialize_str(InQuotes)
    }
}

/// Reads the text; the error is in our words and never quotes a line, which may hold a key.
pub(super) fn parse(text: &str) -> Result<File, Problem> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().unwrap_or(0..0);
        let said = reword(error.message());
        match key_of_line(text, at.start) {
            Some(key) if !said.contains(&format!("`{key}`")) => {
                problem(text, &at, format!("{key}: {said}"))
            }
            _ => problem(text, &at, said),
        }
    })
}

/// A problem at a byte range of the text.
pub(super) fn problem(text: &str, at: &Range<usize>, said: String) -> Problem {
    let before = text.get(..at.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    Problem {
        line,
        column: last.chars().count() + 1,
        text: said,
    }
}

/// The key that is assigned on the line of a place after its `=`.
fn key_of_line(text: &str, at: usize) -> Option<&str> {
    let before = text.get(..at)?;
    let line = before.rsplit('\n').next()?;
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let bare = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (!key.is_empty() && key.bytes().all(bare)).then_some(key)
}

/// Puts a message of the TOML reader into the form "found …, expected …".
fn reword(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut quoted = rest.split('`').skip(1).step_by(2);
        let found = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        return format!("found unknown key `{found}`, {}", choices(found, &known));
    }
    for start in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = message.strip_prefix(start) {
            return format!(
                "found {}",
                rest.replace("expected i64", "expected a whole number")
            );
        }
    }
    message.lines().collect::<Vec<_>>().join(", ")
}

/// "expected one of a, b, c; did you mean b?"
pub(super) fn choices(found: &str, known: &[&str]) -> String {
    let list = known
        .iter()
        .map(|k| format!("`{k}`"))
        .collect::<Vec<_>>()
        .join(", ");
    let one_of = if known.len() == 1 { "" } else { "one of " };
    match nearest(found, known) {
        Some(near) => format!("expected {one_of}{list}; did you mean `{near}`?"),
        None => format!("expected {one_of}{list}"),
    }
}

/// The known word that a typing mistake may have been meant for.
fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |word: &str| word.to_ascii_lowercase().replace('-', "_");
    let found = plain(found);
    let distance = |word: &&str| strsim::osa_distance(&found, &plain(word));
    let best = known.iter().copied().min_by_key(distance)?;
    let close = distance(&best) <= 1 + best.len() / 4;
    let begun = plain(best).starts_with(&found) || found.starts_with(&plain(best));
    (close || begun && found.len() >= 3).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["interface", "address", "xdp"];
        assert_eq!(nearest("intreface", &known), Some("interface"));
        assert_eq!(nearest("Interface", &known), Some("interface"));
        assert_eq!(nearest("addr", &known), Some("address"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("psk-file", &["psk", "psk_file"]), Some("psk_file"));
    }
}
