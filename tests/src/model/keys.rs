//! Key requests, back-off, standby, and sessions made anew.

use std::net::IpAddr;

use super::facts::{Payload, Request, Shortage, Span, Wait};
use super::rules::Rules;
use super::{At, Output};

impl Rules {
    /// How many exchanges with a gateway the machine has begun now that are not explained yet.
    fn begun(&self, gateway: IpAddr) -> bool {
        let count = |list: &[Output]| {
            list.iter()
                .filter(|o| **o == Output::Exchange(gateway))
                .count()
        };
        count(&self.seen) > count(&self.said)
    }

    /// S25: one exchange at a time with a gateway; a second request shares it.
    fn exchange(&mut self, gateway: IpAddr) {
        let entry = self.gateways.entry(gateway).or_default();
        if !std::mem::replace(&mut entry.exchange, true) {
            self.say(Output::Exchange(gateway));
        }
    }

    /// In order, the first keyed gateway that is not the one to go on from (S22).
    fn keyed_other(&self, c: usize, after: Option<IpAddr>) -> Option<IpAddr> {
        let round = self.clusters[c].round_from(after);
        round
            .into_iter()
            .find(|gateway| Some(*gateway) != after && self.keyed(*gateway))
    }

    /// A key is asked for; there is one request at a time (S19).
    pub(super) fn ask(&mut self, c: usize, after: Option<IpAddr>) {
        let other = self.keyed_other(c, after);
        let (now, cluster) = (self.now, &mut self.clusters[c]);
        if cluster.request.is_some() {
            return;
        }
        match &mut cluster.wait {
            // S24: it is kept until then.
            Some(wait) if now < wait.until && other.is_none() => wait.again = Some(after),
            _ => self.start(c, after),
        }
    }

    fn start(&mut self, c: usize, after: Option<IpAddr>) {
        let (now, forgiven) = (self.now, self.pace.cap * 2);
        let cluster = &mut self.clusters[c];
        // S24: after twice the longest wait the doubling begins anew.
        if cluster
            .rejected
            .last()
            .is_some_and(|at| now - *at > forgiven)
        {
            cluster.rejected.clear();
        }
        cluster.wait = None;
        cluster.request = Some(Request {
            after,
            with: None,
            tried: Vec::new(),
        });
        match self.keyed_other(c, after) {
            Some(gateway) => self.grant(c, gateway),
            None => self.go_on(c),
        }
    }

    /// S20: the next in order that was not asked yet, the one that was named before all (S30), none that
    /// is passed over (S29).
    fn go_on(&mut self, c: usize) {
        let named = self.clusters[c].named.take();
        let Some(request) = self.clusters[c].request.clone() else {
            return;
        };
        let named = named.filter(|gateway| self.clusters[c].has(*gateway));
        let round = self.clusters[c].round_from(request.after);
        let mut passed: Vec<(IpAddr, Span)> = Vec::new();
        for gateway in named.into_iter().chain(round) {
            if self.keyed(gateway) || request.tried.contains(&gateway) {
                continue;
            }
            if let Some(span) = self.damped(gateway) {
                if passed.iter().all(|(known, _)| *known != gateway) {
                    passed.push((gateway, span));
                }
                continue;
            }
            if let Some(request) = &mut self.clusters[c].request {
                request.with = Some(gateway);
            }
            self.exchange(gateway);
            return;
        }
        self.refuse(c, request, &passed);
    }

    /// S29: until when a gateway is passed over now.
    fn damped(&mut self, gateway: IpAddr) -> Option<Span> {
        let (now, pace) = (self.now, self.pace);
        let span = self.gateways.get(&gateway)?.damping(self.pace)?;
        if now >= span.high {
            return None;
        }
        if now >= span.low {
            let exchange = self
                .gateways
                .get(&gateway)
                .is_some_and(|entry| entry.exchange);
            // Whether it was asked can not be told where an exchange with it runs or begins besides.
            let over = (exchange || self.begun(gateway)) && self.forks.next();
            self.gateways
                .entry(gateway)
                .or_default()
                .show_damping(pace, now, over);
            if over {
                return None;
            }
        }
        self.gateways.get(&gateway)?.damping(self.pace)
    }

