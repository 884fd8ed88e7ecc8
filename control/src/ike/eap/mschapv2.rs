//! MS-CHAP version 2 (RFC 2759), its keys (RFC 3079), and how EAP carries it
//! (draft-kamath-pppext-eap-mschapv2).
//!
//! MD4, DES and SHA-1 are what the protocol is made of. Whoever sees an exchange can find the
//! password with the work of one DES search; so it runs inside an IKE SA only, and after the
//! server has proven itself by its certificate.

use cipher::{BlockCipherEncrypt as _, KeyInit as _};
use md4::{Digest as _, Md4};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::super::crypto::{Secret, sha1};
use super::super::payload::Malformed;
use super::super::payload::reader::Reader;

pub(super) const CHALLENGE: u8 = 1;
pub(super) const RESPONSE: u8 = 2;
pub(super) const SUCCESS: u8 = 3;
pub(super) const FAILURE: u8 = 4;

/// Bytes of a challenge of either side.
pub(super) const CHALLENGE_LENGTH: usize = 16;
/// Bytes of the Value of a Response packet: peer challenge, reserved, response, flags.
const VALUE_LENGTH: u8 = 49;

/// What both sides have seen.
pub(super) struct Exchange<'a> {
    pub(super) authenticator: [u8; CHALLENGE_LENGTH],
    pub(super) peer: [u8; CHALLENGE_LENGTH],
    pub(super) name: &'a str,
}

/// NtPasswordHash: MD4 of the password in UTF-16.
#[derive(Clone)]
pub(crate) struct PasswordHash(Zeroizing<[u8; 16]>);

impl PasswordHash {
    pub(crate) fn new(password: &str) -> PasswordHash {
        let mut text = Zeroizing::new(Vec::with_capacity(2 * password.len()));
        password
            .encode_utf16()
            .for_each(|unit| text.extend_from_slice(&unit.to_le_bytes()));
        PasswordHash(Zeroizing::new(Md4::digest(&*text).into()))
    }

    /// Of nobody.
    pub(super) fn none() -> PasswordHash {
        PasswordHash(Zeroizing::new([0; 16]))
    }

    fn twice(&self) -> Zeroizing<[u8; 16]> {
        Zeroizing::new(Md4::digest(*self.0).into())
    }

    /// GenerateNTResponse (section 8.1).
    pub(super) fn nt_response(&self, exchange: &Exchange<'_>) -> [u8; 24] {
        let challenge = exchange.hash();
        let mut padded = Zeroizing::new([0; 21]);
        padded[..16].copy_from_slice(&*self.0);
        let mut response = [0; 24];
        for (seven, out) in padded.chunks_exact(7).zip(response.chunks_exact_mut(8)) {
            out.copy_from_slice(&des(seven, challenge));
        }
        response
    }

    /// Whether `response` is the answer to the exchange; in constant time.
    pub(super) fn verify(&self, exchange: &Exchange<'_>, response: &[u8; 24]) -> bool {
        self.nt_response(exchange).ct_eq(response).into()
    }

    /// GenerateAuthenticatorResponse (section 8.7): by which the peer sees that we know the
    /// password too.
    pub(super) fn authenticator_response(
        &self,
        exchange: &Exchange<'_>,
        response: &[u8; 24],
    ) -> String {
        let digest = sha1(&[
            &*self.twice(),
            response,
            b"Magic server to client signing constant",
        ]);
        let digest = sha1(&[
            &digest,
            &exchange.hash(),
            b"Pad to make it do more than one iteration",
        ]);
        let hex: String = digest.iter().map(|b| format!("{b:02X}")).collect();
        format!("S={hex}")
    }

    /// The MSK: MasterReceiveKey | MasterSendKey, as the authenticator sees them (RFC 3079 section
    /// 3), and 32 zeros.
    pub(super) fn msk(&self, response: &[u8; 24]) -> Secret {
        let master = Zeroizing::new(sha1(&[
            &*self.twice(),
            response,
            b"This is the MPPE Master Key",
        ]));
        let mut msk = Zeroizing::new([0; 64]);
        for (magic, out) in [
            &b"On the client side, this is the send key; on the server side, it is the receive key."[..],
            b"On the client side, this is the receive key; on the server side, it is the send key.",
        ]
        .into_iter()
        .zip(msk.chunks_exact_mut(16))
        {
            let key = Zeroizing::new(sha1(&[&master[..16], &[0; 40], magic, &[0xf2; 40]]));
            out.copy_from_slice(&key[..16]);
        }
        Secret::new(&*msk)
    }
}

impl Exchange<'_> {
    /// ChallengeHash (section 8.2). The name counts without a domain before it.
    fn hash(&self) -> [u8; 8] {
        let name = self.name.rsplit('\\').next().unwrap_or_default();
        let [a, b, c, d, e, f, g, h, ..] =
            sha1(&[&self.peer, &self.authenticator, name.as_bytes()]);
        [a, b, c, d, e, f, g, h]
    }
}

/// DesEncrypt (section 8.6): the key is 56 bits, to which parity is added.
fn des(seven: &[u8], clear: [u8; 8]) -> [u8; 8] {
    let bits = seven
        .iter()
        .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut key = Zeroizing::new([0; 8]);
    for (place, byte) in key.iter_mut().enumerate() {
        *byte = (bits >> (49 - 7 * place) << 1) as u8;
    }
    let mut block = clear.into();
    des::Des::new(&(*key).into()).encrypt_block(&mut block);
    block.into()
}

/// What a peer says inside EAP-MSCHAPv2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Response {
        id: u8,
        challenge: [u8; CHALLENGE_LENGTH],
        response: [u8; 24],
    },
    /// It has verified us.
    Success,
    Failure,
}

/// Reads the data of an EAP-Response of type 26.
pub(super) fn read(data: &[u8]) -> Result<Said, Malformed> {
    let mut r = Reader::new(data);
    let code = r.u8("MS-CHAP code")?;
    match code {
        RESPONSE => {
            let id = r.u8("MS-CHAP identifier")?;
            let length = r.u16("MS-CHAP length")?;
            if usize::from(length) != data.len() {
                return Err(Malformed::Value {
                    what: "MS-CHAP length",
                    found: length.into(),
                    expected: "that of the packet",
                });
            }
            let size = r.u8("MS-CHAP value size")?;
            if size != VALUE_LENGTH {
                return Err(Malformed::Value {
                    what: "MS-CHAP value size",
                    found: size.into(),
                    expected: "49",
                });
            }
            let challenge = r.array("peer challenge")?;
            r.take(8, "reserved")?;
            let response = r.array("NT response")?;
            r.u8("flags")?;
            Ok(Said::Response {
                id,
                challenge,
                response,
            })
        }
        SUCCESS => Ok(Said::Success),
        FAILURE => Ok(Said::Failure),
        found => Err(Malformed::Value {
            what: "MS-CHAP code",
            found: found.into(),
            expected: "2, 3 or 4",
        }),
    }
}

/// The data of an EAP-Request of type 26.
pub(super) fn write(code: u8, id: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = u16::try_from(body.len() + 4).unwrap_or(u16::MAX);
    [&[code, id][..], &length.to_be_bytes(), &body].concat()
}
