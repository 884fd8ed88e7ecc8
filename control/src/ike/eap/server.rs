//! The side that checks, as a state machine: a packet in, a packet out. By a password:
//!
//! ```text
//!                                  <-- Request/Identity
//! Response/Identity -->
//!                                  <-- Request/MSCHAPv2, Challenge
//! Response/MSCHAPv2, Response -->
//!                                  <-- Request/MSCHAPv2, Success | Failure, once more
//! Response/MSCHAPv2, Success -->
//!                                  <-- Success
//! ```
//!
//! By a certificate: see [`tls`](super::tls). Passwords are asked for first where there are any,
//! whatever the name, so that nobody learns by it who has one; a Nak asks for the other method.

use std::fmt;
use std::time::Duration;

use rand::CryptoRng;

use super::super::crypto::Secret;
use super::super::event::Failure;
use super::super::identity::{Identity, printable};
use super::super::payload::eap::{self, Eap};
use super::super::settings::X509;
use super::super::x509::Subject;
use super::mschapv2::{self, CHALLENGE_LENGTH, Exchange, PasswordHash, Said};
use super::tls;

const IDENTITY: u8 = 1;
const NAK: u8 = 3;
const MSCHAPV2: u8 = 26;

/// So many passwords may be tried in one exchange.
const TRIES: u32 = 3;
/// A longer name is nobody's.
const LONGEST_NAME: usize = 253;
/// So many names of a certificate are told of.
const MOST_SHOWN: usize = 4;
/// Our name, which nothing hangs on.
const NAME: &[u8] = b"evergate";

/// Someone who may authenticate by a password.
#[derive(Clone)]
pub struct EapUser {
    /// Whom the session is with.
    pub identity: Identity,
    password: PasswordHash,
}

impl EapUser {
    pub fn new(identity: Identity, password: &str) -> EapUser {
        EapUser {
            identity,
            password: PasswordHash::new(password),
        }
    }
}

impl fmt::Debug for EapUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EapUser({})", self.identity)
    }
}

/// Who may authenticate, and how.
pub trait Users {
    /// Some users have passwords.
    fn have_passwords(&self) -> bool;

    /// The user of that name who has a password.
    fn by_password(&mut self, name: &str) -> Option<EapUser>;

    /// How long this name has to wait until its password is looked at, after wrong ones.
    fn wait(&mut self, name: &str) -> Option<Duration>;

    /// A password was right, or wrong.
    fn judged(&mut self, name: &str, right: bool);

    /// How users prove themselves by certificates: ours and the CAs, and the time in seconds since
    /// 1970. `None` if none does.
    fn certificates(&mut self) -> Option<(X509, u64)>;

    /// Who the owner of a certificate is, that is believed.
    fn by_certificate(&mut self, subject: &Subject) -> Option<Identity>;
}

/// Users with passwords only.
impl<F: FnMut(&str) -> Option<EapUser>> Users for F {
    fn have_passwords(&self) -> bool {
        true
    }

    fn by_password(&mut self, name: &str) -> Option<EapUser> {
        self(name)
    }

    fn wait(&mut self, _: &str) -> Option<Duration> {
        None
    }

    fn judged(&mut self, _: &str, _: bool) {}

    fn certificates(&mut self) -> Option<(X509, u64)> {
        None
    }

    fn by_certificate(&mut self, _: &Subject) -> Option<Identity> {
        None
    }
}

/// One conversation.
pub struct Server {
    state: State,
    identifier: u8,
    denied: Option<Failure>,
}

enum State {
    Identity,
    Challenge {
        name: String,
        challenge: [u8; CHALLENGE_LENGTH],
        tries: u32,
    },
    /// The password was right: the peer must say that it believes us.
    Success {
        identity: Identity,
        msk: Secret,
    },
    /// The last try was wrong: the peer says that it has heard so.
    Failure,
    /// By a certificate. The name counts if the peer asks for the other method at once.
    Tls {
        name: Option<String>,
        conversation: Box<tls::Conversation>,
    },
    Over,
}

