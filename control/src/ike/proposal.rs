//! What is offered and what is chosen (RFC 7296 sections 2.7 and 3.3).

use super::crypto::{Group, IkeCipher, Prf, SALT};
use super::payload::sa::{Proposal, Transform, protocol, transform};

/// Algorithms for the IKE SA, the preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeProposal {
    pub ciphers: Vec<IkeCipher>,
    pub prfs: Vec<Prf>,
    pub groups: Vec<Group>,
}

/// Algorithms for a child SA, the preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspProposal {
    pub ciphers: Vec<EspCipher>,
    /// Extended sequence numbers (RFC 4303 section 2.2.1): `true` is with.
    pub esn: Vec<bool>,
}

impl Default for IkeProposal {
    /// AES-256-GCM, then AES-128-GCM; HMAC-SHA2-256; Curve25519.
    fn default() -> IkeProposal {
        IkeProposal {
            ciphers: vec![IkeCipher::Aes256Gcm16, IkeCipher::Aes128Gcm16],
            prfs: vec![Prf::HmacSha256],
            groups: vec![Group::X25519],
        }
    }
}

impl Default for EspProposal {
    /// AES-256-GCM, then AES-128-GCM; extended sequence numbers if the peer has them.
    fn default() -> EspProposal {
        EspProposal {
            ciphers: vec![EspCipher::Aes256Gcm, EspCipher::Aes128Gcm],
            esn: vec![true, false],
        }
    }
}

/// The algorithms of an IKE SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IkeSuite {
    pub cipher: IkeCipher,
    pub prf: Prf,
    pub group: Group,
}

/// The cipher of a child SA: ESP with AES-GCM and 16-byte tags (RFC 4106).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EspCipher {
    Aes128Gcm,
    Aes256Gcm,
}

impl EspCipher {
    /// Bytes of key without the four of salt.
    pub fn key_length(self) -> usize {
        match self {
            EspCipher::Aes128Gcm => 16,
            EspCipher::Aes256Gcm => 32,
        }
    }

    /// Bytes of key and salt together.
    pub fn material(self) -> usize {
        self.key_length() + SALT
    }
}

/// The algorithms of a child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EspSuite {
    pub cipher: EspCipher,
    pub esn: bool,
}

const AES_GCM_16: u16 = 20;

/// An algorithm that stands on the wire as a transform.
trait Algorithm: Copy {
    fn transform(self) -> Transform;
}

impl Algorithm for IkeCipher {
    fn transform(self) -> Transform {
        let bits = self.key_length() as u16 * 8;
        Transform::new(transform::ENCR, AES_GCM_16, Some(bits))
    }
}

impl Algorithm for EspCipher {
    fn transform(self) -> Transform {
        let bits = self.key_length() as u16 * 8;
        Transform::new(transform::ENCR, AES_GCM_16, Some(bits))
    }
}

impl Algorithm for Prf {
    fn transform(self) -> Transform {
        let id = match self {
            Prf::HmacSha256 => 5,
            Prf::HmacSha384 => 6,
            Prf::HmacSha512 => 7,
        };
        Transform::new(transform::PRF, id, None)
    }
}

impl Group {
    /// The number of the key exchange method.
    pub fn number(self) -> u16 {
        match self {
            Group::X25519 => 31,
            Group::P256 => 19,
        }
    }

    /// The method with that number, if it is spoken.
    pub fn from_number(number: u16) -> Option<Group> {
        [Group::X25519, Group::P256]
            .into_iter()
            .find(|g| g.number() == number)
    }
}

impl Algorithm for Group {
    fn transform(self) -> Transform {
        Transform::new(transform::KE, self.number(), None)
    }
}

/// Extended sequence numbers as a transform.
#[derive(Clone, Copy)]
struct Esn(bool);

impl Algorithm for Esn {
    fn transform(self) -> Transform {
        Transform::new(transform::ESN, u16::from(self.0), None)
    }
}

fn transforms<A: Algorithm>(algorithms: &[A]) -> impl Iterator<Item = Transform> {
    algorithms.iter().map(|a| a.transform())
}

impl IkeProposal {
    /// As it goes onto the wire, with `number` counted from 1.
    pub fn offer(&self, number: u8) -> Proposal {
        let ciphers = transforms(&self.ciphers);
        let transforms = ciphers
            .chain(transforms(&self.prfs))
            .chain(transforms(&self.groups));
        Proposal {
            number,
            protocol: protocol::IKE,
            spi: Vec::new(),
            transforms: transforms.collect(),
        }
    }
}

impl EspProposal {
    /// As it goes onto the wire, with `number` counted from 1 and the SPI that we receive on.
    pub fn offer(&self, number: u8, spi: u32) -> Proposal {
        let esn: Vec<Esn> = self.esn.iter().copied().map(Esn).collect();
        let transforms = transforms(&self.ciphers).chain(transforms(&esn)).collect();
        Proposal {
            number,
            protocol: protocol::ESP,
            spi: spi.to_be_bytes().to_vec(),
            transforms,
        }
    }
}

/// Numbers a list of offers from 1.
pub fn offers<P>(proposals: &[P], offer: impl Fn(&P, u8) -> Proposal) -> Vec<Proposal> {
    proposals
        .iter()
        .zip(1..=u8::MAX)
        .map(|(p, number)| offer(p, number))
        .collect()
}

