//! Machine and model live through one history under a virtual clock.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use evergate::liveness::Phase;

use super::history::{Deed, History, Takes};
use super::machine::Machine;
use super::rules::{Forks, Rules};
use super::{At, GATEWAYS, Input, Output, Policy, gateway, list, name, sorted};

/// More steps than any history takes.
const STEPS: usize = 200_000;
/// Explanations of one history that are followed at a time.
const EXPLANATIONS: usize = 64;

/// What a history came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub steps: u64,
    pub heartbeats: u64,
    pub deaths: u64,
    pub exchanges: u64,
    pub refusals: u64,
    pub changes: u64,
}

/// Where machine and model part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub at: Duration,
    /// What happened then, and who did what.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}: {}", self.at, self.what)
    }
}

/// What will happen.
#[derive(Clone, Debug)]
enum Coming {
    Deed(usize),
    /// Payload of a cluster, if its traffic is still of this number.
    Traffic(u32, u64),
    /// The answer to a heartbeat, from whoever was asked in this life of the client.
    Answer(IpAddr, u32, u64),
    /// The end of an exchange.
    Ends(IpAddr, Takes, u64),
    /// It wakes up.
    Wake,
}

struct Peer {
    answers: Option<Duration>,
    health: u8,
    takes: Takes,
}

struct Run<'a> {
    history: &'a History,
    now: At,
    policy: Policy,
    machine: Machine,
    rules: Vec<Rules>,
    coming: BTreeMap<(At, u64), Coming>,
    number: u64,
    sessions: u64,
    /// How often the client was started.
    lives: u64,
    peers: HashMap<IpAddr, Peer>,
    link: bool,
    asleep_until: At,
    late: Duration,
    traffic: BTreeMap<u32, (u64, Duration)>,
    /// The last heartbeats, of all clusters.
    beats: Vec<(IpAddr, u32)>,
    report: Report,
    trace: Option<Vec<String>>,
}

/// Compares machine and model over a history.
///
/// # Errors
/// The first disagreement.
pub fn check(history: &History) -> Result<Report, Broken> {
    Run::new(history, None)?.through().map(|run| run.report)
}

/// The same, and all that happened, a line each.
pub fn traced(history: &History) -> (Vec<String>, Result<Report, Broken>) {
    let mut run = match Run::new(history, Some(Vec::new())) {
        Ok(run) => run,
        Err(broken) => return (Vec::new(), Err(broken)),
    };
    let result = run.go();
    (run.trace.unwrap_or_default(), result.map(|()| run.report))
}

impl<'a> Run<'a> {
    fn new(history: &'a History, trace: Option<Vec<String>>) -> Result<Run<'a>, Broken> {
        let policy = history.policy.clone();
        let machine = Machine::new(history.pace, &policy, history.seed, true, At::ZERO);
        let peers = (0..GATEWAYS).map(gateway).map(|at| {
            let peer = Peer {
                answers: Some(Duration::from_millis(1)),
                health: 0,
                takes: Takes::Yes(Duration::from_millis(10)),
            };
            (at, peer)
        });
        let mut run = Run {
            history,
            now: At::ZERO,
            policy,
            machine,
            rules: Vec::new(),
            coming: BTreeMap::new(),
            number: 0,
            sessions: 0,
            lives: 0,
            peers: peers.collect(),
            link: true,
            asleep_until: At::ZERO,
            late: Duration::ZERO,
            traffic: BTreeMap::new(),
            beats: Vec::new(),
            report: Report::default(),
            trace,
        };
        let mut at = At::ZERO;
        for (index, (gap, _)) in history.deeds.iter().enumerate() {
            at += *gap;
            run.plan(at, Coming::Deed(index));
        }
        run.begin()?;
        Ok(run)
    }

    fn plan(&mut self, at: At, coming: Coming) {
        self.number += 1;
        self.coming.insert((at, self.number), coming);
    }

    fn through(mut self) -> Result<Run<'a>, Broken> {
        self.go()?;
        Ok(self)
    }

    fn go(&mut self) -> Result<(), Broken> {
        let deeds: Duration = self.history.deeds.iter().map(|(gap, _)| *gap).sum();
        let end = deeds + self.history.rest;
        for _ in 0..STEPS {
            let timers = self
                .rules
                .iter()
                .filter_map(Rules::due)
                .chain(self.machine.deadline());
            let timer = timers
                .min()
                .map(|at| (at + self.late).max(self.asleep_until));
            let first = self
                .coming
                .keys()
                .next()
                .map(|(at, _)| (*at).max(self.asleep_until));
            let Some(next) = timer
                .into_iter()
                .chain(first)
                .min()
                .filter(|next| *next <= end)
            else {
                return Ok(());
            };
            self.now = self.now.max(next);
            self.report.steps += 1;
            let mut told = false;
            while let Some(entry) = self.coming.first_entry() {
                if entry.key().0 > self.now || self.asleep_until > self.now {
                    break;
                }
                told = true;
                let coming = entry.remove();
                self.take(coming)?;
            }
            if self.asleep_until <= self.now {
                self.look(told)?;
            }
        }
        Err(self.broken("it spins".to_owned()))
    }

