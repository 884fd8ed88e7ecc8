//! Quick crash detection (RFC 6290): a peer that hears a token of ours knows that we have forgotten an
//! IKE SA, and needs no time-out to believe it. The token follows from the SPIs and a secret that
//! outlives a restart, so nothing is kept for it.

use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::crypto::{Prf, Secret};
use super::payload::Payload;
use super::payload::header::exchange;
use super::payload::notify::{Notify, kind};
use super::settings::Settings;
use super::state::{Core, Phase};
use super::task::{Cx, Request, Response, Step, notifies};

/// Bytes of our tokens: the fewest that section 4.1 allows, so that the answer is hardly longer than
/// the request.
const TOKEN: usize = 16;
/// Tokens of a peer.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;
/// So many tokens are given away at once …
const BURST: u32 = 200;
/// … and then one in this time.
const PERIOD: Duration = Duration::from_millis(2);

/// The token of an IKE SA. SPIs: initiator's, responder's.
pub(crate) fn make(secret: &Secret, [spi_i, spi_r]: [u64; 2]) -> Vec<u8> {
    let spis = [spi_i.to_be_bytes(), spi_r.to_be_bytes()];
    let whole = Prf::HmacSha256.compute(secret, &[b"crash token", &spis[0], &spis[1]]);
    whole.get(..TOKEN).unwrap_or(&whole).to_vec()
}

fn notify(secret: &Secret, spis: [u64; 2]) -> Payload {
    // With protocol 0, since it names no SPI (erratum 3449).
    Payload::Notify(Notify::new(kind::QCD_TOKEN, make(secret, spis)))
}

/// Our token for an IKE SA, if we make any.
pub(crate) fn token(core: &Core, settings: &Settings) -> Option<Payload> {
    let secret = settings.crash_secret.as_ref()?;
    Some(notify(secret, [core.spi_i, core.spi_r]))
}

/// What a request of an IKE SA that we do not know is answered with (section 4.5).
pub(crate) fn answer(secret: &Secret, spis: [u64; 2]) -> Vec<Payload> {
    let unknown = Notify::new(kind::INVALID_IKE_SPI, []);
    vec![Payload::Notify(unknown), notify(secret, spis)]
}

impl Core {
    /// Keeps the token that the peer tells of this IKE SA.
    pub(crate) fn take_token(&mut self, payloads: &[Payload]) {
        let mut told = notifies(payloads).filter(|n| n.kind == kind::QCD_TOKEN);
        if let Some(token) = told.find(|n| LENGTHS.contains(&n.data.len())) {
            self.token = Some(token.data.clone().into());
        }
    }

    /// Whether a message in the clear proves that the peer has forgotten this IKE SA.
    pub(crate) fn is_forgotten(&self, payloads: &[Payload]) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        let unknown = notifies(payloads).any(|n| n.kind == kind::INVALID_IKE_SPI);
        let mut shown = notifies(payloads).filter(|n| n.kind == kind::QCD_TOKEN);
        unknown && shown.any(|n| token.ct_eq(&n.data).into())
    }
}

/// Tells the peer our token of an IKE SA that has replaced another by our doing (section 4.3).
pub(crate) struct TellToken;

impl Request for TellToken {
    fn exchange(&self) -> u8 {
        exchange::INFORMATIONAL
    }

    fn is_due(&self, core: &Core) -> bool {
        core.phase == Phase::Established
    }

    fn build(&mut self, core: &mut Core, cx: &mut Cx<'_>) -> Vec<Payload> {
        token(core, cx.settings).into_iter().collect()
    }

    fn process(&mut self, _: &mut Core, _: &mut Cx<'_>, _: &Response<'_>) -> Step {
        Step::Done
    }
}

/// Bounds how many tokens strangers get.
#[derive(Default)]
pub(crate) struct Ration {
    /// When all may be given away again at once, the later the more were.
    spent: Option<Instant>,
}

impl Ration {
    pub(crate) fn pass(&mut self, now: Instant) -> bool {
        let spent = self.spent.map_or(now, |at| at.max(now));
        let few = spent.saturating_duration_since(now) <= PERIOD * (BURST - 1);
        if few {
            self.spent = Some(spent + PERIOD);
        }
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_by_secret_and_by_spi() {
        let secret = |byte| Secret::new(&[byte; 32]);
        let one = make(&secret(1), [3, 4]);
        assert_eq!(one.len(), TOKEN);
        assert_eq!(one, make(&secret(1), [3, 4]));
        for other in [
            make(&secret(2), [3, 4]),
            make(&secret(1), [4, 3]),
            make(&secret(1), [3, 5]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn tokens_are_rationed() {
        let (mut ration, start) = (Ration::default(), Instant::now());
        let given = |r: &mut Ration, now| (0..500).filter(|_| r.pass(now)).count();
        assert_eq!(given(&mut ration, start), 200);
        assert_eq!(given(&mut ration, start + PERIOD * 50), 50);
        assert_eq!(given(&mut ration, start + Duration::from_secs(60)), 200);
    }
}
