use std::time::Instant;

use evergate::ike::{Engine, Settings, Snapshot};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// An IKE SA as a repository has it, damaged or not: an engine goes on with it, or says that it can not.
pub fn ike_snapshot(data: &[u8]) {
    let Ok(snapshot) = Snapshot::from_bytes(data) else {
        return;
    };
    let written = snapshot.to_bytes().expect("what was read is short enough");
    assert!(Snapshot::from_bytes(&written).as_ref() == Ok(&snapshot));
    let settings = Settings::new("gw.example".parse().expect("an identity"));
    let mut engine = Engine::new(settings, StdRng::seed_from_u64(1));
    engine.keep((1 << 24) - 1).expect("a run");
    let (now, millis) = (Instant::now(), 1_700_000_000_000);
    let Ok(id) = engine.restore(now, millis, &snapshot) else {
        return;
    };
    assert!(engine.restore(now, millis, &snapshot).is_err(), "twice");
    let again = engine.snapshot(now, millis, id).expect("it is kept again");
    assert_eq!(again.spi(), snapshot.spi());
    engine.check_liveness(now, id);
    while engine.poll_transmit().is_some() {}
    engine.close(now, id);
}
