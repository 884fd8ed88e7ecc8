//! What the XDP programs decide about a frame, run on the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evergate_common::front::{self, Front, NO_SHARE};
use evergate_common::guard::{Guard, Judged, judge};
use evergate_common::maps::{Address, AddressEntry, Local, NodeState, SaEntry, address};
use evergate_common::reason::Counter;
use evergate_common::steering::{self, Gateway, Group};
use evergate_common::translation::{self, Translates, Translation};
use evergate_common::verdict::{self, Action, InsideWorld, OutsideWorld};

const KEY: [u8; 16] = [9; 16];
const GATEWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1)),
];

/// For this edge, at an authority.
const STANDS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 21));

/// As gateways of the group by number, in turn.
const WAYS: [Gateway; 3] = [
    Gateway::silent(),
    Gateway::on_segment([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]),
    Gateway::on_segment([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).in_ip(GATEWAY[0], GATEWAY[0], 1500),
];
const IN_IPV6: Gateway =
    Gateway::on_segment([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).in_ip(GATEWAY[1], GATEWAY[1], 1500);

struct World {
    translation: Translation,
    sa: SaEntry,
    node: NodeState,
    local: Option<Local>,
    flags: u8,
}

impl OutsideWorld for World {
    fn sa(&self, spi: &[u8; 4]) -> Option<&SaEntry> {
        (spi[0] & 0x80 != 0 && *spi != [0xff; 4]).then_some(&self.sa)
    }
    fn address(&self, of: &Address) -> AddressEntry {
        let own = GATEWAY.iter().any(|ip| address(*ip) == *of);
        AddressEntry::new(of[15] & 1 == 1, own).of_gateway(of[15] & 2 != 0)
    }
    fn node(&self) -> Option<NodeState> {
        Some(self.node)
    }
    fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }
    fn passed(&self, time: u64) -> bool {
        time < 10
    }
    fn reflect_plain(&self) -> bool {
        self.flags & 1 != 0
    }
    fn reflect_keyed(&self) -> bool {
        self.flags & 2 != 0
    }
    fn strangers(&self) -> bool {
        self.flags & 4 != 0
    }
    fn steers(&self) -> bool {
        self.flags & 16 != 0
    }
    fn shared(&self) -> bool {
        self.flags & 64 != 0
    }
    fn station(&self, mac: &[u8; 6]) -> bool {
        mac[5] & 1 != 0
    }
}

impl Group for World {
    fn number(&self) -> u8 {
        1
    }
    fn owner(&self, spi: &[u8; 4]) -> Option<u8> {
        (spi[3] == 7).then_some(3)
    }
    fn gateway(&self, number: u8) -> Option<&Gateway> {
        Some(WAYS.get(usize::from(number % 4)).unwrap_or(&IN_IPV6))
    }
    fn own_address(&self) -> Option<Address> {
        Some(address(GATEWAY[usize::from(self.flags >> 5 & 1)]))
    }
}

impl Front for World {
    fn own_share(&self) -> u8 {
        match self.flags & 128 {
            0 => NO_SHARE,
            _ => 2,
        }
    }
    fn leads_to(&self, slot: u32) -> Option<u8> {
        Some((slot % 5) as u8)
    }
}

impl Translates for World {
    fn translation(&self) -> Option<&Translation> {
        Some(&self.translation)
    }
    fn toward(&self, slot: u32) -> Option<Address> {
        (slot != 5).then(|| address(STANDS))
    }
    fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }
}

/// What was decided can be done, and is done once.
fn translated(world: &World, frame: &[u8]) {
    let there = translation::toward(frame, world).ok();
    for message in there.into_iter().chain(translation::back(frame, world)) {
        let mut sent = frame.to_vec();
        let applied = message.apply(sent.as_mut_slice());
        applied.expect("a decided frame can be readdressed");
        match message.counter {
            Counter::IkeReturned => assert_eq!(translation::back(sent.as_slice(), world), None),
            _ => assert!(translation::toward(sent.as_slice(), world).is_err()),
        }
    }
}