/// What comes of a packet.
pub enum Outcome {
    /// To be sent; the conversation goes on.
    Request(Eap),
    /// To be sent: who the peer is, and the key that both have.
    Success(Eap, Identity, Secret),
    /// To be sent, and why.
    Failure(Eap, Failure),
}

impl Server {
    /// A new conversation, and its first request.
    pub fn new(rng: &mut dyn CryptoRng) -> (Server, Eap) {
        let mut server = Server {
            state: State::Identity,
            identifier: (rng.next_u32() & 0xff) as u8,
            denied: None,
        };
        let request = server.request(IDENTITY, &[]);
        (server, request)
    }

    /// Why the last password was not taken.
    pub fn denied(&self) -> Option<&Failure> {
        self.denied.as_ref()
    }

    /// Takes a packet of the peer.
    pub fn handle(
        &mut self,
        packet: &Eap,
        rng: &mut dyn CryptoRng,
        users: &mut dyn Users,
    ) -> Outcome {
        let state = std::mem::replace(&mut self.state, State::Over);
        let Some((kind, data)) = packet.body.split_first() else {
            return self.fail();
        };
        if packet.code != eap::RESPONSE || packet.identifier != self.identifier {
            return self.fail();
        }
        match (state, *kind) {
            (State::Identity, IDENTITY) => match name(data) {
                Some(name) if users.have_passwords() => self.challenge(name, rng),
                Some(name) => self.start_tls(name, users),
                None => self.fail(),
            },
            // The first request of one method may be answered by a wish for the other one.
            (State::Challenge { name, tries: 1, .. }, NAK) if data.contains(&tls::TYPE) => {
                self.start_tls(name, users)
            }
            (
                State::Tls {
                    name: Some(name), ..
                },
                NAK,
            ) if data.contains(&MSCHAPV2) && users.have_passwords() => self.challenge(name, rng),
            (State::Tls { conversation, .. }, tls::TYPE) => {
                self.continue_tls(conversation, data, users)
            }
            (
                State::Challenge {
                    name,
                    challenge,
                    tries,
                },
                MSCHAPV2,
            ) => match mschapv2::read(data) {
                Ok(Said::Response {
                    id,
                    challenge: peer,
                    response,
                }) => {
                    let exchange = Exchange {
                        authenticator: challenge,
                        peer,
                        name: &name,
                    };
                    if let Some(wait) = users.wait(&name) {
                        self.denied = Some(Failure::TooManyGuesses(wait));
                        return self.deny(id, name, TRIES, rng);
                    }
                    let user = users.by_password(&name);
                    let judged = self.judge(id, &exchange, &response, user);
                    users.judged(&name, judged.is_some());
                    match judged {
                        Some(request) => request,
                        None => {
                            self.denied = Some(Failure::Eap);
                            self.deny(id, name, tries, rng)
                        }
                    }
                }
                _ => self.fail(),
            },
            (State::Success { identity, msk }, MSCHAPV2) => match mschapv2::read(data) {
                Ok(Said::Success) => Outcome::Success(self.last(eap::SUCCESS), identity, msk),
                _ => self.fail(),
            },
            // Also any other Nak: nothing else is spoken.
            (State::Failure | State::Over, _) | (_, NAK) | (_, _) => self.fail(),
        }
    }

    fn start_tls(&mut self, name: String, users: &mut dyn Users) -> Outcome {
        let started = users
            .certificates()
            .and_then(|(x509, time)| tls::Conversation::new(&x509, time));
        let Some((conversation, data)) = started else {
            return self.fail();
        };
        self.state = State::Tls {
            name: Some(name),
            conversation: Box::new(conversation),
        };
        Outcome::Request(self.request(tls::TYPE, &data))
    }

