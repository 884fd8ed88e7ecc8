//! A client's watch over its gateways: what the [`Monitor`](crate::liveness::Monitor) of a group
//! wants done, and sessions coming and going.

use std::net::IpAddr;
use std::time::Instant;

use evergate_common::heartbeat;
use evergate_common::reason::Counter;
use rand::RngExt;

use super::command::WorkerEvent;
use super::core::{Core, Way, counter};
use super::handover::Note;
use super::opening::prepend;
use super::xsk::{Frame, HEADROOM, Umem};
use crate::esp::Marks;
use crate::liveness::{Action, Phase};
use crate::policy::HeartbeatForm;

/// Bytes of a heartbeat of the plain form: as many as the keyed form has.
const PLAIN_LEN: usize = heartbeat::KEYED_LEN;

/// Bytes of the dummy packet that tells a gateway that its client is here now.
const DUMMY_LEN: usize = 32;

impl Core {
    /// Tells the monitors what was seen and sent, lets them judge by what had come up to `drained`, and
    /// does what they want. Another worker than the first has no monitors, and tells that one.
    pub(super) fn watch(&mut self, umem: &mut Umem, now: Instant, drained: Option<Instant>) {
        if !self.is_first() {
            return self.give_signs(now);
        }
        while let Some(index) = self.heard.pop() {
            let Some(session) = self.sessions.get_mut(index) else {
                continue;
            };
            session.heard = false;
            let Some(gateway) = session.spec.gateway else {
                continue;
            };
            self.each_monitor(|monitor| monitor.on_heard(gateway, now));
        }
        for at in 0..self.groups.watched().len() {
            let Some(&group) = self.groups.watched().get(at) else {
                break;
            };
            let Some(state) = self.groups.get_mut(group) else {
                continue;
            };
            let sent = std::mem::take(&mut state.sent);
            let Some(monitor) = state.monitor_mut() else {
                continue;
            };
            if sent {
                monitor.on_sent(now);
            }
            // What had come by then is known; the time is now all the same.
            let known = |at| drained.is_some_and(|drained| at <= drained);
            if monitor.next_deadline().is_some_and(|(at, _)| known(at)) {
                monitor.poll(now);
            }
            self.obey(group, umem, now);
        }
    }

    pub(super) fn each_monitor(&mut self, mut tell: impl FnMut(&mut crate::liveness::Monitor)) {
        for at in 0..self.groups.watched().len() {
            let Some(&group) = self.groups.watched().get(at) else {
                break;
            };
            if let Some(monitor) = self.groups.get_mut(group).and_then(|g| g.monitor_mut()) {
                tell(monitor);
            }
        }
    }

    /// Carries out what the monitor of a group wants.
    fn obey(&mut self, group: usize, umem: &mut Umem, now: Instant) {
        loop {
            let Some(state) = self.groups.get_mut(group) else {
                return;
            };
            let id = state.id;
            let Some(action) = state.monitor_mut().and_then(|m| m.next_action()) else {
                return;
            };
            match action {
                Action::Heartbeat { gateway, counter } => {
                    if state
                        .rare()
                        .monitor
                        .as_ref()
                        .is_some_and(|m| m.phase() == Phase::Second)
                    {
                        self.send_event(WorkerEvent::HeartbeatLost { group: id, gateway });
                    }
                    self.send_heartbeat(group, gateway, counter, umem);
                }
                Action::Activate { gateway } => self.activate(group, gateway, umem, now),
                Action::Inactive => {
                    state.active = None;
                    let rare = state.rare_mut();
                    (rare.using, rare.lane) = (None, None);
                    self.tell_all(Note::Use(id, None));
                    self.send_event(WorkerEvent::Active {
                        group: id,
                        gateway: None,
                    });
                }
                Action::Dead {
                    gateway,
                    silent_for,
                } => {
                    self.send_event(WorkerEvent::Dead {
                        group: id,
                        gateway,
                        silent_for,
                    });
                }
                Action::RequestKey { after } => {
                    state.asked = true;
                    self.send_event(WorkerEvent::KeyRequest { group: id, after });
                }
                Action::Health { gateway, health } => {
                    self.send_event(WorkerEvent::Health {
                        group: id,
                        gateway,
                        health,
                    });
                }
            }
        }
    }

    /// Traffic of a group goes through this gateway from now on; the gateway learns of it by a
    /// dummy packet, even if there is nothing to say.
    fn activate(&mut self, group: usize, gateway: IpAddr, umem: &mut Umem, now: Instant) {
        let Some(index) = self.sessions.by_gateway(gateway) else {
            return;
        };
        let Some(session) = self.sessions.get(index) else {
            return;
        };
        let session = session.spec.id;
        let Some(state) = self.groups.get_mut(group) else {
            return;
        };
        state.active = Some(session);
        state.admit();
        state.rare_mut().using = Some(gateway);
        let id = state.id;
        self.settle_lane(group);
        self.tell_all(Note::Use(id, Some(gateway)));
        self.send_dummy(index, umem);
        self.probe_path(group, now);
        self.send_held(group, umem, now);
        self.send_event(WorkerEvent::Active {
            group: id,
            gateway: Some(gateway),
        });
    }

    /// Payload wants a session of this group.
    pub(super) fn want(&mut self, group: usize, now: Instant) {
        let Some(state) = self.groups.get_mut(group) else {
            return;
        };
        if let Some(monitor) = state.monitor_mut() {
            monitor.on_wanted(now);
        } else if !state.asked && state.rare().rejected_until.is_none_or(|until| until <= now) {
            state.asked = true;
            let id = state.id;
            self.send_event(WorkerEvent::KeyRequest {
                group: id,
                after: None,
            });
        }
    }

