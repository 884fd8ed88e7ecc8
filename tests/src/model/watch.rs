//! Silence, heartbeats and verdicts.

use std::net::IpAddr;
use std::time::Duration;

use evergate::policy::HeartbeatMode;

use super::facts::Cluster;
use super::rules::Rules;
use super::{At, Output};

/// How far a round of heartbeats has come.
pub(super) struct Stage {
    /// 0, or the first or the second is unanswered.
    pub(super) heartbeats: u32,
    /// How often one was sent again because we were late.
    again: u32,
    last: At,
}

impl Rules {
    /// Reads a round off its heartbeats (S14, S15).
    pub(super) fn stage(&self, cluster: &Cluster) -> Stage {
        let mut stage = Stage {
            heartbeats: 0,
            again: 0,
            last: At::ZERO,
        };
        for (at, _) in &cluster.beats[cluster.round..] {
            if stage.heartbeats > 0 && self.is_too_late(&stage, *at) {
                stage.again += 1;
            } else {
                stage.heartbeats += 1;
            }
            stage.last = *at;
        }
        stage
    }

    /// S15: more than half a response time after its end, and at least 2 ms; twice in a round.
    fn is_too_late(&self, stage: &Stage, at: At) -> bool {
        let response = self.policy.response;
        let tolerated = (response / 2).max(Duration::from_millis(2));
        at.saturating_sub(stage.last + response) > tolerated && stage.again < 2
    }

    /// When the active gateway has been silent for long enough (S9, S10).
    fn silent_at(&self, cluster: &Cluster) -> Option<At> {
        let active = cluster.active?;
        let heard = cluster.heard_last(active).unwrap_or_default();
        let from = heard.max(cluster.active_from).max(cluster.fresh);
        (self.policy.mode != HeartbeatMode::None && self.link).then(|| from + self.policy.defer)
    }

    /// DEFERRED, and the heartbeat waits for payload.
    pub(super) fn is_waiting(&self, cluster: &Cluster) -> bool {
        let silent = self.silent_at(cluster).is_some_and(|at| at <= self.looked);
        silent && self.policy.mode == HeartbeatMode::Deferred && self.stage(cluster).heartbeats == 0
    }

    pub(super) fn silence_due(&self, cluster: &Cluster) -> Option<At> {
        let silent = self.silent_at(cluster)?;
        let stage = self.stage(cluster);
        match stage.heartbeats {
            0 => (silent > self.looked).then_some(silent),
            _ => Some(stage.last + self.policy.response),
        }
    }

    pub(super) fn look_at_silence(&mut self, c: usize) {
        let cluster = &self.clusters[c];
        let (Some(silent), Some(active)) = (self.silent_at(cluster), cluster.active) else {
            return;
        };
        let stage = self.stage(cluster);
        if stage.heartbeats == 0 {
            // S10, S11.
            let used = cluster.sent.last().is_some_and(|sent| *sent >= silent);
            if silent <= self.now && (self.instant() || used) {
                self.beat(c);
            }
        } else if self.now >= stage.last + self.policy.response {
            // S14, S15.
            if stage.heartbeats == 1 || self.is_too_late(&stage, self.now) {
                self.beat(c);
            } else {
                self.dead(c, active);
            }
        }
    }

    pub(super) fn beat(&mut self, c: usize) {
        let now = self.now;
        let cluster = &mut self.clusters[c];
        if let Some(active) = cluster.active {
            cluster.beats.push((now, active));
            let count = u32::try_from(cluster.beats.len()).unwrap_or(u32::MAX);
            let number = cluster.number;
            self.say(Output::Beat(number, active, count));
        }
    }

    /// S14: its key is removed, for every cluster.
    fn dead(&mut self, c: usize, gateway: IpAddr) {
        self.say(Output::Dead(self.clusters[c].number, gateway));
        if let Some(session) = self.session(gateway) {
            self.say(Output::Dropped(gateway, session));
        }
        self.lost(gateway, Some(c));
    }

    /// S12: whatever a session protects is a sign of life.
    pub(super) fn heard(&mut self, gateway: IpAddr) {
        for c in 0..self.clusters.len() {
            self.heard_by(c, gateway);
        }
    }

    pub(super) fn heard_by(&mut self, c: usize, gateway: IpAddr) {
        let cluster = &mut self.clusters[c];
        if cluster.has(gateway) {
            cluster.heard.push((self.now, gateway));
            if cluster.active == Some(gateway) {
                cluster.round = cluster.beats.len();
            }
        }
    }

    /// S13: one of the last four heartbeats, once, of a session that is still there.
    pub(super) fn answered(&mut self, gateway: IpAddr, number: u32, health: u8) {
        if !self.keyed(gateway) {
            return;
        }
        for c in 0..self.clusters.len() {
            let cluster = &self.clusters[c];
            let at = number as usize;
            let known = at > 0
                && at + 4 > cluster.beats.len()
                && cluster
                    .beats
                    .get(at - 1)
                    .is_some_and(|(_, to)| *to == gateway)
                && !cluster.answered.contains(&number)
                && !cluster
                    .gone
                    .iter()
                    .any(|(who, sent)| *who == gateway && at <= *sent);
            if !known {
                continue;
            }
            self.clusters[c].answered.push(number);
            self.clusters[c].health.push((self.now, gateway, health));
            self.heard_by(c, gateway);
            if self.clusters[c].active == Some(gateway) && health != 0 {
                self.move_away(c, gateway);
            }
        }
    }

    /// The active gateway would rather be left: for the next keyed one that is well (S17), else a key
    /// is asked for, and it stays in use (S18).
    fn move_away(&mut self, c: usize, gateway: IpAddr) {
        let mut others = self.clusters[c].round_from(Some(gateway));
        others.retain(|other| *other != gateway);
        let well =
            |other: &IpAddr| self.keyed(*other) && !self.clusters[c].unwell(*other, self.now);
        match others.iter().copied().find(well) {
            Some(next) => self.activate(c, next),
            None if !self.is_open(c) => {
                self.clusters[c].lost = Some(gateway);
                self.ask(c, Some(gateway));
            }
            None => {}
        }
    }

    /// S16: silence is counted from now on.
    pub(super) fn fresh(&mut self) {
        for c in 0..self.clusters.len() {
            self.fresh_for(c);
        }
    }

    pub(super) fn fresh_for(&mut self, c: usize) {
        let cluster = &mut self.clusters[c];
        if cluster.active.is_some() {
            cluster.fresh = self.now;
            cluster.round = cluster.beats.len();
        }
    }

    /// S8: nothing has been sent into the tunnel or heard from its gateway for a minute.
    pub(super) fn is_idle(&self, c: usize, gateway: IpAddr) -> bool {
        let cluster = &self.clusters[c];
        let last = cluster
            .sent
            .last()
            .copied()
            .max(cluster.heard_last(gateway));
        let lately = last.is_some_and(|at| self.now.saturating_sub(at) < Duration::from_secs(60));
        !self.instant() && !lately
    }
}
