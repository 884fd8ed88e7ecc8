//! Whoever has the engines in a bench.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use evergate::ike::{AssignRefused, Beside, Hooks, Identity, Methods, TrafficSelector, TsRefused};

/// Says yes to everything.
pub(crate) struct Owner {
    methods: Methods,
    next_spi: u32,
    next_address: u32,
    now: u64,
}

impl Owner {
    /// One that proves itself, and has others prove themselves, so.
    pub(crate) fn new(methods: &Methods) -> Owner {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Owner {
            methods: methods.clone(),
            next_spi: 0x1000,
            next_address: u32::from(Ipv4Addr::new(10, 0, 0, 0)),
            now: now.map_or(0, |since| since.as_secs()),
        }
    }
}

impl Hooks for Owner {
    fn auth(&mut self, _: &Identity, _: &Identity) -> Option<Methods> {
        Some(self.methods.clone())
    }

    fn unix_time(&mut self) -> u64 {
        self.now
    }

    fn allocate_spi(&mut self, _: Option<Beside>) -> u32 {
        self.next_spi += 1;
        self.next_spi
    }

    fn assign(
        &mut self,
        _: &Identity,
        _: &[IpAddr],
        _: bool,
        _: bool,
    ) -> Result<Vec<IpAddr>, AssignRefused> {
        self.next_address += 1;
        Ok(vec![IpAddr::V4(self.next_address.into())])
    }

    fn selectors(
        &mut self,
        _: &Identity,
        assigned: &[IpAddr],
        proposed_local: &[TrafficSelector],
        _: &[TrafficSelector],
    ) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), TsRefused> {
        let hosts = assigned.iter().copied().map(TrafficSelector::host);
        Ok((proposed_local.to_vec(), hosts.collect()))
    }
}