    fn send_heartbeat(&mut self, group: usize, gateway: IpAddr, count: u32, umem: &mut Umem) {
        let Some(form) = self.groups.get(group).map(|state| state.form) else {
            return;
        };
        let token = self.rng.random::<[u8; 8]>();
        let now = self.now;
        let Some(index) = self.sessions.by_gateway(gateway) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let Some(spi) = session.sends_with() else {
            return;
        };
        let bytes = match (form, &session.spec.heartbeat_key) {
            (HeartbeatForm::Keyed, Some(key)) => {
                let bytes =
                    heartbeat::encode_request(key.expose(), count, spi.to_be_bytes(), token);
                session.asked(count, token);
                bytes
            }
            // A peer that agreed on no heartbeat key can not prove that it lives, and a plain
            // answer is not what the policy asks for: its silence says nothing.
            (HeartbeatForm::Keyed, None) => {
                if let Some(monitor) = self.groups.get_mut(group).and_then(|g| g.monitor_mut()) {
                    monitor.on_heard(gateway, now);
                }
                return;
            }
            (HeartbeatForm::Plain, _) => {
                let mut bytes = [0; PLAIN_LEN];
                bytes[..8].copy_from_slice(&heartbeat::encode_plain(count));
                bytes
            }
        };
        if self.send_heartbeat_bytes(index, &bytes, bytes.len(), umem) {
            self.count(Counter::HeartbeatSent);
        }
    }

    pub(super) fn send_dummy(&mut self, index: usize, umem: &mut Umem) {
        let Some(frame) = umem.take() else {
            return self.count(Counter::NoFrame);
        };
        let Some(session) = self.sessions.get_mut(index) else {
            return umem.free(frame);
        };
        let Some(outbound) = session.outbound() else {
            return umem.free(frame);
        };
        match outbound.seal_dummy(umem.chunk_mut(&frame), HEADROOM, DUMMY_LEN) {
            Ok(esp) => self.send_esp(index, frame, esp, umem),
            Err(refused) => self.push(frame, Way::Drop(counter(refused))),
        }
    }

    /// Sends what lies at `esp` in a frame's chunk to a session's peer.
    pub(super) fn send_esp(
        &mut self,
        index: usize,
        mut frame: Frame,
        esp: std::ops::Range<usize>,
        umem: &mut Umem,
    ) {
        let Some(session) = self.sessions.get_mut(index) else {
            return umem.free(frame);
        };
        let marks = Marks {
            tos: 0,
            dont_fragment: true,
        };
        let Some(awake) = session.awake() else {
            return umem.free(frame);
        };
        let written = awake
            .outer
            .write(umem.chunk_mut(&frame), esp, marks)
            .map_err(counter);
        let header = session.ethernet;
        let way = written.and_then(|range| {
            frame.set_range(range);
            match header {
                Some(header) => prepend(&mut frame, umem, &header).map(|()| Way::Outside),
                None => Ok(Way::SlowOutside),
            }
        });
        self.push(frame, way.unwrap_or_else(Way::Drop));
    }

    /// A gateway answered a heartbeat. The plain form counts only where the policy asks for it.
    pub(super) fn heartbeat_answered(
        &mut self,
        gateway: IpAddr,
        count: u32,
        health: u8,
        authenticated: bool,
        now: Instant,
    ) {
        let mut matched = false;
        for at in 0..self.groups.watched().len() {
            let Some(&group) = self.groups.watched().get(at) else {
                break;
            };
            let Some(state) = self.groups.get_mut(group) else {
                continue;
            };
            if !authenticated && state.form != HeartbeatForm::Plain {
                continue;
            }
            if let Some(monitor) = state.monitor_mut() {
                matched |= monitor.on_answer(gateway, count, health, now).is_some();
            }
        }
        if let Some(session) = self.sessions.by_gateway_mut(gateway)
            && matched
        {
            session.last_heard = Some(now);
        }
        self.count(if matched {
            Counter::HeartbeatHeard
        } else {
            Counter::HeartbeatBadAnswer
        });
    }

    /// A gateway wants to be left.
    pub(super) fn leave(
        &mut self,
        gateway: IpAddr,
        to: Option<IpAddr>,
        umem: &mut Umem,
        now: Instant,
    ) {
        self.each_monitor(|monitor| monitor.on_leave(gateway, to, now));
        self.watch(umem, now, None);
    }

    /// The key management service has a key for a gateway already.
    pub(super) fn granted(&mut self, group: usize, gateway: IpAddr, umem: &mut Umem, now: Instant) {
        if let Some(monitor) = self.groups.get_mut(group).and_then(|g| g.monitor_mut()) {
            // It may have ended since.
            match self.sessions.by_gateway(gateway) {
                Some(_) => monitor.on_granted(gateway, now),
                None => monitor.on_key_failed(now),
            }
        }
        self.obey(group, umem, now);
    }

    /// No session can be had; packets are refused until `until`.
    pub(super) fn rejected(&mut self, group: usize, until: Instant, umem: &mut Umem, now: Instant) {
        let Some(state) = self.groups.get_mut(group) else {
            return;
        };
        state.asked = false;
        state.rare_mut().rejected_until = Some(until);
        if let Some(monitor) = state.monitor_mut() {
            monitor.on_key_failed(now);
        }
        self.refuse_held(group, umem, now);
        self.obey(group, umem, now);
    }

    /// Our own address has changed.
    pub(super) fn resume(&mut self, now: Instant) {
        self.each_monitor(|monitor| monitor.on_moved(now));
    }

    /// A link of ours went down or came up: silence of the gateways meanwhile says nothing.
    pub(super) fn on_link(&mut self, up: bool, now: Instant) {
        self.groups.on_link(up, now);
        if up {
            self.announce_anew();
        }
    }
}
