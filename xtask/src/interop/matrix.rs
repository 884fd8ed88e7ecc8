//! What is combined with what.

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// evergate.
    Us,
    /// strongSwan.
    Them,
}

/// What goes through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inner {
    V4,
    V6,
}

/// Cipher of ESP and IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes256Gcm,
    Aes128Gcm,
}

/// Which keys are renewed, and who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rekey {
    None,
    Child(Side),
    Ike(Side),
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) begins: Side,
    pub(super) inner: Inner,
    pub(super) cipher: Cipher,
    /// A NAT before the client. Without one, ESP goes in UDP all the same: charon's userspace ESP
    /// makes both sides believe in one.
    pub(super) nat: bool,
    pub(super) rekey: Rekey,
    pub(super) deletes: Side,
}

impl Side {
    const BOTH: [Side; 2] = [Side::Us, Side::Them];

    fn name(self) -> &'static str {
        match self {
            Side::Us => "evergate",
            Side::Them => "strongswan",
        }
    }
}

impl Cipher {
    /// For ESP, in evergate's configuration.
    pub(super) fn ours(self) -> String {
        format!("{}-esn-noesn", self.theirs())
    }

    /// For IKE, in strongSwan's.
    pub(super) fn theirs_ike(self) -> String {
        format!("{}-prfsha256-x25519", self.theirs())
    }

    /// For ESP, in strongSwan's; the group is for later rekeys.
    pub(super) fn theirs_esp(self) -> String {
        format!("{}-x25519", self.theirs())
    }

    fn theirs(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes256gcm16",
            Cipher::Aes128Gcm => "aes128gcm16",
        }
    }

    /// In what `swanctl --list-sas` says of a child SA.
    pub(super) fn listed(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "ESP:AES_GCM_16-256",
            Cipher::Aes128Gcm => "ESP:AES_GCM_16-128",
        }
    }
}

impl Rekey {
    /// In evergate's configuration: small lifetimes, if it is to begin.
    pub(super) fn lifetimes(self) -> &'static str {
        match self {
            Rekey::Child(Side::Us) => "\n[ike]\nrekey_child = \"4s\"\nrekey_jitter = 0\n",
            Rekey::Ike(Side::Us) => "\n[ike]\nrekey_ike = \"4s\"\nrekey_jitter = 0\n",
            Rekey::None | Rekey::Child(Side::Them) | Rekey::Ike(Side::Them) => "",
        }
    }
}

impl Row {
    pub(super) fn name(&self) -> String {
        let mut words = vec![super::NAME, "psk", self.begins.name(), "begins"];
        words.push(match self.inner {
            Inner::V4 => "ipv4",
            Inner::V6 => "ipv6",
        });
        words.push(match self.cipher {
            Cipher::Aes256Gcm => "aes256gcm",
            Cipher::Aes128Gcm => "aes128gcm",
        });
        words.extend(self.nat.then_some("nat"));
        match self.rekey {
            Rekey::None => {}
            Rekey::Child(side) => words.extend([side.name(), "rekeys_child"]),
            Rekey::Ike(side) => words.extend([side.name(), "rekeys_ike"]),
        }
        words.extend([self.deletes.name(), "deletes"]);
        words.join("_")
    }
}

/// All cases.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for begins in Side::BOTH {
        for inner in [Inner::V4, Inner::V6] {
            for cipher in [Cipher::Aes256Gcm, Cipher::Aes128Gcm] {
                for deletes in Side::BOTH {
                    rows.push(Row {
                        begins,
                        inner,
                        cipher,
                        nat: false,
                        rekey: Rekey::None,
                        deletes,
                    });
                }
            }
        }
        for deletes in Side::BOTH {
            rows.push(Row {
                begins,
                inner: Inner::V4,
                cipher: Cipher::Aes256Gcm,
                nat: true,
                rekey: Rekey::None,
                deletes,
            });
        }
        for rekey in REKEYS {
            rows.push(Row {
                begins,
                inner: Inner::V4,
                cipher: Cipher::Aes256Gcm,
                nat: false,
                rekey,
                deletes: begins,
            });
        }
    }
    rows
}

const REKEYS: [Rekey; 4] = [
    Rekey::Child(Side::Us),
    Rekey::Child(Side::Them),
    Rekey::Ike(Side::Us),
    Rekey::Ike(Side::Them),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_tell_the_rows_apart() {
        let rows = rows();
        let names: HashSet<String> = rows.iter().map(Row::name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(
            names
                .iter()
                .all(|name| name.starts_with(super::super::NAME))
        );
        let rekey = Row {
            rekey: Rekey::Child(Side::Them),
            ..rows[0]
        };
        assert_eq!(
            rekey.name(),
            "interop_psk_evergate_begins_ipv4_aes256gcm_strongswan_rekeys_child_evergate_deletes"
        );
    }
}
