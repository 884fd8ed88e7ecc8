//! All that can happen to one SA pair between an authority, two edges, a repository, a client and somebody
//! who repeats its packets: goes through every order of events, with the real cores, and small numbers.

mod world;

use std::collections::VecDeque;
use std::time::Duration;

use evergate::cluster::{Claim, EdgeId, FromEdge, Ledger, Parting, Reached, Run, Terms};
use stateright::{Checker, Model, Property};
use world::{Bounds, Link, Node, SPI, Step, TICK, World, at, ones};

struct Cluster(Bounds);

impl Model for Cluster {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut ledger = Ledger::new(self.0.terms.clone());
        ledger.add(SPI, true, None);
        let node = |run| Node {
            core: Some(self.0.edge(run)),
            run,
            link_run: run,
            reached: None,
            plane: None,
            link: Link::Down,
            up: VecDeque::new(),
            down: VecDeque::new(),
        };
        let mut world = World {
            now: 0,
            ledger,
            nodes: (0..self.0.edges as u64).map(|n| node(n * 16)).collect(),
            kept: None,
            storing: None,
            client_sent: 1,
            accepted: 0,
            used: 0,
            accepted_twice: false,
            used_twice: false,
            rekeyed: false,
            moved: false,
            doubtful: 0,
            saved: false,
            deaths: 0,
            starts: 0,
            cuts: 0,
            restarts: 0,
            claims: 0,
        };
        // The first edge owns the pair from the start, and is in contact.
        for index in 0..self.0.edges {
            world = self.next_state(&world, Step::Connect(index)).unwrap();
            while let Some(next) = self.next_state(&world, Step::Up(index)) {
                world = next;
            }
        }
        world.ledger.offer(SPI, EdgeId(0));
        world.orders();
        world = self.next_state(&world, Step::Stored).unwrap();
        for index in 0..self.0.edges {
            while let Some(next) = self.next_state(&world, Step::Down(index)) {
                world = next;
            }
        }
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let bounds = &self.0;
        if world.accepted_twice || world.used_twice {
            return;
        }
        if world.now < bounds.ticks {
            steps.push(Step::Tick);
        }
        if world.client_sent < bounds.arriving {
            steps.push(Step::ClientSends);
        }
        if world.storing.is_some() {
            steps.push(Step::Stored);
        }
        if world.restarts < bounds.restarts {
            steps.push(Step::Restart { stored: true });
            steps.push(Step::Restart { stored: false });
        }
        for (index, node) in world.nodes.iter().enumerate() {
            if !node.up.is_empty() || node.link == Link::Closing {
                steps.push(Step::Up(index));
            }
            if !node.down.is_empty() {
                steps.push(Step::Down(index));
            }
            if node.reached.is_some() {
                steps.push(Step::Testimony(index));
            }
            if node.core.is_none() {
                if world.starts < bounds.starts {
                    steps.push(Step::Start(index));
                }
                continue;
            }
            if let Some(plane) = &node.plane {
                for number in 1..=world.client_sent.min(bounds.arriving) {
                    let claims = node.link == Link::Up && world.claims < bounds.claims;
                    if plane.seen >> number & 1 == 0 && (number <= plane.inbound || claims) {
                        steps.push(Step::Arrives(index, number));
                    }
                }
                if plane.sent < plane.outbound && plane.sent < bounds.sending {
                    steps.push(Step::EdgeSends(index));
                }
            } else if node.link == Link::Up && world.claims < bounds.claims {
                steps.push(Step::Arrives(index, world.client_sent));
            }
            if world.deaths < bounds.deaths {
                steps.extend((0..=node.up.len()).map(|left| Step::Kill(index, left)));
                steps.push(Step::Vanish(index));
            }
            match node.link {
                Link::Up if world.cuts < bounds.cuts => {
                    steps.push(Step::Cut(index));
                    steps.push(Step::Leave(index));
                }
                Link::Down => {
                    steps.push(Step::Connect(index));
                    steps.push(Step::Notice(index));
                }
                _ => (),
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        let now = at(world.now);
        match step {
            Step::Tick => world.now += 1,
            Step::ClientSends => world.client_sent += 1,
            Step::Arrives(index, number) => {
                let node = &mut world.nodes[index];
                let core = node.core.as_mut()?;
                match &mut node.plane {
                    Some(plane) if number <= plane.inbound => {
                        plane.seen |= 1 << number;
                        plane.top = plane.top.max(number);
                        world.accepted_twice |= world.accepted >> number & 1 == 1;
                        world.accepted |= 1 << number;
                        world.moved |= index == 1;
                        world.saved |= index == 1 && world.doubtful >> number & 1 == 1;
                        core.progress(SPI, plane.top, plane.sent, now);
                    }
                    _ => {
                        world.claims += 1;
                        let claim = Claim {
                            spi: SPI,
                            seen: number,
                        };
                        core.claim(claim, now);
                    }
                }
                world.acts(index);
            }
            Step::EdgeSends(index) => {
                let node = &mut world.nodes[index];
                let (core, plane) = (node.core.as_mut()?, node.plane.as_mut()?);
                plane.sent += 1;
                world.used_twice |= world.used >> plane.sent & 1 == 1;
                world.used |= 1 << plane.sent;
                core.progress(SPI, plane.top, plane.sent, now);
                world.acts(index);
            }
            Step::Up(index) => {
                let edge = EdgeId(index as u16);
                let node = &mut world.nodes[index];
                match node.up.pop_front() {
                    Some(FromEdge::Hello { run, notary, held }) => {
                        world.ledger.hello(edge, run, &held);
                        if notary {
                            world.ledger.has_notary(edge);
                        }
                    }
                    Some(FromEdge::Report(report)) => world.ledger.report(edge, &report, now),
                    Some(FromEdge::Claim(claim)) => world.ledger.claim(edge, claim, now),
                    Some(FromEdge::Yielded(yielded)) => world.ledger.yielded(edge, &yielded),
                    Some(FromEdge::Leaving) => world.ledger.leaving(edge),
                    None if node.link == Link::Closing => {
                        node.link = Link::Down;
                        world.gone(index, Parting::Closed);
                    }
                    None => return None,
                }
            }
            Step::Down(index) => {
                let node = &mut world.nodes[index];
                let message = node.down.pop_front()?;
                node.core.as_mut()?.hear(message, now);
                world.acts(index);
            }
            Step::Stored => {
                let kept = world.storing.take()?;
                world.kept = Some(kept);
                world.ledger.stored(SPI, kept);
            }
            Step::Kill(index, _) | Step::Vanish(index) => {
                world.deaths += 1;
                let was = world.nodes[index].link;
                if matches!(step, Step::Vanish(_)) {
                    world.cut(index);
                }
                let node = &mut world.nodes[index];
                let (_, plane) = (node.core.take(), node.plane.take());
                node.down.clear();
                if matches!(step, Step::Kill(..)) && self.0.notaries {
                    node.reached = plane.map(|plane| {
                        world.doubtful |= ones(plane.inbound) & !ones(plane.top);
                        let (term, top) = (plane.term, plane.top);
                        let spi = SPI;
                        (Run(node.run), Reached { spi, term, top })
                    });
                }
                if let Step::Kill(_, left) = step
                    && was == Link::Up
                {
                    node.up.truncate(left);
                    node.link = Link::Closing;
                }
            }
            Step::Testimony(index) => {
                let (run, reached) = world.nodes[index].reached.take()?;
                let edge = EdgeId(index as u16);
                world.ledger.testified(edge, run, &[reached]);
            }
            Step::Start(index) => {
                world.starts += 1;
                let node = &mut world.nodes[index];
                node.run += 1;
                node.core = Some(self.0.edge(node.run));
            }
            Step::Cut(index) => {
                world.cuts += 1;
                world.cut(index);
            }
            Step::Leave(index) => {
                world.cuts += 1;
                world.nodes[index].core.as_mut()?.leave();
                world.acts(index);
                let node = &mut world.nodes[index];
                node.link = Link::Closing;
                node.down.clear();
                node.core.as_mut()?.disconnected();
            }
            Step::Notice(index) => world.gone(index, Parting::Lost),
            Step::Connect(index) => {
                world.gone(index, Parting::Lost);
                let node = &mut world.nodes[index];
                (node.link, node.link_run) = (Link::Up, node.run);
                node.core.as_mut()?.connected(now);
                world.acts(index);
            }
            Step::Restart { stored } => {
                world.restarts += 1;
                if let Some(kept) = world.storing.take().filter(|_| stored) {
                    world.kept = Some(kept);
                }
                world.ledger = Ledger::new(self.0.terms.clone());
                world.ledger.add(SPI, true, world.kept);
                for index in 0..world.nodes.len() {
                    world.cut(index);
                }
            }
        }
        world.polls();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no number is used twice", |_, world: &World| {
                !world.used_twice
            }),
            Property::always("no packet is accepted twice", |_, world: &World| {
                !world.accepted_twice
            }),
            Property::sometimes(
                "a dead edge's client goes on, with its keys",
                |_, world: &World| world.moved && !world.rekeyed && world.nodes[0].core.is_none(),
            ),
            Property::sometimes("a client moves between living edges", |_, world: &World| {
                let living = |node: &Node| node.core.is_some();
                world.moved && !world.rekeyed && world.nodes.iter().all(living)
            }),
            Property::sometimes("a dead edge's notary saves a packet", |_, world: &World| {
                world.saved && !world.rekeyed
            }),
            Property::sometimes(
                "an edge that is not heard of costs fresh keys",
                |_, world: &World| world.rekeyed && world.nodes[1].plane.is_some(),
            ),
        ]
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            edges: 2,
            arriving: 0,
            sending: 0,
            ticks: 0,
            deaths: 0,
            starts: 0,
            cuts: 0,
            restarts: 0,
            claims: 1,
            notaries: false,
            terms: Terms {
                block: 2,
                chunk: 4,
                least_margin: 1,
                burst: 1,
                most_margin: 1,
                reserve: 3,
                alone: TICK,
                drift: Duration::ZERO,
                interval: TICK,
                patience: TICK,
                tenure: Duration::ZERO,
                again: Duration::ZERO,
                testimony: TICK,
            },
        }
    }
}

