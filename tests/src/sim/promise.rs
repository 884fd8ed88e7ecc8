//! How soon a client must be through: what its timers promise (docs/failover.md, "How long an outage
//! lasts"), and what the waiting times of its key management do.

use std::time::Duration;

use evergate::ike::Retransmit;
use evergate::policy::HeartbeatMode;

use super::{LAN, RETRANSMIT, Scenario};

/// So long a client remembers that a gateway drained (docs/failover.md, rule 9), and longer than that:
/// it leaves it again for the first other one that it has a session with, dead or not.
pub(super) const HEALTH: Duration = Duration::from_secs(31);

/// For clocks that are wrong, and what is rounded on the way.
fn slack(of: Duration) -> Duration {
    of + of / 100 + Duration::from_millis(1)
}

/// From a packet to its answer, both as late as can be.
fn round_trip(scenario: &Scenario) -> Duration {
    2 * (scenario.delay + scenario.jitter + LAN)
}

/// From the last sign of life of a dead gateway to the switch: D + 2 R, and with DEFERRED the wait for
/// payload. Nobody is ever late here.
fn detection(scenario: &Scenario) -> Duration {
    let timing = &scenario.timing;
    let waits = match timing.mode {
        HeartbeatMode::Deferred => scenario.pace,
        _ => Duration::ZERO,
    };
    timing.defer_time + 2 * timing.response_time + waits
}

/// The client has a session with a gateway that is well, and `dead` ones with gateways that are not,
/// the one in use among them. Nothing is lost on the way.
pub(super) fn with_standby(scenario: &Scenario, dead: u32) -> Duration {
    // What was on its way when it died still counts as life; then payload, and its answer.
    let life = scenario.delay + scenario.jitter;
    slack(life + dead * detection(scenario) + scenario.pace + round_trip(scenario))
}

/// One gateway at least is well and on the list all the time, and nothing is lost; all the others may
/// make sessions and be dead by heartbeat, or answer nothing.
pub(super) fn without_standby(scenario: &Scenario) -> Duration {
    let others = u32::try_from(scenario.gateways.saturating_sub(1)).unwrap_or(u32::MAX);
    // A gateway that does not answer to a ticket is asked without one.
    let ticket = match scenario.tickets {
        true => {
            RETRANSMIT.total()
                - Retransmit {
                    tries: RETRANSMIT.tries - 2,
                    ..RETRANSMIT
                }
                .total()
        }
        false => Duration::ZERO,
    };
    let exchange = ticket + RETRANSMIT.total() + round_trip(scenario);
    let each = exchange + detection(scenario);
    // A gateway that kept dying is passed over for the longest wait, and a request that was rejected
    // waits as long; before and after, each of the others may be asked in vain.
    let waits = 2 * scenario.retry_cap() + 2 * others * each;
    slack(waits + each + scenario.pace + round_trip(scenario))
}
