//! The key schedule (RFC 7296 sections 2.14, 2.17 and 2.18).

use std::fmt;

use zeroize::Zeroizing;

use super::crypto::{AeadKey, IkeCipher, Prf, SALT, Secret};
use super::proposal::{EspCipher, IkeSuite};

/// SKEYSEED = prf(Ni | Nr, g^ir).
pub fn skeyseed(prf: Prf, ni: &[u8], nr: &[u8], shared: &[u8]) -> Secret {
    prf.compute(&Zeroizing::new([ni, nr].concat()), &[shared])
}

/// The keys of one IKE SA, each side's in its place.
pub struct IkeKeys {
    prf: Prf,
    sk_d: Secret,
    /// Protects what we send.
    pub seal: AeadKey,
    /// Opens what the peer sends.
    pub open: AeadKey,
    /// SK_pi or SK_pr: ours.
    pub sk_p_local: Secret,
    /// SK_pi or SK_pr: the peer's.
    pub sk_p_remote: Secret,
    /// The owner has been told those of `seal` and `open`.
    pub(super) exported: bool,
}

impl IkeKeys {
    /// {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi |
    /// SPIr). The ciphers are AEADs, so SK_a is empty (RFC 5282 section 5.1) and SK_e ends with the
    /// salt.
    pub fn derive(
        suite: IkeSuite,
        skeyseed: &[u8],
        nonces: [&[u8]; 2],
        spis: [u64; 2],
        initiator: bool,
    ) -> IkeKeys {
        let prf = suite.prf;
        let (d, e) = (prf.length(), suite.cipher.key_length() + SALT);
        let mut material = Zeroizing::new(vec![0; 3 * d + 2 * e]);
        let [ni, nr] = nonces;
        let [spi_i, spi_r] = spis.map(u64::to_be_bytes);
        prf.plus(skeyseed, &[ni, nr, &spi_i, &spi_r], &mut material)
            .expect("seven keys are fewer than 255 blocks");
        let (sk_d, rest) = material.split_at(d);
        let (ei, rest) = rest.split_at(e);
        let (er, rest) = rest.split_at(e);
        let (pi, pr) = rest.split_at(d);
        let ((e_out, e_in), (p_out, p_in)) = match initiator {
            true => ((ei, er), (pi, pr)),
            false => ((er, ei), (pr, pi)),
        };
        IkeKeys {
            prf,
            sk_d: Secret::new(sk_d),
            seal: aead(suite.cipher, e_out),
            open: aead(suite.cipher, e_in),
            sk_p_local: Secret::new(p_out),
            sk_p_remote: Secret::new(p_in),
            exported: false,
        }
    }

    /// As they were written down: those of an IKE SA whose peers have proven who they are.
    pub(super) fn restored(prf: Prf, sk_d: &Secret, seal: AeadKey, open: AeadKey) -> IkeKeys {
        IkeKeys {
            prf,
            sk_d: sk_d.clone(),
            seal,
            open,
            sk_p_local: Secret::default(),
            sk_p_remote: Secret::default(),
            exported: false,
        }
    }

    /// SKEYSEED after an additional key exchange (RFC 9370 section 2.2.2) with the nonces of
    /// IKE_SA_INIT, and of the IKE SA that replaces this one (RFC 7296 section 2.18) with new ones:
    /// prf(SK_d (old), shared | Ni | Nr), with the old PRF.
    pub fn next_seed(&self, shared: &[u8], nonces: [&[u8]; 2]) -> Secret {
        self.next_seed_with(shared, nonces, &[])
    }

    /// SKEYSEED of the IKE SA that replaces this one after an additional key exchange (RFC 9370
    /// section 2.2.4): prf(SK_d (old), SK(0) | Ni | Nr | SK(1)). `additional` is empty without one.
    pub fn next_seed_with(&self, shared: &[u8], [ni, nr]: [&[u8]; 2], additional: &[u8]) -> Secret {
        self.prf.compute(&self.sk_d, &[shared, ni, nr, additional])
    }

