//! What an edge says to its authority, and what the authority says to it.

use evergate::cluster::wire::{self, Down, Up};

/// One message with its length before it.
pub fn cluster_message(data: &[u8]) {
    let Some((prefix, content)) = data.split_first_chunk::<{ wire::PREFIX }>() else {
        return;
    };
    if let Ok(length) = wire::content_len(*prefix) {
        assert!(length <= wire::LONGEST);
    }
    if let Ok(up) = wire::decode::<Up>(content) {
        let written = wire::encode(&up).expect("what was read can be written");
        assert_eq!(wire::decode::<Up>(&written[wire::PREFIX..]), Ok(up));
    }
    if let Ok(down) = wire::decode::<Down>(content) {
        let written = wire::encode(&down).expect("what was read can be written");
        assert_eq!(
            wire::decode::<Down>(&written[wire::PREFIX..]).as_ref(),
            Ok(&down)
        );
        if let Down::Install(carrier) = down
            && let Ok(session) = carrier.pair.session()
        {
            assert!(session.shared, "numbers of a pair that was sent are leased");
        }
    }
}
