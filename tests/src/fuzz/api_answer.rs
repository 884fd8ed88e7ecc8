//! What whoever has the socket answers to `evergate status` and the other commands.

use evergate::api::model::{Done, ErrorBody, Event, SaView, Status};
use evergate::fuzzing::{show_events, show_sas, show_status};

pub fn api_answer(data: &[u8]) {
    if let Ok(status) = serde_json::from_slice::<Status>(data) {
        assert!(show_status(&status).ends_with('\n'));
        let again = serde_json::to_vec(&status).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<Status>(&again).ok(), Some(status));
    }
    if let Ok(events) = serde_json::from_slice::<Vec<Event>>(data) {
        assert_eq!(show_events(&events).is_empty(), events.is_empty());
    }
    if let Ok(list) = serde_json::from_slice::<Vec<SaView>>(data) {
        assert!(!show_sas(&list).is_empty());
    }
    let _ = serde_json::from_slice::<Done>(data);
    let _ = serde_json::from_slice::<ErrorBody>(data);
}
