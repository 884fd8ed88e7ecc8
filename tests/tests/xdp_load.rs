//! Every program loads and runs.

mod xdp_support;

use evergate::dataplane::loader::{
    Answers, Bare, BareProgram, Collector, Inside, Outside, OutsideSettings,
};
use evergate_common::front::NO_SHARE;
use evergate_common::translation::Translation;
use xdp_support::*;

#[test]
fn every_program_passes_the_verifier() {
    need_root();
    let frame = Frame::v4(6, [0; 40]).bytes();
    let mut outside = Outside::load(OutsideSettings::default()).expect("outside loads");
    assert_eq!(outside.run(&frame, 1).expect("outside runs").verdict, PASS);
    let settings = OutsideSettings {
        number: 1,
        ..OutsideSettings::default()
    };
    let mut shared = Outside::load(settings).expect("outside loads with steering");
    assert_eq!(shared.run(&frame, 1).expect("outside runs").verdict, PASS);
    let settings = OutsideSettings {
        number: 1,
        shared: true,
        filter: true,
        ..OutsideSettings::default()
    };
    let mut filter = Outside::load(settings).expect("outside loads with a filter and all else");
    assert_eq!(filter.run(&frame, 1).expect("outside runs").verdict, PASS);
    let settings = OutsideSettings {
        translates: true,
        ..settings
    };
    let mut edge = Outside::load(settings).expect("outside loads with translation and all else");
    assert_eq!(edge.run(&frame, 1).expect("outside runs").verdict, PASS);
    let mut inside = Inside::load_translating().expect("inside loads with translation");
    assert_eq!(inside.run(&frame, 1).expect("inside runs").verdict, PASS);
    let translation = Translation::new(GATEWAY_V4.into(), &[]);
    let mut answers = Answers::load(translation).expect("answers loads");
    assert_eq!(answers.run(&frame, 1).expect("answers runs").verdict, PASS);
    for (front, behind, filter, translates) in [
        (1, false, false, false),
        (NO_SHARE, false, true, false),
        (1, true, true, false),
        (1, true, true, true),
    ] {
        let settings = OutsideSettings {
            shared: true,
            front,
            behind,
            filter,
            translates,
            ..OutsideSettings::default()
        };
        let mut front = Outside::load(settings).expect("outside loads for a front");
        assert_eq!(front.run(&frame, 1).expect("outside runs").verdict, PASS);
    }
    let mut inside = Inside::load().expect("inside loads");
    assert_eq!(inside.run(&frame, 1).expect("inside runs").verdict, PASS);
    let mut pass = Bare::load(BareProgram::Pass).expect("pass loads");
    assert_eq!(pass.run(&frame, 1).expect("pass runs").verdict, PASS);
    let mut swap = Bare::load(BareProgram::Swap).expect("swap loads");
    let run = swap.run(&frame, 1).expect("swap runs");
    assert_eq!(run.verdict, TX);
    assert_eq!(run.packet[..12], [MAC_A, MAC_B].concat());
    let mut collect = Collector::load().expect("collect loads");
    assert_eq!(collect.run(&frame, 1).expect("collect runs").verdict, PASS);
    let sample = Frame::v4(17, [0x4e, 0x20, 0, 9, 0, 8, 0, 0]).bytes();
    // There is no socket to hand it to.
    assert_eq!(collect.run(&sample, 1).expect("collect runs").verdict, DROP);
}
