//! ARP and neighbour discovery: any frame.

use evergate::dataplane::net::announce::FRAME;
use evergate::dataplane::net::arp::Arp;
use evergate::dataplane::net::checksum::transport_v6;
use evergate::dataplane::net::nd::Nd;

/// Who answers.
pub(super) const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Corrects the checksum of a message of neighbour discovery, so that what it says is looked at.
pub(super) fn mend(frame: &mut [u8]) {
    let Some((header, icmp)) = frame
        .get_mut(14..)
        .and_then(|ip| ip.split_at_mut_checked(40))
    else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let Some(icmp) = icmp.get_mut(..length).filter(|icmp| icmp.len() >= 8) else {
        return;
    };
    let at = |from: usize| <[u8; 16]>::try_from(&header[from..from + 16]).expect("16 bytes");
    icmp[2..4].fill(0);
    let sum = transport_v6(at(8).into(), at(24).into(), 58, icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn any_frame(frame: &[u8]) {
    let mut out = [0; FRAME];
    if let Ok(arp) = Arp::parse(frame)
        && let Some(length) = arp.reply(OURS, &mut out)
    {
        let answer = Arp::parse(&out[..length]).expect("an answer of ours is right");
        assert_eq!((answer.sender, answer.sender_mac), (arp.target, OURS));
        assert_eq!(answer.ethernet.tag, arp.ethernet.tag);
    }
    if let Ok(nd) = Nd::parse(frame)
        && let Some(length) = nd.reply(OURS, &mut out)
    {
        let answer = Nd::parse(&out[..length]).expect("an answer of ours is right");
        assert_eq!(answer.target, nd.target);
        assert_eq!(answer.reply(OURS, &mut [0; FRAME]), None);
    }
}

/// As it is, and with its checksum corrected.
pub fn neighbour_frame(data: &[u8]) {
    any_frame(data);
    let mut mended = data.to_vec();
    mend(&mut mended);
    any_frame(&mended);
}