/// Goes through all orders of events; yields what was seen to be possible.
fn check(bounds: Bounds) -> Vec<&'static str> {
    let name = format!("{bounds:?}");
    let checker = Cluster(bounds).checker().threads(2).spawn_bfs().join();
    println!(
        "{} steps to {} states, {} deep: {name}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
    );
    let found = checker.discoveries();
    for (property, path) in found.clone() {
        let wrong = property.starts_with("no ");
        assert!(!wrong, "{property}, {name}: {:#?}", path.into_actions());
    }
    found.into_keys().collect()
}

/// What the client sends: an edge dies, its last words with it or not.
#[test]
fn no_packet_is_accepted_twice_when_an_edge_dies() {
    let found = check(Bounds {
        arriving: 3,
        ticks: 1,
        deaths: 1,
        ..Bounds::default()
    });
    assert_eq!(found.len(), 3, "{found:?}");
}

/// The same with notaries, whose testimony comes at any time, or never.
#[test]
fn no_packet_is_accepted_twice_when_a_notary_speaks() {
    let some = Bounds {
        arriving: 3,
        ticks: 1,
        deaths: 1,
        notaries: true,
        ..Bounds::default()
    };
    let found = check(some);
    assert!(
        found.contains(&"a dead edge's notary saves a packet"),
        "{found:?}"
    );
}