    fn broken(&self, what: String) -> Broken {
        Broken { at: self.now, what }
    }

    /// The client starts, with nothing that it knew before.
    fn begin(&mut self) -> Result<(), Broken> {
        self.lives += 1;
        self.beats.clear();
        let (history, at) = (self.history, self.now);
        let seed = history.seed.wrapping_add(self.lives);
        self.machine = Machine::new(history.pace, &self.policy, seed, self.link, at);
        let seen = self.machine.seen();
        let (policy, link) = (self.policy.clone(), self.link);
        let mut rules = Rules::new(history.pace, &policy, link, at, &seen);
        rules.note_shortages();
        self.rules = vec![rules];
        let said = vec![self.rules[0].said()];
        self.compare("the start", &seen, said)
    }

    fn take(&mut self, coming: Coming) -> Result<(), Broken> {
        match coming {
            Coming::Deed(index) => {
                let (_, deed) = &self.history.deeds[index];
                self.perform(&deed.clone())
            }
            Coming::Traffic(cluster, number) => {
                let Some((of, every)) = self.traffic.get(&cluster).copied() else {
                    return Ok(());
                };
                if of != number || every.is_zero() {
                    return Ok(());
                }
                self.plan(self.now + every, Coming::Traffic(cluster, number));
                self.feed(&Input::Payload(cluster))
            }
            Coming::Answer(from, number, life) if life == self.lives && self.link => {
                let health = self.peers.get(&from).map_or(0, |peer| peer.health);
                self.feed(&Input::Answer {
                    gateway: from,
                    number,
                    health,
                })
            }
            Coming::Ends(with, how, life) if life == self.lives => match how {
                Takes::Yes(_) if self.link => {
                    self.sessions += 1;
                    self.feed(&Input::Made(with, self.sessions))
                }
                Takes::Yes(_) | Takes::No(_) => self.feed(&Input::Failed(with, None)),
                Takes::Names(_, to) => self.feed(&Input::Failed(with, self.link.then_some(to))),
            },
            Coming::Answer(..) | Coming::Ends(..) | Coming::Wake => Ok(()),
        }
    }

    fn perform(&mut self, deed: &Deed) -> Result<(), Broken> {
        match *deed {
            Deed::Payload(cluster) => return self.feed(&Input::Payload(cluster)),
            Deed::Traffic(cluster, every) => {
                let number = self
                    .traffic
                    .get(&cluster)
                    .map_or(0, |(number, _)| number + 1);
                self.traffic.insert(cluster, (number, every));
                self.plan(self.now + every, Coming::Traffic(cluster, number));
            }
            Deed::Speaks(from) if self.link && self.machine.session(from).is_some() => {
                return self.feed(&Input::Heard(from));
            }
            Deed::Answers(who, after) => {
                self.peers
                    .entry(who)
                    .and_modify(|peer| peer.answers = after);
            }
            Deed::Health(who, health) => {
                self.peers
                    .entry(who)
                    .and_modify(|peer| peer.health = health);
            }
            Deed::Takes(who, takes) => {
                self.peers.entry(who).and_modify(|peer| peer.takes = takes);
            }
            Deed::Initiates(who) if self.link => {
                self.sessions += 1;
                return self.feed(&Input::Initiated(who, self.sessions));
            }
            Deed::Ends(who) if self.machine.session(who).is_some() => {
                return self.feed(&Input::Ended(who));
            }
            Deed::Repeats(who, back) if self.link => {
                let of_it: Vec<u32> = self
                    .beats
                    .iter()
                    .filter(|(to, _)| *to == who)
                    .map(|(_, n)| *n)
                    .collect();
                let nth = of_it.len().checked_sub(back as usize + 1);
                if let Some(number) = nth.and_then(|nth| of_it.get(nth).copied()) {
                    let health = self.peers.get(&who).map_or(0, |peer| peer.health);
                    return self.feed(&Input::Answer {
                        gateway: who,
                        number,
                        health,
                    });
                }
            }
            Deed::Link(up) => {
                self.link = up;
                return self.feed(&Input::Link(up));
            }
            Deed::Moved => return self.feed(&Input::Moved),
            Deed::Refresh(who) => return self.feed(&Input::Refresh(who)),
            Deed::Reload(ref policy) => {
                self.policy = policy.clone();
                return self.feed(&Input::Reload(policy.clone()));
            }
            Deed::Restart => return self.begin(),
            Deed::Sleep(long) => {
                self.asleep_until = self.asleep_until.max(self.now + long);
                self.plan(self.asleep_until, Coming::Wake);
            }
            Deed::Late(late) => self.late = late,
            Deed::Speaks(_) | Deed::Initiates(_) | Deed::Ends(_) | Deed::Repeats(..) => {}
        }
        Ok(())
    }

    fn feed(&mut self, input: &Input) -> Result<(), Broken> {
        self.machine.feed(input, self.now);
        let seen = self.machine.seen();
        let at = self.now;
        let said = self.explain(&seen, |rules| rules.feed(input, at, &seen));
        self.compare(&input.to_string(), &seen, said)
    }