    /// SKEYSEED of a session that is resumed (RFC 5723 section 5.1): prf(SK_d (old), "Resumption" | Ni
    /// | Nr).
    pub fn resumed_seed(prf: Prf, sk_d: &[u8], [ni, nr]: [&[u8]; 2]) -> Secret {
        prf.compute(sk_d, &[b"Resumption", ni, nr])
    }

    /// For a ticket, sealed or kept by the initiator.
    pub(crate) fn sk_d(&self) -> &Secret {
        &self.sk_d
    }

    /// Keys of a child SA: KEYMAT = prf+(SK_d, Ni | Nr), for the initiator's direction first, then
    /// the responder's. Yields (initiator to responder, responder to initiator).
    pub fn child(&self, cipher: EspCipher, nonces: [&[u8]; 2]) -> (EspKey, EspKey) {
        self.child_with(cipher, &[], nonces)
    }

    /// As [`IkeKeys::child`] after a key exchange of its own: KEYMAT = prf+(SK_d, g^ir (new) | Ni |
    /// Nr). `shared` is empty without one.
    pub fn child_with(
        &self,
        cipher: EspCipher,
        shared: &[u8],
        [ni, nr]: [&[u8]; 2],
    ) -> (EspKey, EspKey) {
        let length = cipher.key_length() + SALT;
        let mut material = Zeroizing::new(vec![0; 2 * length]);
        self.prf
            .plus(&self.sk_d, &[shared, ni, nr], &mut material)
            .expect("two keys are fewer than 255 blocks");
        let (to_responder, to_initiator) = material.split_at(length);
        (
            EspKey::new(cipher, to_responder),
            EspKey::new(cipher, to_initiator),
        )
    }

    /// What the owner may derive keys of its own from.
    pub fn exporter(&self) -> Exporter {
        // Not SK_d itself: an export can then never equal the KEYMAT of a child, whatever label is
        // asked for.
        Exporter {
            prf: self.prf,
            secret: self.prf.compute(&self.sk_d, &[b"ike key exporter"]),
        }
    }
}

impl fmt::Debug for IkeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeKeys({:?}, {:?})", self.prf, self.seal)
    }
}

fn aead(cipher: IkeCipher, material: &[u8]) -> AeadKey {
    AeadKey::new(cipher, material).expect("the schedule cuts keys to the cipher's length")
}

/// Key and salt of one direction of a child SA.
#[derive(Clone)]
pub struct EspKey {
    /// Without the salt.
    pub key: Secret,
    /// The first four bytes of every nonce (RFC 4106 section 8.1).
    pub salt: Zeroizing<[u8; SALT]>,
}

impl EspKey {
    fn new(cipher: EspCipher, material: &[u8]) -> EspKey {
        let (key, tail) = material.split_at(cipher.key_length());
        let mut salt = Zeroizing::new([0; SALT]);
        salt.copy_from_slice(tail);
        EspKey {
            key: Secret::new(key),
            salt,
        }
    }
}

/// Derives further keys that both ends of an IKE SA share, and nobody else.
#[derive(Clone)]
pub struct Exporter {
    prf: Prf,
    secret: Secret,
}

impl Exporter {
    /// Fills `out` with prf+(prf(SK_d, "ike key exporter"), length of label (1 byte) | label |
    /// context): the same on both ends, another for each label and context.
    ///
    /// # Panics
    /// `label` is longer than 255 bytes, or `out` longer than 255 blocks of the PRF (8160 bytes or
    /// more).
    pub fn derive(&self, label: &[u8], context: &[u8], out: &mut [u8]) {
        let length = u8::try_from(label.len()).expect("a label has at most 255 bytes");
        self.prf
            .plus(&self.secret, &[&[length], label, context], out)
            .expect("an export has at most 255 PRF blocks");
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(…)")
    }
}