/// What another gateway has sent in IP is taken out of it.
fn unwrapped(world: &World, frame: &mut Vec<u8>) {
    let Some(wrapping) = steering::wrapped(frame.as_slice(), world) else {
        return;
    };
    if wrapping.ours() {
        let applied = wrapping.apply(frame.as_mut_slice());
        applied.expect("a frame that was looked at can be unwrapped");
        frame.drain(..wrapping.excess());
    }
}

/// What is another gateway's goes there once: there it is not sent on again.
fn sent_on(world: &World, frame: &[u8]) {
    let steered = steering::judge(frame, world);
    if !steered.goes() {
        return;
    }
    let mut sent = vec![0; steered.room()];
    sent.extend(frame);
    let applied = steered.apply(sent.as_mut_slice());
    applied.expect("a decided frame can be readied");
    unwrapped(world, &mut sent);
    let again = verdict::outside(sent.as_slice(), world);
    assert!(
        !steering::asks(&again) || !steering::judge(sent.as_slice(), world).goes(),
        "it goes on"
    );
}

/// What a front sends to a node no front sends on.
fn fronted(world: &World, frame: &[u8]) {
    let steered = front::judge(frame, world);
    if !steered.goes() {
        return;
    }
    let mut sent = vec![0; steered.room()];
    sent.extend(frame);
    let applied = steered.apply(sent.as_mut_slice());
    applied.expect("a decided frame can be readied");
    unwrapped(world, &mut sent);
    assert!(!front::judge(sent.as_slice(), world).goes(), "it goes on");
}

impl InsideWorld for World {
    fn tunnel_v4(&self, destination: &[u8; 4]) -> bool {
        destination[0] == 10
    }
    fn tunnel_v6(&self, destination: &[u8; 16]) -> bool {
        destination[0] == 0x20
    }
    fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }
}

/// Byte 0: how the gateway is set; the rest is the frame.
pub fn verdicts(data: &[u8]) {
    let Some((flags, frame)) = data.split_first() else {
        return;
    };
    let world = World {
        translation: Translation::new(GATEWAY[0], &[STANDS]),
        sa: SaEntry::new(Some(KEY), None),
        node: NodeState::new(u64::MAX, 0, false),
        local: (flags & 8 != 0).then(|| Local::new(None, &GATEWAY)),
        flags: *flags,
    };
    let _ = verdict::inside(frame, &world);
    translated(&world, frame);
    let mut arrived = frame.to_vec();
    if world.steers() {
        unwrapped(&world, &mut arrived);
    }
    let frame = arrived.as_slice();
    if world.steers() {
        fronted(&world, frame);
    }
    let decided = verdict::outside(frame, &world);
    if world.steers() && steering::asks(&decided) {
        sent_on(&world, frame);
    }
    // The short way comes to the same as the long one.
    let short = verdict::plain_v4(frame, &world).or_else(|| verdict::keyed_v4(frame, &world));
    if let Some(short) = short {
        assert_eq!(decided, Ok(Action::Reflect(short)));
    }
    match decided {
        Ok(Action::Reflect(reflection)) => {
            let mut answer = frame.to_vec();
            let applied = reflection.apply(answer.as_mut_slice());
            applied.expect("a decided frame can be turned");
            // Whoever gets it, two gateways never bounce it.
            let again = verdict::outside(answer.as_slice(), &world);
            assert!(!matches!(again, Ok(Action::Reflect(_))), "it bounces");
        }
        Ok(Action::Guard) => {
            let guard = Guard::up([1; 16], [2; 16]);
            if let Judged::Ask(question) = judge(frame, &guard) {
                let mut asked = frame.to_vec();
                let length = question.apply(asked.as_mut_slice());
                let length = length.expect("a judged frame can be turned");
                assert!(length <= frame.len(), "more is said than was heard");
            }
        }
        _ => {}
    }
}