    fn look(&mut self, told: bool) -> Result<(), Broken> {
        // A deadline that the machine does not have must not be met by chance.
        if told || self.machine.deadline().is_some_and(|at| at <= self.now) {
            self.machine.look(self.now);
        }
        let seen = self.machine.seen();
        let at = self.now;
        let said = self.explain(&seen, |rules| rules.look(at, &seen));
        self.compare("time", &seen, said)
    }

    /// All that the model may do, with what it knows then.
    fn explain(&mut self, seen: &[Output], step: impl Fn(&mut Rules)) -> Vec<Vec<Output>> {
        let mut all = Vec::new();
        let mut said = Vec::new();
        for mut rules in std::mem::take(&mut self.rules) {
            if !rules.doubtful(self.now, seen) {
                step(&mut rules);
                said.push(rules.said());
                all.push(rules);
                continue;
            }
            let mut taken = Vec::new();
            loop {
                let mut way = rules.clone();
                way.forks = Forks::of(taken);
                step(&mut way);
                taken = std::mem::take(&mut way.forks).taken;
                said.push(way.said());
                all.push(way);
                while taken.last() == Some(&true) {
                    taken.pop();
                }
                match taken.last_mut() {
                    Some(last) => *last = true,
                    None => break,
                }
            }
        }
        self.rules = all;
        said
    }

    fn compare(
        &mut self,
        why: &str,
        seen: &[Output],
        said: Vec<Vec<Output>>,
    ) -> Result<(), Broken> {
        if let Some(trace) = &mut self.trace
            && !(seen.is_empty()
                && ["time", "payload"]
                    .iter()
                    .any(|usual| why.starts_with(usual)))
        {
            trace.push(format!("{:>14?}  {why}: {}", self.now, list(seen)));
        }
        let seen = sorted(seen);
        let mut wrong = None;
        let mut kept = Vec::new();
        for (rules, said) in std::mem::take(&mut self.rules).into_iter().zip(said) {
            let said = sorted(&said);
            if said != seen {
                let (seen, said) = (list(&seen), list(&said));
                wrong.get_or_insert(format!(
                    "after {why}\n  the machine: {seen}\n  the model:   {said}"
                ));
            } else if let Some(other) = self.differs(&rules) {
                wrong.get_or_insert(format!("after {why}: {other}"));
            } else if !kept.contains(&rules) {
                kept.push(rules);
            }
        }
        if kept.is_empty() {
            return Err(self.broken(wrong.unwrap_or_default()));
        }
        if kept.len() > EXPLANATIONS {
            return Err(self.broken("too many explanations".to_owned()));
        }
        self.rules = kept;
        for output in &seen {
            self.react(output);
        }
        Ok(())
    }

    /// What both know.
    fn differs(&self, rules: &Rules) -> Option<String> {
        for at in (0..GATEWAYS).map(gateway) {
            let (machine, model) = (self.machine.session(at), rules.session(at));
            if machine != model {
                let name = name(at);
                return Some(format!(
                    "the session with {name}: machine {machine:?}, model {model:?}"
                ));
            }
        }
        let rounds = |phase: Phase| match phase.has_active() && !self.link {
            // Nothing is judged without a link.
            true => Phase::Hearing,
            false => phase,
        };
        let machine = self
            .machine
            .phases()
            .map(|(n, phase, active)| (n, rounds(phase), active));
        let model = rules.phases();
        let model = model
            .into_iter()
            .map(|(n, phase, active)| (n, rounds(phase), active));
        let mut pairs = machine.zip(model);
        let (machine, model) = pairs.find(|(machine, model)| machine != model)?;
        let word = |(number, phase, active): (u32, Phase, Option<IpAddr>)| {
            format!("{number} is {}, {:?}", phase.word(), active.map(name))
        };
        Some(format!(
            "machine: {}; model: {}",
            word(machine),
            word(model)
        ))
    }

    /// What a gateway makes of what the client does.
    fn react(&mut self, output: &Output) {
        let life = self.lives;
        match *output {
            Output::Beat(_, to, number) => {
                self.report.heartbeats += 1;
                self.beats.push((to, number));
                if self.beats.len() > 64 {
                    self.beats.remove(0);
                }
                if let Some(after) = self.peers.get(&to).and_then(|peer| peer.answers)
                    && self.link
                {
                    self.plan(self.now + after, Coming::Answer(to, number, life));
                }
            }
            Output::Exchange(with) => {
                self.report.exchanges += 1;
                let takes = self.peers.get(&with).map(|peer| peer.takes);
                let takes = takes.unwrap_or(Takes::No(Duration::from_millis(1)));
                let (Takes::Yes(after) | Takes::No(after) | Takes::Names(after, _)) = takes;
                self.plan(self.now + after, Coming::Ends(with, takes, life));
            }
            Output::Dead(..) => self.report.deaths += 1,
            Output::Refused(..) => self.report.refusals += 1,
            Output::Active(..) => self.report.changes += 1,
            Output::Dropped(..) => {}
        }
    }
}
