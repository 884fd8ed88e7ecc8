//! What is offered and what is chosen (RFC 7296 sections 2.7 and 3.3).

use super::crypto::{Group, IkeCipher, Prf, SALT};
use super::payload::sa::{Proposal, Transform, protocol, transform};

/// Algorithms for the IKE SA, the preferred first. In the words of strongSwan:
/// `aes256gcm16-prfsha256-x25519-ke1_mlkem768`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeProposal {
    pub ciphers: Vec<IkeCipher>,
    pub prfs: Vec<Prf>,
    pub groups: Vec<Group>,
    /// The additional key exchange (RFC 9370) in IKE_INTERMEDIATE; `None` stands for doing without.
    /// An empty list does without too, and does not speak of it.
    pub additional: Vec<Option<Group>>,
}

/// Algorithms for a child SA, the preferred first. In the words of strongSwan:
/// `aes256gcm16-esn-x25519`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspProposal {
    pub ciphers: Vec<EspCipher>,
    /// Extended sequence numbers (RFC 4303 section 2.2.1): `true` is with.
    pub esn: Vec<bool>,
    /// For a key exchange of the child's own in CREATE_CHILD_SA; none if empty. In IKE_AUTH none
    /// happens, and none is offered (RFC 7296 section 1.2).
    pub groups: Vec<Group>,
}

impl Default for IkeProposal {
    /// AES-256-GCM, AES-128-GCM, ChaCha20-Poly1305; HMAC-SHA2-256, 384, 512; Curve25519, P-256,
    /// P-384; no additional key exchange.
    fn default() -> IkeProposal {
        IkeProposal {
            ciphers: vec![
                IkeCipher::Aes256Gcm16,
                IkeCipher::Aes128Gcm16,
                IkeCipher::ChaCha20Poly1305,
            ],
            prfs: vec![Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512],
            groups: vec![Group::X25519, Group::P256, Group::P384],
            additional: Vec::new(),
        }
    }
}

impl Default for EspProposal {
    /// AES-256-GCM, AES-128-GCM, ChaCha20-Poly1305; extended sequence numbers if the peer has them;
    /// no key exchange of the child's own.
    fn default() -> EspProposal {
        EspProposal {
            ciphers: vec![
                EspCipher::Aes256Gcm,
                EspCipher::Aes128Gcm,
                EspCipher::ChaCha20Poly1305,
            ],
            esn: vec![true, false],
            groups: Vec::new(),
        }
    }
}

/// The algorithms of an IKE SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IkeSuite {
    pub cipher: IkeCipher,
    pub prf: Prf,
    pub group: Group,
    /// The additional key exchange.
    pub additional: Option<Group>,
}