    /// S23: nobody is left to be asked.
    fn refuse(&mut self, c: usize, request: Request, passed: &[(IpAddr, Span)]) {
        let (now, pace) = (self.now, self.pace);
        let number = self.clusters[c].number;
        let Request {
            after, mut tried, ..
        } = request;
        let order = self.clusters[c].order.clone();
        tried.extend(
            order
                .iter()
                .filter(|gateway| passed.iter().any(|(known, _)| known == *gateway)),
        );
        let mut bounds = Span::wait(pace, self.clusters[c].rejected.len() + 1, now);
        for (_, span) in passed {
            bounds.low = bounds.low.min(span.low);
            bounds.high = bounds.high.min(span.high);
        }
        let of_it = |output: &&Output| matches!(output, Output::Refused(of, ..) if *of == number);
        let said = self.said.iter().filter(of_it).count();
        let until = match self.seen.iter().filter(of_it).nth(said) {
            Some(Output::Refused(_, _, until)) => (*until).clamp(bounds.low, bounds.high),
            _ => bounds.high,
        };
        // S24: without a key it is made again by itself.
        let keyless = !order.is_empty() && !order.iter().any(|gateway| self.keyed(*gateway));
        let cluster = &mut self.clusters[c];
        cluster.rejected.push(now);
        cluster.request = None;
        cluster.wait = Some(Wait {
            until,
            again: keyless.then_some(after),
        });
        // S21.
        let told = matches!(cluster.payload, Payload::Waits | Payload::Refused);
        let lost = cluster.lost;
        if cluster.active.is_none() && told {
            cluster.payload = Payload::RefusedAsks;
        }
        self.say(Output::Refused(number, tried, until));
        if self.clusters[c].active.is_none() && told && self.instant() {
            self.clusters[c].payload = Payload::Refused;
            self.ask(c, lost);
        }
    }

    /// A request is over (S20, S22): that gateway is keyed.
    fn grant(&mut self, c: usize, gateway: IpAddr) {
        self.no_request(c);
        self.clusters[c].named = None;
        self.offer(c, gateway);
    }

    fn no_request(&mut self, c: usize) {
        let cluster = &mut self.clusters[c];
        cluster.request = None;
        cluster.wait = None;
        cluster.rejected.clear();
    }

    /// A session was made: it answers a request, and ends a wait (S24); but not for a request that is to
    /// get away from that very gateway, if it was keyed before (S22).
    pub(super) fn answer_request(&mut self, c: usize, gateway: IpAddr, keyed_before: bool) {
        let cluster = &self.clusters[c];
        let after = match (&cluster.request, &cluster.wait) {
            (Some(request), _) => Some(request.after),
            (None, Some(wait)) => wait.again,
            (None, None) => return,
        };
        match after {
            Some(after) if after != Some(gateway) || !keyed_before => self.grant(c, gateway),
            None if !keyed_before => self.no_request(c),
            _ => {}
        }
    }

    /// S20, S26: an exchange failed; requests that waited for it go on.
    pub(super) fn failed(&mut self, gateway: IpAddr, to: Option<IpAddr>) {
        let now = self.now;
        let asked = |with: Option<IpAddr>| with == Some(gateway);
        let waiting: Vec<usize> = (0..self.clusters.len())
            .filter(|c| {
                self.clusters[*c]
                    .request
                    .as_ref()
                    .is_some_and(|r| asked(r.with))
            })
            .collect();
        if let Some(to) = to
            && to != gateway
            && !waiting.is_empty()
        {
            // S30.
            let both = |known: &&mut super::facts::Cluster| known.has(gateway) && known.has(to);
            self.clusters
                .iter_mut()
                .filter(both)
                .for_each(|known| known.named = Some(to));
        }
        let listed = self.policy.lists(gateway);
        let Some(entry) = self.gateways.get_mut(&gateway) else {
            return;
        };
        entry.exchange = false;
        if !entry.keyed() && listed {
            entry.blame(now);
        }
        if let Some((_, failures)) = &mut entry.refresh {
            failures.push(now);
        }
        for c in waiting {
            if let Some(request) = &mut self.clusters[c].request {
                request.tried.push(gateway);
            }
            self.go_on(c);
        }
    }

    /// S36: a keyed gateway's session is made anew.
    pub(super) fn refresh(&mut self, gateway: IpAddr) {
        let now = self.now;
        if let Some(entry) = self.gateways.get_mut(&gateway)
            && entry.keyed()
        {
            entry.refresh = Some((now, Vec::new()));
            self.exchange(gateway);
        }
        // Others may be due, too.
        self.look_at_refreshes(false);
    }

    fn look_at_refreshes(&mut self, must: bool) {
        for gateway in self.gateways.keys().copied().collect::<Vec<_>>() {
            let entry = &self.gateways[&gateway];
            if let Some(span) = entry.refresh_at(self.pace)
                && !entry.exchange
                && self.now >= span.low
                && (self.begun(gateway) || must && self.now >= span.high)
            {
                self.exchange(gateway);
            }
        }
    }