/// Chooses for an IKE SA. Our order decides; the key exchange method of the peer's KE payload only
/// breaks no tie, so that a better one is asked for with INVALID_KE_PAYLOAD. Yields the suite and
/// the proposal to answer with.
pub fn choose_ike(ours: &[IkeProposal], theirs: &[Proposal]) -> Option<(IkeSuite, Proposal)> {
    choose(ours, theirs, |own, p| {
        if p.protocol != protocol::IKE || !p.spi.is_empty() || !only(p, &IKE_KINDS) {
            return None;
        }
        let suite = IkeSuite {
            cipher: first(&own.ciphers, p)?,
            prf: first(&own.prfs, p)?,
            group: first(&own.groups, p)?,
        };
        let chosen = vec![
            suite.cipher.transform(),
            suite.prf.transform(),
            suite.group.transform(),
        ];
        Some((
            suite,
            Proposal {
                transforms: chosen,
                spi: Vec::new(),
                ..p.clone()
            },
        ))
    })
}

/// Chooses for a child SA made in IKE_AUTH, where no key exchange happens and such transforms are
/// left out (RFC 7296 section 1.2). Yields the suite, the peer's SPI, and the proposal to answer
/// with, its SPI still empty.
pub fn choose_esp(ours: &[EspProposal], theirs: &[Proposal]) -> Option<(EspSuite, u32, Proposal)> {
    let ((suite, spi), proposal) = choose(ours, theirs, |own, p| {
        let spi = u32::from_be_bytes(p.spi.as_slice().try_into().ok()?);
        if p.protocol != protocol::ESP || !is_usable_spi(spi) || !only(p, &ESP_KINDS) {
            return None;
        }
        let cipher = first(&own.ciphers, p)?;
        let esn = own.esn.iter().copied().find(|e| offered(p, Esn(*e)))?;
        let chosen = vec![cipher.transform(), Esn(esn).transform()];
        let answer = Proposal {
            transforms: chosen,
            spi: Vec::new(),
            ..p.clone()
        };
        Some(((EspSuite { cipher, esn }, spi), answer))
    })?;
    Some((suite, spi, proposal))
}

/// Whether the peer may have us send with this SPI: 0 to 255 are reserved (RFC 4303 section 2.1),
/// and FFFFFFFF is left to the owner for packets of its own.
pub fn is_usable_spi(spi: u32) -> bool {
    (256..u32::MAX).contains(&spi)
}

/// Reads the responder's choice: exactly one proposal, with exactly one of each that was offered.
pub fn chosen_ike(ours: &[IkeProposal], answer: &[Proposal]) -> Option<IkeSuite> {
    let [proposal] = answer else { return None };
    let own = ours.get(usize::from(proposal.number).checked_sub(1)?)?;
    let (suite, expected) = choose_ike(std::slice::from_ref(own), answer)?;
    same_set(proposal, &expected).then_some(suite)
}

/// As [`chosen_ike`], for a child SA; with the SPI that the peer receives on.
pub fn chosen_esp(ours: &[EspProposal], answer: &[Proposal]) -> Option<(EspSuite, u32)> {
    let [proposal] = answer else { return None };
    let own = ours.get(usize::from(proposal.number).checked_sub(1)?)?;
    let (suite, spi, expected) = choose_esp(std::slice::from_ref(own), answer)?;
    same_set(proposal, &expected).then_some((suite, spi))
}

const IKE_KINDS: [u8; 3] = [transform::ENCR, transform::PRF, transform::KE];
const ESP_KINDS: [u8; 3] = [transform::ENCR, transform::ESN, transform::KE];

fn choose<O, S>(
    ours: &[O],
    theirs: &[Proposal],
    pick: impl Fn(&O, &Proposal) -> Option<(S, Proposal)>,
) -> Option<(S, Proposal)> {
    ours.iter()
        .find_map(|own| theirs.iter().find_map(|p| pick(own, p)))
}

fn first<A: Algorithm>(ours: &[A], p: &Proposal) -> Option<A> {
    ours.iter().copied().find(|a| offered(p, *a))
}

fn offered<A: Algorithm>(p: &Proposal, algorithm: A) -> bool {
    p.transforms.contains(&algorithm.transform())
}

/// A proposal asks for one transform of each type that it names. A type that we do not know makes
/// it unacceptable (section 3.3.6), as does integrity beside an AEAD, unless NONE is among the
/// choices (section 3.3).
fn only(p: &Proposal, kinds: &[u8]) -> bool {
    p.transforms.iter().all(|t| {
        kinds.contains(&t.kind)
            || p.transforms
                .iter()
                .any(|o| o.kind == t.kind && o.id == 0 && is_optional(o.kind))
    })
}

fn is_optional(kind: u8) -> bool {
    // NONE is number 0 of integrity, and of the additional key exchanges (RFC 9370 section 2.2.2).
    kind == transform::INTEG || (6..=12).contains(&kind)
}

/// Whether the answer holds exactly the transforms that were chosen, NONE of optional types aside.
fn same_set(answer: &Proposal, expected: &Proposal) -> bool {
    let named = |t: &&Transform| {
        let is_none = t.id == 0 && (is_optional(t.kind) || t.kind == transform::KE);
        !is_none
    };
    answer.transforms.iter().filter(named).count() == expected.transforms.len()
        && expected
            .transforms
            .iter()
            .all(|t| answer.transforms.contains(t))
}
