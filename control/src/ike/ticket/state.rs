//! What a ticket holds (RFC 5723 section 5): enough to go on with an IKE SA, and to judge whether its
//! peer may still have a session.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::super::crypto::{Group, IkeCipher, Prf, Secret};
use super::super::identity::Identity;
use super::super::payload::Malformed;
use super::super::payload::reader::Reader;
use super::super::proposal::IkeSuite;

/// More inner addresses than this no session has.
const MOST_ADDRESSES: usize = 16;

/// How the peer has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a shared key. With a hash that `issuer` alone can judge: other gateways share other keys
    /// with the peer.
    Psk([u8; 16]),
    /// By a certificate. With the hash of all CAs and CRLs that were trusted then, and the time from
    /// which on they do not suffice any more, in seconds since 1970.
    Certificate([u8; 32], u64),
    /// As a user, by EAP.
    Eap,
}

/// The state of an IKE SA, as its ticket keeps it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// Seconds since 1970.
    pub(crate) expires: u64,
    /// When the peer has proven who it is, in seconds since 1970.
    pub(crate) authenticated: u64,
    pub(crate) spis: [u64; 2],
    pub(crate) suite: IkeSuite,
    pub(crate) sk_d: Secret,
    pub(crate) idi: Identity,
    pub(crate) idr: Identity,
    /// Who the initiator is for us; a user's name differs from IDi.
    pub(crate) peer: Identity,
    /// Who has issued the ticket.
    pub(crate) issuer: Identity,
    pub(crate) way: Way,
    /// The inner addresses that the peer had.
    pub(crate) assigned: Vec<IpAddr>,
}

impl State {
    /// Wiped when dropped: it has SK_d.
    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(512));
        for number in [self.expires, self.authenticated, self.spis[0], self.spis[1]] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let IkeSuite {
            cipher,
            prf,
            group,
            additional,
        } = self.suite;
        out.push(match cipher {
            IkeCipher::Aes128Gcm16 => 1,
            IkeCipher::Aes256Gcm16 => 2,
            IkeCipher::ChaCha20Poly1305 => 3,
        });
        out.push(match prf {
            Prf::HmacSha256 => 1,
            Prf::HmacSha384 => 2,
            Prf::HmacSha512 => 3,
        });
        out.extend_from_slice(&group.number().to_be_bytes());
        out.extend_from_slice(&additional.map_or(0, Group::number).to_be_bytes());
        out.extend_from_slice(&self.sk_d);
        for identity in [&self.idi, &self.idr, &self.peer, &self.issuer] {
            let (kind, data) = identity.to_wire();
            out.push(kind);
            // An identity has 512 bytes at most; a longer one of ours makes no ticket that opens.
            let length = u16::try_from(data.len()).unwrap_or(0);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&data);
        }
        match &self.way {
            Way::Psk(check) => {
                out.push(1);
                out.extend_from_slice(check);
            }
            Way::Certificate(trust, until) => {
                out.push(2);
                out.extend_from_slice(trust);
                out.extend_from_slice(&until.to_be_bytes());
            }
            Way::Eap => out.push(3),
        }
        for address in self.assigned.iter().take(MOST_ADDRESSES) {
            match address {
                IpAddr::V4(a) => {
                    out.push(4);
                    out.extend_from_slice(&a.octets());
                }
                IpAddr::V6(a) => {
                    out.push(6);
                    out.extend_from_slice(&a.octets());
                }
            }
        }
        out
    }

    pub(super) fn read(text: &[u8]) -> Result<State, Malformed> {
        let mut r = Reader::new(text);
        let (expires, authenticated) = (r.u64("expiry")?, r.u64("authentication")?);
        let spis = [r.u64("initiator SPI")?, r.u64("responder SPI")?];
        let cipher = match r.u8("cipher")? {
            1 => IkeCipher::Aes128Gcm16,
            2 => IkeCipher::Aes256Gcm16,
            3 => IkeCipher::ChaCha20Poly1305,
            found => return Err(wrong("cipher", found)),
        };
        let prf = match r.u8("PRF")? {
            1 => Prf::HmacSha256,
            2 => Prf::HmacSha384,
            3 => Prf::HmacSha512,
            found => return Err(wrong("PRF", found)),
        };
        let group = r.u16("group")?;
        let group = Group::from_number(group).ok_or(wrong("group", group))?;
        let additional = match r.u16("additional group")? {
            0 => None,
            number => Some(Group::from_number(number).ok_or(wrong("group", number))?),
        };
        let sk_d = Secret::new(r.take(prf.length(), "SK_d")?);
        let mut identity = || {
            let kind = r.u8("identity type")?;
            let length = usize::from(r.u16("identity length")?);
            Identity::from_wire(kind, r.take(length, "identity")?)
        };
        let [idi, idr] = [identity()?, identity()?];
        let [peer, issuer] = [identity()?, identity()?];
        let way = match r.u8("authentication method")? {
            1 => Way::Psk(r.array("hash of the key")?),
            2 => Way::Certificate(r.array("hash of the CAs")?, r.u64("end of validity")?),
            3 => Way::Eap,
            found => return Err(wrong("authentication method", found)),
        };
        let mut assigned = Vec::new();
        while r.left() > 0 {
            assigned.push(match r.u8("address family")? {
                4 => IpAddr::from(r.array::<4>("inner address")?),
                6 => IpAddr::from(r.array::<16>("inner address")?),
                found => return Err(wrong("address family", found)),
            });
        }
        Ok(State {
            expires,
            authenticated,
            spis,
            suite: IkeSuite {
                cipher,
                prf,
                group,
                additional,
            },
            sk_d,
            idi,
            idr,
            peer,
            issuer,
            way,
            assigned,
        })
    }
}

fn wrong(what: &'static str, found: impl Into<u64>) -> Malformed {
    Malformed::Value {
        what,
        found: found.into(),
        expected: "one that tickets have",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn state() -> State {
        State {
            expires: 2_000_000_000,
            authenticated: 1_900_000_000,
            spis: [3, 4],
            suite: IkeSuite {
                cipher: IkeCipher::ChaCha20Poly1305,
                prf: Prf::HmacSha384,
                group: Group::X25519,
                additional: Some(Group::MlKem768),
            },
            sk_d: Secret::new(&[7; 48]),
            idi: "client.example".parse().unwrap(),
            idr: "192.0.2.1".parse().unwrap(),
            peer: "anna@example.org".parse().unwrap(),
            issuer: "gw.example".parse().unwrap(),
            way: Way::Psk([9; 16]),
            assigned: vec![[10, 99, 0, 7].into(), "fd00::7".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut one = state();
        for way in [Way::Psk([1; 16]), Way::Certificate([2; 32], 5), Way::Eap] {
            one.way = way;
            assert!(State::read(&one.write()).unwrap() == one);
        }
        (one.assigned, one.suite.additional) = (Vec::new(), None);
        let text = one.write();
        assert!(State::read(&text).unwrap() == one);
        for length in 0..text.len() {
            assert!(State::read(&text[..length]).is_err(), "{length} bytes");
        }
    }
}