    /// S35: requests under way go on with the new lists.
    pub(super) fn requests_after_reload(&mut self) {
        for c in 0..self.clusters.len() {
            let Some(request) = self.clusters[c].request.clone() else {
                continue;
            };
            if let Some(gateway) = self.keyed_other(c, request.after) {
                self.grant(c, gateway);
            } else if request.with.is_none_or(|with| !self.clusters[c].has(with)) {
                self.go_on(c);
            }
        }
        // It looks at what is due, too. How long a standby may take is counted from now on.
        self.clusters
            .iter_mut()
            .for_each(|cluster| cluster.short = None);
        self.note_shortages();
        self.look_at_keys();
    }

    fn start_again(&mut self) {
        for c in 0..self.clusters.len() {
            if let Some(Wait {
                until,
                again: Some(after),
            }) = self.clusters[c].wait
                && until <= self.now
            {
                self.start(c, after);
            }
        }
    }

    pub(super) fn look_at_keys(&mut self) {
        self.start_again();
        self.look_at_refreshes(true);
        for c in 0..self.clusters.len() {
            self.look_at_standby(c);
        }
    }

    /// What is missing, if a cluster may look for a standby now (S26): a gateway is in use, fewer are
    /// keyed beside it than should be, and no exchange with any of them runs.
    fn shortage(&self, c: usize) -> Option<Shortage> {
        let cluster = &self.clusters[c];
        let active = cluster.active.filter(|active| cluster.has(*active))?;
        let entry = |gateway: &IpAddr| self.gateways.get(gateway);
        let busy = cluster
            .order
            .iter()
            .any(|g| entry(g).is_some_and(|entry| entry.exchange));
        let beside = |gateway: &&IpAddr| **gateway != active && self.keyed(**gateway);
        let spare = cluster.order.iter().filter(beside).count();
        if busy || cluster.request.is_some() || spare >= self.policy.standby {
            return None;
        }
        let round = cluster.round_from(Some(active)).into_iter();
        let unkeyed = round.filter(|gateway| !self.keyed(*gateway));
        let unkeyed = unkeyed.map(|g| (g, entry(&g).and_then(|e| e.blames.last().copied())));
        let unkeyed: Vec<_> = unkeyed.collect();
        (!unkeyed.is_empty()).then_some(Shortage { active, unkeyed })
    }

    /// Since when the shortage is as it is.
    pub(super) fn note_shortages(&mut self) {
        for c in 0..self.clusters.len() {
            let short = self.shortage(c);
            let known = &mut self.clusters[c].short;
            if known.as_ref().map(|(_, short)| short) != short.as_ref() {
                *known = short.map(|short| (self.now, short));
            }
        }
    }

    fn hold(&self, gateway: IpAddr) -> Span {
        let nothing = Span {
            low: At::ZERO,
            high: At::ZERO,
        };
        self.gateways
            .get(&gateway)
            .map_or(nothing, |entry| entry.hold(self.pace))
    }

    /// S27: when a standby exchange has to have begun: within the first wait after both the shortage
    /// and the shortest hold.
    fn standby_due(&self, c: usize) -> Option<At> {
        let (since, short) = self.clusters[c].short.as_ref()?;
        let held = short
            .unkeyed
            .iter()
            .map(|(gateway, _)| self.hold(*gateway).high)
            .min()?;
        Some(held.max(*since) + self.pace.first)
    }

    /// S26, S28: the first in order that is not held down.
    fn look_at_standby(&mut self, c: usize) {
        let Some(short) = self.shortage(c) else {
            return;
        };
        let (now, pace) = (self.now, self.pace);
        let spans = short
            .unkeyed
            .iter()
            .map(|(gateway, _)| (*gateway, self.hold(*gateway)));
        let spans: Vec<(IpAddr, Span)> = spans.filter(|(_, span)| now >= span.low).collect();
        let must = self.standby_due(c).is_some_and(|due| due <= now);
        for (at, (gateway, span)) in spans.iter().enumerate() {
            let free = now >= span.high;
            // An exchange that is seen may also be that of a request that follows.
            if self.begun(*gateway) && self.forks.next() || free && must {
                self.gateways
                    .entry(*gateway)
                    .or_default()
                    .show_hold(pace, now, true);
                for (held, _) in &spans[..at] {
                    self.gateways
                        .entry(*held)
                        .or_default()
                        .show_hold(pace, now, false);
                }
                return self.exchange(*gateway);
            }
            if free {
                return;
            }
        }
    }

    pub(super) fn keys_due(&self) -> Option<At> {
        let waits = self.clusters.iter().filter_map(|cluster| cluster.wait);
        let waits = waits.filter_map(|wait| wait.again.map(|_| wait.until));
        let standby = (0..self.clusters.len()).filter_map(|c| self.standby_due(c));
        let idle = self.gateways.values().filter(|entry| !entry.exchange);
        let anew = idle
            .filter_map(|entry| entry.refresh_at(self.pace))
            .map(|span| span.high);
        waits.chain(standby).chain(anew).min()
    }
}