/// The cipher of a child SA: AES-GCM (RFC 4106) or ChaCha20-Poly1305 (RFC 7634), with 16-byte tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EspCipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl EspCipher {
    /// Bytes of key without the four of salt.
    pub fn key_length(self) -> usize {
        match self {
            EspCipher::Aes128Gcm => 16,
            EspCipher::Aes256Gcm | EspCipher::ChaCha20Poly1305 => 32,
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
const CHACHA20_POLY1305: u16 = 28;
/// Of the key exchange methods and of integrity.
const NONE: u16 = 0;

/// An algorithm that stands on the wire as a transform.
trait Algorithm: Copy {
    fn transform(self) -> Transform;
}

// AES names the length of its key, ChaCha20 has but one and must not (RFC 7634 section 4).

impl Algorithm for IkeCipher {
    fn transform(self) -> Transform {
        let (id, bits) = match self {
            IkeCipher::Aes128Gcm16 => (AES_GCM_16, Some(128)),
            IkeCipher::Aes256Gcm16 => (AES_GCM_16, Some(256)),
            IkeCipher::ChaCha20Poly1305 => (CHACHA20_POLY1305, None),
        };
        Transform::new(transform::ENCR, id, bits)
    }
}

impl Algorithm for EspCipher {
    fn transform(self) -> Transform {
        let (id, bits) = match self {
            EspCipher::Aes128Gcm => (AES_GCM_16, Some(128)),
            EspCipher::Aes256Gcm => (AES_GCM_16, Some(256)),
            EspCipher::ChaCha20Poly1305 => (CHACHA20_POLY1305, None),
        };
        Transform::new(transform::ENCR, id, bits)
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

impl Algorithm for Group {
    fn transform(self) -> Transform {
        Transform::new(transform::KE, self.number(), None)
    }
}

/// The first additional key exchange as a transform. Others are not offered, and only NONE of them
/// is accepted.
#[derive(Clone, Copy)]
struct Additional(Option<Group>);

impl Algorithm for Additional {
    fn transform(self) -> Transform {
        let id = self.0.map_or(NONE, Group::number);
        Transform::new(transform::ADDKE1, id, None)
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
        let additional = self.additional.iter().map(|a| Additional(*a).transform());
        let ciphers = transforms(&self.ciphers);
        let transforms = ciphers
            .chain(transforms(&self.prfs))
            .chain(transforms(&self.groups))
            .chain(additional);
        Proposal {
            number,
            protocol: protocol::IKE,
            spi: Vec::new(),
            transforms: transforms.collect(),
        }
    }

    /// Whether an additional key exchange is among the choices.
    pub fn has_additional(&self) -> bool {
        self.additional.iter().any(Option::is_some)
    }

    /// The same without an additional key exchange; `None` if that is required. For a peer that has
    /// no IKE_INTERMEDIATE.
    pub fn without_additional(&self) -> Option<IkeProposal> {
        let can = !self.has_additional() || self.additional.contains(&None);
        can.then(|| self.plain())
    }

    /// The same, and no word of an additional key exchange.
    pub fn plain(&self) -> IkeProposal {
        IkeProposal {
            additional: Vec::new(),
            ..self.clone()
        }
    }

    /// The same list, and behind it again without an additional key exchange those that can do
    /// without: a peer that does not know the transform type refuses a whole proposal with it.
    pub fn with_fallbacks(list: &[IkeProposal]) -> Vec<IkeProposal> {
        let mut all = list.to_vec();
        for proposal in list.iter().filter(|p| p.has_additional()) {
            let plain = proposal.without_additional();
            all.extend(plain.filter(|plain| !list.contains(plain)));
        }
        all
    }

    /// The group chosen for the additional key exchange; `None` if nothing acceptable is offered.
    fn choose_additional(&self, group: Group, p: &Proposal) -> Option<Option<Group>> {
        let silent = !p.transforms.iter().any(|t| t.kind == transform::ADDKE1);
        let ours = match self.additional.is_empty() {
            true => &[None][..],
            false => &self.additional,
        };
        // RFC 9370 section 2.2.1: no method twice.
        ours.iter().copied().find(|a| match a {
            None => silent || offered(p, Additional(None)),
            some => *some != Some(group) && offered(p, Additional(*some)),
        })
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

/// Chooses for an IKE SA. Our order decides: of proposals, then within one of algorithms; theirs
/// only among proposals that fit the same one of ours. The key exchange method of the peer's KE
/// payload plays no part, so that a better one is asked for with INVALID_KE_PAYLOAD. Yields the
/// suite and the proposal to answer with.
pub fn choose_ike(ours: &[IkeProposal], theirs: &[Proposal]) -> Option<(IkeSuite, Proposal)> {
    choose(ours, theirs, |own, p| {
        if p.protocol != protocol::IKE || !p.spi.is_empty() || !only(p, &IKE_KINDS) {
            return None;
        }
        let group = first(&own.groups, p)?;
        let suite = IkeSuite {
            cipher: first(&own.ciphers, p)?,
            prf: first(&own.prfs, p)?,
            group,
            additional: own.choose_additional(group, p)?,
        };
        let additional = suite.additional.map(|g| Additional(Some(g)).transform());
        let mut chosen = vec![
            suite.cipher.transform(),
            suite.prf.transform(),
            suite.group.transform(),
        ];
        chosen.extend(additional);
        add_none(p, &mut chosen);
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
        let mut chosen = vec![cipher.transform(), Esn(esn).transform()];
        add_none(p, &mut chosen);
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

const IKE_KINDS: [u8; 4] = [
    transform::ENCR,
    transform::PRF,
    transform::KE,
    transform::ADDKE1,
];
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
        kinds.contains(&t.kind) || p.transforms.iter().any(|o| o.kind == t.kind && is_none(o))
    })
}

/// An answer has one transform of each type that was offered (RFC 7296 section 3.3.6): NONE where
/// nothing else was chosen.
fn add_none(p: &Proposal, chosen: &mut Vec<Transform>) {
    for offered in p.transforms.iter().filter(|t| is_none(t)) {
        if !chosen.iter().any(|t| t.kind == offered.kind) {
            chosen.push(*offered);
        }
    }
}

/// NONE of a type that may be left out.
fn is_none(t: &Transform) -> bool {
    t.id == NONE && is_optional(t.kind)
}

fn is_optional(kind: u8) -> bool {
    let additional = transform::ADDKE1..=transform::ADDKE7;
    kind == transform::INTEG || additional.contains(&kind)
}

/// Whether the answer holds exactly the transforms that were chosen, NONE of optional types aside.
fn same_set(answer: &Proposal, expected: &Proposal) -> bool {
    let named = |t: &&Transform| !is_none(t) && (t.kind, t.id) != (transform::KE, NONE);
    let chosen = || expected.transforms.iter().filter(named);
    answer.transforms.iter().filter(named).count() == chosen().count()
        && chosen().all(|t| answer.transforms.contains(t))
}
