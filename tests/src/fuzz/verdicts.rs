//! What the XDP programs decide about a frame, run on the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evergate_common::guard::{Guard, Judged, judge};
use evergate_common::maps::{Address, AddressEntry, Local, NodeState, SaEntry, address};
use evergate_common::verdict::{self, Action, InsideWorld, OutsideWorld};

const KEY: [u8; 16] = [9; 16];
const GATEWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1)),
];

struct World {
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
        AddressEntry::new(of[15] & 1 == 1, own)
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
        sa: SaEntry::new(Some(KEY), None),
        node: NodeState::new(u64::MAX, 0, false),
        local: (flags & 8 != 0).then(|| Local::new(None, &GATEWAY)),
        flags: *flags,
    };
    let _ = verdict::inside(frame, &world);
    let decided = verdict::outside(frame, &world);
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
