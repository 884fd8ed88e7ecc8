//! What the engines of two targets are told by their owner.

use std::net::IpAddr;

use evergate::ike::eap::EapUser;
use evergate::ike::{
    AssignRefused, Beside, Hooks, Identity, Methods, Psk, TrafficSelector, TsRefused,
};

/// Answers all questions of an engine.
pub(super) struct Owner(pub(super) u32);

impl Hooks for Owner {
    fn auth(&mut self, _: &Identity, _: &Identity) -> Option<Methods> {
        Some(key())
    }

    fn eap_user(&mut self, name: &str) -> Option<EapUser> {
        let anna = Identity::Email("anna@example.org".to_owned());
        (name == "anna").then(|| EapUser::new(anna, "a password of 22 bytes"))
    }

    fn may_resume(&mut self, _: &Identity) -> bool {
        true
    }

    fn unix_time(&mut self) -> u64 {
        1_893_456_000
    }

    fn allocate_spi(&mut self, _: Option<Beside>) -> u32 {
        self.0 += 1;
        self.0
    }

    fn assign(
        &mut self,
        _: &Identity,
        _: &[IpAddr],
        v4: bool,
        _: bool,
    ) -> Result<Vec<IpAddr>, AssignRefused> {
        Ok(v4.then(|| [10, 99, 0, 7].into()).into_iter().collect())
    }

    fn selectors(
        &mut self,
        _: &Identity,
        _: &[IpAddr],
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
    ) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), TsRefused> {
        Ok((local.to_vec(), remote.to_vec()))
    }
}

pub(super) fn key() -> Methods {
    Psk::new("a key of 22 bytes each".to_owned()).into()
}
