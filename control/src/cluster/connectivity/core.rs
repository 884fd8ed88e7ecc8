//! Who is there, and what they say to each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::message::may_come_from;
use super::queries::{Begun, Queries, usable};
use super::seal::{Header, Refused, Seal};
use super::{
    ABSENT, Asked, CARRIERS, CHANGES, INTERVAL, Introduction, Message, NoMessage, Party, Presence,
    decode, encode,
};
use crate::cluster::Run;
use crate::cluster::wire::{Carrier, Relayed};

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram. What can not be sent is like what is lost.
    Send { to: SocketAddr, datagram: Vec<u8> },
    /// An IKE message has come: of a client to the authority, or back.
    Ike { from: Party, relayed: Relayed },
    /// A party wants to know: [`Connectivity::answer`] is to be called.
    Asked { from: Party, id: u64, what: Asked },
    /// Others have what was asked for, the most current first: the first one of each pair that can be used counts.
    Found {
        link: Option<u16>,
        what: Asked,
        carriers: Vec<(Party, Carrier)>,
    },
    /// Nobody has: the authority is to be asked.
    Lacking { link: Option<u16>, what: Asked },
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Questions for the pair of an SPI that were put to others.
    pub asked: u64,
    /// Those that somebody had it for.
    pub found: u64,
    /// Such questions that went to the authority.
    pub lacking: u64,
    /// Questions for the pairs of a station that were put to others, and those that somebody had some for.
    pub stations: u64,
    pub stations_found: u64,
    /// Answers that came when nobody waited for them any more.
    pub late: u64,
    /// Pairs in answers that could not be used.
    pub unusable: u64,
    /// Questions of others that were answered with a pair.
    pub answered: u64,
    /// IKE messages sent and received.
    pub ike_sent: u64,
    pub ike_received: u64,
    /// Datagrams that were refused: something else, or under an unknown key; repeated; forged; not to be read.
    pub strange: u64,
    pub repeated: u64,
    pub forged: u64,
    pub unreadable: u64,
}

impl Tally {
    fn refused(&mut self, why: Refused) {
        let count = match why {
            Refused::Malformed | Refused::Stranger => &mut self.strange,
            Refused::Repeated => &mut self.repeated,
            Refused::Forged => &mut self.forged,
            Refused::Unreadable => &mut self.unreadable,
        };
        *count += 1;
    }
}

/// A party as it is seen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub party: Party,
    pub at: SocketAddr,
    /// It has said something within [`ABSENT`].
    pub present: bool,
    /// When it did last.
    pub heard: Option<Instant>,
    /// What it has said of itself last.
    pub presence: Option<Presence>,
}

struct State {
    seal: Seal,
    key: (super::EdgeId, u32),
    at: SocketAddr,
    present: bool,
    heard: Option<Instant>,
    presence: Option<Presence>,
}

/// A node's part in the connectivity protocol.
pub struct Connectivity {
    run: Run,
    patience: Duration,
    members: BTreeMap<Party, State>,
    /// Whose datagrams are under which key: by the sender's number and the key's epoch.
    keys: HashMap<(super::EdgeId, u32), Party>,
    /// Pairs that this node has, and those that it may use.
    have: (u64, u64),
    /// When presence was told last, and is to be told next.
    told: Option<Instant>,
    tell_at: Option<Instant>,
    polled: Option<Instant>,
    queries: Queries,
    outputs: VecDeque<Output>,
    tally: Tally,
}

