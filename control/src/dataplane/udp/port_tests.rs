use super::*;
use evergate_common::wire::ETHERNET_LEN;
use std::time::Duration;

struct End {
    port: UdpPort,
    umem: Umem,
    ike: tokio::sync::mpsc::Receiver<IkeMessage>,
}

fn end() -> End {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    prepare(&socket).unwrap();
    let (sender, ike) = tokio::sync::mpsc::channel(4);
    End {
        port: UdpPort::new(socket, None, sender).unwrap(),
        umem: Umem::new(512).unwrap(),
        ike,
    }
}

impl End {
    /// An IP packet to `to` with a payload of `length` bytes that begin with `mark`.
    fn packet(&mut self, to: SocketAddr, mark: u32, length: usize, class: u8) -> Frame {
        let from = self.port.local;
        self.packet_with(from, to, mark, length, class)
    }

    fn packet_from(&mut self, from: SocketAddr, to: SocketAddr, mark: u32, length: usize) -> Frame {
        self.packet_with(from, to, mark, length, 0)
    }

    fn packet_with(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        mark: u32,
        length: usize,
        class: u8,
    ) -> Frame {
        let mut frame = self.umem.take().unwrap();
        let chunk = self.umem.chunk_mut(&frame);
        chunk[HEADROOM..HEADROOM + 4].copy_from_slice(&mark.to_be_bytes());
        let range = headers::put(chunk, HEADROOM, length, from, to, class).unwrap();
        frame.set_range(range.start + ETHERNET_LEN..range.end);
        frame
    }

    /// Marks and lengths of what comes until there are `count`.
    fn received(&mut self, count: usize) -> Vec<(u32, usize, u8)> {
        self.received_by(0, count)
    }

    fn received_by(&mut self, socket: usize, count: usize) -> Vec<(u32, usize, u8)> {
        let mut frames = Vec::new();
        for _ in 0..500 {
            self.port
                .receive(socket, &mut self.umem, &mut frames, |reason| {
                    panic!("{reason:?}")
                });
            if frames.len() >= count {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let read = |frame: &Frame| {
            let packet = &self.umem.bytes(frame)[ETHERNET_LEN..];
            let (to, payload, class) = headers::read(packet).unwrap();
            assert_eq!(to, self.port.local);
            let payload = &packet[payload..];
            let mark = u32::from_be_bytes(*payload.first_chunk().unwrap());
            (mark, payload.len(), class)
        };
        let seen = frames.iter().map(read).collect();
        frames.into_iter().for_each(|frame| self.umem.free(frame));
        seen
    }
}

#[test]
fn packets_arrive_whole_in_order_and_with_their_marks() {
    let (mut a, mut b) = (end(), end());
    let to = b.port.local;
    // Two sizes, a shorter one at the end of a train, another class, and more than one message carries.
    let mut wanted: Vec<(u32, usize, u8)> = (1..=100).map(|n| (n, 1400, 0)).collect();
    wanted.extend([
        (101, 700, 0),
        (102, 1400, 0),
        (103, 1401, 0),
        (104, 1401, 184),
    ]);
    wanted.extend((105..=180).map(|n| (n, 40, 184)));
    for (mark, length, class) in &wanted {
        let frame = a.packet(to, *mark, *length, *class);
        assert_eq!(a.port.send(&mut a.umem, frame), None);
    }
    assert_eq!(a.port.flush(&mut a.umem), None);
    assert_eq!(a.umem.free_chunks(), a.umem.chunks());
    assert_eq!(b.received(wanted.len()), wanted);
    assert_eq!(b.umem.free_chunks(), b.umem.chunks());
}

#[test]
fn without_segmentation_each_goes_by_itself() {
    let (mut a, mut b) = (end(), end());
    a.port.segmentation = false;
    for mark in 1..=3 {
        let frame = a.packet(b.port.local, mark, 500, 0);
        assert_eq!(a.port.send(&mut a.umem, frame), None);
    }
    assert_eq!(a.port.flush(&mut a.umem), None);
    assert_eq!(b.received(3), [(1, 500, 0), (2, 500, 0), (3, 500, 0)]);
}

#[test]
fn the_own_port_sends_what_bears_it_and_receives_as_the_shared_one() {
    let (mut a, mut b) = (end(), end());
    let own = UdpSocket::bind("127.0.0.1:0").unwrap();
    prepare(&own).unwrap();
    let own_at = own.local_addr().unwrap();
    let shared = a.port.socket.try_clone().unwrap();
    a.port.rebind(&mut a.umem, shared, Some(own));
    assert_eq!(
        (a.port.own_port(), a.port.sockets()),
        (Some(own_at.port()), 2)
    );
    for (mark, from) in (1..).zip([a.port.local, own_at, own_at, a.port.local]) {
        // Longer than the one before: none are joined.
        let frame = a.packet_from(from, b.port.local, mark, 500 + mark as usize);
        assert_eq!(a.port.send(&mut a.umem, frame), None);
    }
    assert_eq!(a.port.flush(&mut a.umem), None);
    let mut seen = Vec::new();
    let mut buffer = [0; 2000];
    for _ in 0..500 {
        if seen.len() == 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
        while let Ok((_, from)) = b.port.socket.recv_from(&mut buffer) {
            seen.push((buffer[3], from));
        }
    }
    seen.sort();
    let (shared, own) = (a.port.local, own_at);
    assert_eq!(seen, [(1, shared), (2, own), (3, own), (4, shared)]);

    let frame = b.packet(own_at, 5, 500, 0);
    assert_eq!(b.port.send(&mut b.umem, frame), None);
    assert_eq!(b.port.flush(&mut b.umem), None);
    assert_eq!(a.received_by(1, 1), [(5, 500, 0)]);
}

#[test]
fn ike_goes_to_its_queue_and_what_does_not_fit_there_is_counted() {
    let (a, mut b) = (end(), end());
    for n in 0..6u8 {
        let message = [&MARKER[..], &[n; 30]].concat();
        a.port.socket.send_to(&message, b.port.local).unwrap();
    }
    let (mut frames, mut full) = (Vec::new(), 0);
    for _ in 0..500 {
        b.port.receive(0, &mut b.umem, &mut frames, |reason| {
            assert_eq!(reason, Counter::QueueFull);
            full += 1;
        });
        if full >= 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(frames.is_empty());
    assert_eq!(full, 2);
    let first = b.ike.try_recv().unwrap();
    assert_eq!((first.from, &first.data[..]), (a.port.local, &[0; 30][..]));
}

#[test]
fn what_is_too_long_for_a_frame_is_counted() {
    let (a, mut b) = (end(), end());
    let long = vec![1; CHUNK];
    a.port.socket.send_to(&long, b.port.local).unwrap();
    let (mut frames, mut counted) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        b.port
            .receive(0, &mut b.umem, &mut frames, |reason| counted.push(reason));
        if !counted.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(frames.is_empty());
    assert_eq!(counted, [Counter::BadLength]);
    assert_eq!(b.umem.free_chunks(), b.umem.chunks());
}

#[test]
fn a_packet_that_is_none_is_refused() {
    let mut a = end();
    let mut frame = a.umem.take().unwrap();
    frame.set_range(HEADROOM..HEADROOM + 5);
    assert_eq!(a.port.send(&mut a.umem, frame), Some((Counter::NoRoute, 1)));
    assert_eq!(a.umem.free_chunks(), a.umem.chunks());
}