    fn continue_tls(
        &mut self,
        mut conversation: Box<tls::Conversation>,
        data: &[u8],
        users: &mut dyn Users,
    ) -> Outcome {
        match conversation.handle(data) {
            tls::Step::Request(data) => {
                let name = None;
                self.state = State::Tls { name, conversation };
                Outcome::Request(self.request(tls::TYPE, &data))
            }
            tls::Step::Proven(msk) => {
                let Some(subject) = conversation.subject() else {
                    return self.fail();
                };
                match users.by_certificate(&subject) {
                    Some(identity) => Outcome::Success(self.last(eap::SUCCESS), identity, msk),
                    None => {
                        let names = subject.users();
                        let names = names.iter().take(MOST_SHOWN).map(|name| printable(name));
                        let names = names.collect();
                        Outcome::Failure(self.last(eap::FAILURE), Failure::NoUser(names))
                    }
                }
            }
            tls::Step::Failed(failure) => Outcome::Failure(self.last(eap::FAILURE), failure),
        }
    }

    fn challenge(&mut self, name: String, rng: &mut dyn CryptoRng) -> Outcome {
        let challenge = random(rng);
        // The name inside the challenge is ours.
        let size = CHALLENGE_LENGTH as u8;
        let id = self.identifier.wrapping_add(1);
        let data = mschapv2::write(mschapv2::CHALLENGE, id, &[&[size], &challenge, NAME]);
        self.state = State::Challenge {
            name,
            challenge,
            tries: 1,
        };
        Outcome::Request(self.request(MSCHAPV2, &data))
    }

    /// The request that says that the password was right; `None` if it was not. An unknown user
    /// costs the same work.
    fn judge(
        &mut self,
        id: u8,
        exchange: &Exchange<'_>,
        response: &[u8; 24],
        user: Option<EapUser>,
    ) -> Option<Outcome> {
        let nobody = PasswordHash::none();
        let password = user.as_ref().map_or(&nobody, |user| &user.password);
        let right = password.verify(exchange, response);
        let user = user.filter(|_| right)?;
        let message = user.password.authenticator_response(exchange, response);
        let msk = user.password.msk(response);
        let data = mschapv2::write(mschapv2::SUCCESS, id, &[message.as_bytes(), b" M=welcome"]);
        self.state = State::Success {
            identity: user.identity,
            msk,
        };
        Some(Outcome::Request(self.request(MSCHAPV2, &data)))
    }

    /// A password that is wrong, or not looked at: another try with another challenge, or the end.
    fn deny(&mut self, id: u8, name: String, tries: u32, rng: &mut dyn CryptoRng) -> Outcome {
        let challenge: [u8; CHALLENGE_LENGTH] = random(rng);
        let again = tries < TRIES;
        let hex: String = challenge.iter().map(|b| format!("{b:02X}")).collect();
        let retry = u8::from(again);
        let message = format!("E=691 R={retry} C={hex} V=3 M=wrong name or password");
        let data = mschapv2::write(mschapv2::FAILURE, id, &[message.as_bytes()]);
        self.state = match again {
            true => State::Challenge {
                name,
                challenge,
                tries: tries + 1,
            },
            false => State::Failure,
        };
        Outcome::Request(self.request(MSCHAPV2, &data))
    }

    fn request(&mut self, kind: u8, data: &[u8]) -> Eap {
        self.identifier = self.identifier.wrapping_add(1);
        Eap {
            code: eap::REQUEST,
            identifier: self.identifier,
            body: [&[kind], data].concat(),
        }
    }

    fn fail(&mut self) -> Outcome {
        let why = self.denied.take().unwrap_or(Failure::Eap);
        Outcome::Failure(self.last(eap::FAILURE), why)
    }

    /// Success or failure, which carry the identifier of the last request.
    fn last(&self, code: u8) -> Eap {
        Eap {
            code,
            identifier: self.identifier,
            body: Vec::new(),
        }
    }
}

fn random<const N: usize>(rng: &mut dyn CryptoRng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A name that can be somebody's: printable, and of a sane length.
fn name(data: &[u8]) -> Option<String> {
    // Some clients end it with a zero.
    let data = data.strip_suffix(&[0]).unwrap_or(data);
    let name = std::str::from_utf8(data).ok()?;
    let sane = (1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
    sane.then(|| name.to_owned())
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Identity => "Identity",
            State::Challenge { .. } => "Challenge",
            State::Success { .. } => "Success",
            State::Failure => "Failure",
            State::Tls { .. } => "Tls",
            State::Over => "Over",
        };
        write!(f, "Server({state})")
    }
}
