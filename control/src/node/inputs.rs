//! All that the core listens to, in the order in which it is served.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use anyhow::{Result, anyhow};
use tokio::net::UdpSocket;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connectivity::readable;
use super::sockets::Datagram;
use crate::api::server::Command;
use crate::cluster::channel::{News, Uplink};
use crate::dataplane::WorkerReport;
use crate::dataplane::net::fib_watch::{LinkChange, NetlinkError};

/// Where news comes from.
pub(super) struct Inputs {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hangup: Signal,
    pub(super) reports: mpsc::Receiver<WorkerReport>,
    pub(super) links: mpsc::Receiver<LinkChange>,
    pub(super) arrivals: mpsc::Receiver<(u32, IpAddr)>,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Of an edge: its ways to authorities.
    pub(super) uplinks: Vec<Uplink>,
    /// Of the connectivity protocol.
    pub(super) connectivity: Option<Arc<UdpSocket>>,
    /// The task that follows routes, neighbours and links.
    pub(super) watch: JoinHandle<NetlinkError>,
}

/// Something to act on.
#[derive(Debug)]
pub(super) enum Input {
    Stop,
    Reload,
    Report(WorkerReport),
    Link(LinkChange),
    /// A neighbour can be reached by an interface.
    Arrival(u32, IpAddr),
    Command(Command),
    Datagram(Datagram),
    /// Of the way with this number.
    News(usize, News),
    /// The socket of the connectivity protocol has something.
    Connectivity,
    /// Nothing but time has passed.
    Time,
}

impl Inputs {
    /// The next input, until `deadline`.
    ///
    /// # Errors
    /// One that the node can not go on without has ended. It would look alive and be blind.
    pub(super) async fn next(
        &mut self,
        datagram: impl Future<Output = Option<Datagram>>,
        deadline: Instant,
    ) -> Result<Input> {
        let uplinks = &mut self.uplinks;
        let news = std::future::poll_fn(|context| {
            let mut all = uplinks.iter_mut().enumerate();
            let ready = all.find_map(|(index, uplink)| match uplink.poll_next(context) {
                Poll::Ready(news) => Some((index, news)),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Ok(Input::Stop),
            _ = self.interrupt.recv() => Ok(Input::Stop),
            report = self.reports.recv() => match report {
                Some(report) => Ok(Input::Report(report)),
                None => Err(anyhow!("the worker has ended without a word; packets are not handled any more")),
            },
            why = &mut self.watch => Err(match why {
                Ok(why) => anyhow!(why).context("the watch over routes and links has ended"),
                Err(why) => anyhow!(why).context("the watch over routes and links broke down"),
            }),
            Some(change) = self.links.recv() => Ok(Input::Link(change)),
            Some((interface, address)) = self.arrivals.recv() => Ok(Input::Arrival(interface, address)),
            // People first: a flood of datagrams must not shut them out. There are few of these, and
            // whoever sends them waits for the answer.
            command = self.commands.recv() => match command {
                Some(command) => Ok(Input::Command(command)),
                None => Err(anyhow!("the API has ended; nobody could see or stop this node")),
            },
            _ = self.hangup.recv() => Ok(Input::Reload),
            (uplink, news) = news => Ok(Input::News(uplink, news)),
            () = readable(self.connectivity.as_deref()) => Ok(Input::Connectivity),
            datagram = datagram => Ok(datagram.map_or(Input::Time, Input::Datagram)),
            () = tokio::time::sleep_until(deadline.into()) => Ok(Input::Time),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::signal::unix::{SignalKind, signal};

    use super::*;

    /// What feeds the inputs.
    struct Ends {
        reports: mpsc::Sender<WorkerReport>,
        _links: mpsc::Sender<LinkChange>,
        commands: mpsc::Sender<Command>,
    }

    fn inputs() -> (Inputs, Ends) {
        let signal = || signal(SignalKind::user_defined2()).unwrap();
        let (reports, report_queue) = mpsc::channel(1);
        let (links, link_queue) = mpsc::channel(1);
        let (_, arrivals) = mpsc::channel(1);
        let (commands, command_queue) = mpsc::channel(1);
        let inputs = Inputs {
            terminate: signal(),
            interrupt: signal(),
            hangup: signal(),
            reports: report_queue,
            links: link_queue,
            arrivals,
            commands: command_queue,
            uplinks: Vec::new(),
            connectivity: None,
            watch: tokio::spawn(std::future::pending()),
        };
        let ends = Ends {
            reports,
            _links: links,
            commands,
        };
        (inputs, ends)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    async fn silence() -> Option<Datagram> {
        std::future::pending().await
    }

    #[tokio::test]
    async fn time_passes() {
        let (mut inputs, _ends) = inputs();
        let input = inputs.next(silence(), soon()).await.unwrap();
        assert!(matches!(input, Input::Time));
    }

    #[tokio::test]
    async fn a_helper_that_ends_is_told_in_one_sentence() {
        let (mut inputs, ends) = inputs();
        drop(ends.reports);
        let error = inputs.next(silence(), soon()).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("the worker has ended"));

        let (mut inputs, _ends) = self::inputs();
        inputs.watch = tokio::spawn(async { NetlinkError::Closed });
        let error = inputs.next(silence(), soon()).await.unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "the watch over routes and links has ended: the netlink connection is closed"
        );

        let (mut inputs, ends) = self::inputs();
        drop(ends.commands);
        let error = inputs.next(silence(), soon()).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("the API has ended"));
    }

    #[tokio::test]
    async fn a_flood_of_datagrams_does_not_shut_commands_out() {
        let (mut inputs, ends) = inputs();
        let flood = || async {
            let from = "192.0.2.66:500".parse().unwrap();
            Some(Datagram {
                local: from,
                remote: from,
                data: vec![0; 28],
                esp: false,
            })
        };
        let input = inputs.next(flood(), soon()).await.unwrap();
        assert!(matches!(input, Input::Datagram(_)));
        let (reply, _wait) = tokio::sync::oneshot::channel();
        ends.commands.try_send(Command::SaList { reply }).unwrap();
        let input = inputs.next(flood(), soon()).await.unwrap();
        assert!(
            matches!(input, Input::Command(Command::SaList { .. })),
            "{input:?}"
        );
        let input = inputs.next(flood(), soon()).await.unwrap();
        assert!(matches!(input, Input::Datagram(_)));
    }
}