impl Connectivity {
    /// A node that nobody knows yet. `patience`: how long others are waited for when they are asked.
    #[must_use]
    pub fn new(run: Run, patience: Duration) -> Self {
        Self {
            run,
            patience,
            members: BTreeMap::new(),
            keys: HashMap::new(),
            have: (0, 0),
            told: None,
            tell_at: None,
            polled: None,
            queries: Queries::default(),
            outputs: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// The next thing to do.
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// All parties that are known.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.members.iter().map(|(party, state)| Member {
            party: *party,
            at: state.at,
            present: state.present,
            heard: state.heard,
            presence: state.presence,
        })
    }

    /// Whether a party has been heard lately.
    #[must_use]
    pub fn is_present(&self, party: Party) -> bool {
        self.members.get(&party).is_some_and(|state| state.present)
    }

    /// An authority has made a party known, anew if it was known before. False: the key is of no use.
    pub fn introduce(&mut self, link: u16, introduction: &Introduction, now: Instant) -> bool {
        let Some(seal) = Seal::new(introduction) else {
            return false;
        };
        let Introduction {
            number, at, epoch, ..
        } = *introduction;
        let party = Party { link, number };
        self.part(party, now);
        let key = (number, epoch);
        let state = State {
            seal,
            key,
            at,
            present: false,
            heard: None,
            presence: None,
        };
        self.members.insert(party, state);
        self.keys.insert(key, party);
        self.say_presence(party);
        let next = now + INTERVAL;
        self.tell_at = Some(self.tell_at.map_or(next, |at| at.min(next)));
        true
    }

    /// A party is not to be spoken to any more.
    pub fn part(&mut self, party: Party, now: Instant) {
        if let Some(state) = self.members.remove(&party) {
            if self.keys.get(&state.key) == Some(&party) {
                self.keys.remove(&state.key);
            }
            self.queries.gone(party);
            self.end_queries(now);
        }
        if self.members.is_empty() {
            self.tell_at = None;
        }
    }

    /// The same for all whom an authority has made known.
    pub fn part_all(&mut self, link: u16, now: Instant) {
        let all = self.members.keys().filter(|party| party.link == link);
        for party in all.copied().collect::<Vec<_>>() {
            self.part(party, now);
        }
    }

    /// How many pairs this node has, and how many of them it may use.
    pub fn have(&mut self, pairs: u64, owned: u64, now: Instant) {
        if std::mem::replace(&mut self.have, (pairs, owned)) != (pairs, owned)
            && let Some(at) = self.tell_at
        {
            let soon = self.told.map_or(now, |told| now.max(told + CHANGES));
            self.tell_at = Some(at.min(soon));
        }
    }

    /// Sends an IKE message to a party: of a client to an authority, or what the client is to get to an edge.
    ///
    /// # Errors
    /// It has to go another way: the party is not there, or the message does not go into a datagram.
    pub fn relay(&mut self, to: Party, relayed: Relayed) -> Result<(), Relayed> {
        if !self.is_present(to) {
            return Err(relayed);
        }
        let message = match to.is_authority() {
            true => Message::IkeRequest(relayed),
            false => Message::IkeResponse(relayed),
        };
        match (self.say(to, &message), message) {
            (Ok(()), _) => {
                self.tally.ike_sent += 1;
                Ok(())
            }
            (Err(_), Message::IkeRequest(relayed) | Message::IkeResponse(relayed)) => Err(relayed),
            // It is one of the two.
            (Err(_), _) => Ok(()),
        }
    }

    /// Asks all edges that are there, and that this authority has made known (none: any). [`Output::Found`] or
    /// [`Output::Lacking`] follows, unless the same was asked already.
    pub fn ask(&mut self, link: Option<u16>, what: Asked, now: Instant) {
        let edges = self.members.iter().filter(|(party, state)| {
            state.present && !party.is_authority() && link.is_none_or(|link| party.link == link)
        });
        let edges: BTreeSet<Party> = edges.map(|(party, _)| *party).collect();
        if edges.is_empty() {
            return self.lack(link, what);
        }
        let until = now + self.patience;
        match self.queries.begin(link, what, edges.clone(), until) {
            Begun::New(id) => {
                match what {
                    Asked::Spi(_) => self.tally.asked += 1,
                    Asked::Client(_) => self.tally.stations += 1,
                }
                for party in edges {
                    // Who can not be asked does not answer.
                    let _ = self.say(party, &Message::Query { id, what });
                }
            }
            Begun::Already => {}
            Begun::Full => self.lack(link, what),
        }
    }

    /// Answers what a party has asked for with what there is.
    pub fn answer(&mut self, to: Party, id: u64, mut carriers: Vec<Carrier>) {
        carriers.truncate(CARRIERS);
        while !carriers.is_empty() {
            let message = Message::Carriers { id, carriers };
            match self.say(to, &message) {
                Ok(()) => return self.tally.answered += 1,
                Err(NoMessage::TooLong { .. }) => {}
                Err(_) => return,
            }
            // What does not go into a datagram is had from the authority.
            let Message::Carriers { carriers: all, .. } = message else {
                return;
            };
            carriers = all;
            carriers.pop();
        }
        let _ = self.say(to, &Message::NotHere { id });
    }

    /// A datagram has come. `seconds` since 1970: what has expired by then is of no use.
    pub fn receive(&mut self, datagram: &[u8], now: Instant, seconds: u64) {
        let taken = self.take(datagram, now);
        let outcome = taken.and_then(|(party, message)| match may_come_from(party, &message) {
            true => {
                self.hear(party, message, now, seconds);
                Ok(())
            }
            false => Err(Refused::Unreadable),
        });
        if let Err(why) = outcome {
            self.tally.refused(why);
        }
    }

    /// Time has passed.
    pub fn poll(&mut self, now: Instant) {
        // Who has slept has not heard anybody, and can not say that they were silent.
        let slept = self.polled.is_some_and(|at| now > at + 2 * INTERVAL);
        self.polled = Some(now);
        for (party, state) in &mut self.members {
            if slept && state.present {
                state.heard = Some(now);
            }
            if state.present && state.heard.is_none_or(|at| at + ABSENT <= now) {
                state.present = false;
                self.queries.gone(*party);
            }
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            (self.told, self.tell_at) = (Some(now), Some(now + INTERVAL));
            for party in self.members.keys().copied().collect::<Vec<_>>() {
                self.say_presence(party);
            }
        }
        self.end_queries(now);
    }

    /// When [`Connectivity::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let present = self.members.values().filter(|state| state.present);
        let absent = present.filter_map(|state| Some(state.heard? + ABSENT));
        let others = [self.tell_at, self.queries.deadline()];
        absent.chain(others.into_iter().flatten()).min()
    }

    /// Whose datagram it is, and what it says.
    fn take(&mut self, datagram: &[u8], now: Instant) -> Result<(Party, Message), Refused> {
        let (header, sealed) = Header::split(datagram)?;
        let known = self.keys.get(&(header.sender, header.epoch));
        let party = *known.ok_or(Refused::Stranger)?;
        let state = self.members.get_mut(&party).ok_or(Refused::Stranger)?;
        let text = state.seal.open(header, sealed)?;
        let first = !std::mem::replace(&mut state.present, true);
        state.heard = Some(now);
        if first {
            // It may have been told of this node only now, and have missed what was said before.
            self.say_presence(party);
        }
        let message = decode(&text).map_err(|_| Refused::Unreadable)?;
        Ok((party, message))
    }

    fn hear(&mut self, from: Party, message: Message, now: Instant, seconds: u64) {
        match message {
            Message::Presence(presence) => {
                if let Some(state) = self.members.get_mut(&from) {
                    state.presence = Some(presence);
                }
            }
            Message::IkeRequest(relayed) | Message::IkeResponse(relayed) => {
                self.tally.ike_received += 1;
                self.outputs.push_back(Output::Ike { from, relayed });
            }
            Message::Query { id, what } => {
                self.outputs.push_back(Output::Asked { from, id, what });
            }
            Message::Carriers { id, mut carriers } => {
                let Some(what) = self.queries.awaits(id, from) else {
                    return self.tally.late += 1;
                };
                let all = carriers.len();
                carriers.retain(|carrier| usable(carrier, &what, seconds));
                self.tally.unusable += (all - carriers.len()) as u64;
                self.queries.answered(id, from, carriers);
                self.end_queries(now);
            }
            Message::NotHere { id } => {
                self.queries.answered(id, from, Vec::new());
                self.end_queries(now);
            }
        }
    }

    fn end_queries(&mut self, now: Instant) {
        while let Some(ended) = self.queries.ended(now) {
            let (link, what) = (ended.link, ended.what);
            if ended.carriers.is_empty() {
                self.lack(link, what);
                continue;
            }
            match what {
                Asked::Spi(_) => self.tally.found += 1,
                Asked::Client(_) => self.tally.stations_found += 1,
            }
            self.outputs.push_back(Output::Found {
                link,
                what,
                carriers: ended.carriers,
            });
        }
    }

    fn lack(&mut self, link: Option<u16>, what: Asked) {
        self.tally.lacking += u64::from(matches!(what, Asked::Spi(_)));
        self.outputs.push_back(Output::Lacking { link, what });
    }

    fn say_presence(&mut self, to: Party) {
        let (pairs, owned) = self.have;
        let presence = Presence {
            run: self.run,
            pairs,
            owned,
        };
        let _ = self.say(to, &Message::Presence(presence));
    }

    pub(super) fn say(&mut self, to: Party, message: &Message) -> Result<(), NoMessage> {
        let message = encode(message)?;
        if let Some(state) = self.members.get_mut(&to)
            && let Some(datagram) = state.seal.seal(message)
        {
            let to = state.at;
            self.outputs.push_back(Output::Send { to, datagram });
        }
        Ok(())
    }
}
