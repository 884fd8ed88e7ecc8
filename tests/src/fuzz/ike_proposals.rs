//! Proposals as text: read, written, and read the same; and as the node offers them on the wire.

use evergate::ike::payload::{Payload, parse_chain, write_chain};
use evergate::ike::proposal::{choose_ike, chosen_ike, offers};
use evergate::ike::{EspProposal, IkeProposal};

pub fn ike_proposals(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(read) = text.parse::<EspProposal>() {
        assert_eq!(read.to_string().parse(), Ok(read));
    }
    if let Ok(read) = text.parse::<IkeProposal>() {
        assert_eq!(read.to_string().parse(), Ok(read.clone()));
        let ours = IkeProposal::with_fallbacks(&[read]);
        let offer = vec![Payload::Sa(offers(&ours, IkeProposal::offer))];
        let mut out = Vec::new();
        let first = write_chain(&offer, &mut out).expect("few transforms");
        assert_eq!(parse_chain(first, &out), Ok(offer.clone()));
        // Whoever wants the same agrees.
        if let [Payload::Sa(offer)] = &offer[..] {
            let (suite, answer) = choose_ike(&ours, offer).expect("all of it");
            assert_eq!(chosen_ike(&ours, &[answer]), Some(suite));
        }
    }
}