/// A new authority knows what the repository has.
#[test]
fn no_packet_is_accepted_twice_when_the_authority_dies() {
    let found = check(Bounds {
        arriving: 2,
        ticks: 1,
        restarts: 1,
        ..Bounds::default()
    });
    assert!(found.contains(&"a client moves between living edges"));
}

/// What is sent to the client: an edge dies.
#[test]
fn no_number_is_used_twice_when_an_edge_dies() {
    let bounds = Bounds {
        sending: 4,
        ticks: 1,
        deaths: 1,
        starts: 1,
        ..Bounds::default()
    };
    check(bounds);
}

/// The rest takes minutes: `cargo test --release -p evergate-tests --test lease_model -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes, and gigabytes of memory"]
fn no_packet_is_accepted_twice_when_connections_break() {
    let some = Bounds {
        arriving: 3,
        ticks: 1,
        cuts: 1,
        ..Bounds::default()
    };
    check(some.clone());
    check(Bounds {
        deaths: 1,
        ..some.clone()
    });
    check(Bounds {
        ticks: 2,
        deaths: 1,
        cuts: 0,
        ..some.clone()
    });
    check(Bounds {
        deaths: 1,
        starts: 1,
        cuts: 0,
        claims: 2,
        ..some.clone()
    });
    check(Bounds {
        arriving: 2,
        deaths: 1,
        restarts: 1,
        cuts: 0,
        notaries: true,
        ..some
    });
}

/// See above.
#[test]
#[ignore = "takes minutes, and gigabytes of memory"]
fn no_number_is_used_twice_when_connections_break() {
    let some = Bounds {
        sending: 4,
        ticks: 1,
        ..Bounds::default()
    };
    check(Bounds {
        cuts: 1,
        ..some.clone()
    });
    check(Bounds {
        restarts: 1,
        ..some
    });
}
