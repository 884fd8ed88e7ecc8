//! Interfaces by name, and the few settings that a TUN device needs.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteMessage, RouteScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::fib::{Fib, Interface, Neighbours, Route, RouteTables};
use super::netlink::{self, Link, NetlinkError};

/// What went wrong with an interface.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("there is no interface {name:?} in this network namespace; there are {there}")]
    Missing { name: String, there: String },
    #[error("interface {name:?} is not an Ethernet interface, which AF_XDP and ARP need")]
    NotEthernet { name: String },
    #[error("can not {what}: {why}")]
    Set { what: String, why: rtnetlink::Error },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What is known of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Index, MAC, MTU, whether it is up and has carrier, addresses.
    pub interface: Interface,
    /// First global IPv4 address and its prefix length.
    pub v4: Option<(IpAddr, u8)>,
    /// First global IPv6 address and its prefix length.
    pub v6: Option<(IpAddr, u8)>,
    /// Router of the IPv4 default route by this interface.
    pub router_v4: Option<IpAddr>,
    /// Router of the IPv6 default route by this interface.
    pub router_v6: Option<IpAddr>,
    /// Whether IPv4 packets that come by it are forwarded, if the kernel says.
    pub forwards_v4: Option<bool>,
}

/// A connection for requests, in the network namespace of the calling thread. Its other half is
/// spawned on the current tokio runtime and ends with the last clone of the handle.
///
/// # Errors
/// No socket could be opened.
pub fn connect() -> Result<Handle, NetlinkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
    tokio::spawn(connection);
    Ok(handle)
}

/// All links, in the kernel's order.
pub(crate) async fn links(handle: &Handle) -> Result<Vec<Link>, NetlinkError> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let all = netlink::dump(handle, "the list of interfaces", request).await?;
    let link = |message| match message {
        RouteNetlinkMessage::NewLink(message) => netlink::link(&message),
        _ => None,
    };
    Ok(all.into_iter().filter_map(link).collect())
}

/// All usable addresses, in the kernel's order.
pub(crate) async fn addresses(handle: &Handle) -> Result<Vec<netlink::Address>, NetlinkError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let all = netlink::dump(handle, "the list of addresses", request).await?;
    let address = |message| match message {
        RouteNetlinkMessage::NewAddress(message) => netlink::address(&message),
        _ => None,
    };
    Ok(all.into_iter().filter_map(address).collect())
}

/// All routes of one family.
pub(crate) async fn routes(
    handle: &Handle,
    family: AddressFamily,
) -> Result<Vec<Route>, NetlinkError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    let request = RouteNetlinkMessage::GetRoute(request);
    let all = netlink::dump(handle, "the routing tables", request).await?;
    let route = |message| match message {
        RouteNetlinkMessage::NewRoute(message) => netlink::route(&message),
        _ => None,
    };
    Ok(all.into_iter().filter_map(route).collect())
}

/// Puts a link and its addresses together, global ones first.
pub(crate) fn interface(link: &Link, addresses: &[netlink::Address]) -> Interface {
    let mut own: Vec<_> = addresses
        .iter()
        .filter(|a| a.interface == link.index)
        .collect();
    own.sort_by_key(|address| !address.global);
    Interface {
        name: link.name.clone(),
        index: link.index,
        mac: link.mac,
        mtu: link.mtu,
        up: link.enabled && link.carrier,
        addresses: own
            .iter()
            .map(|address| (address.address, address.length))
            .collect(),
    }
}

impl LinkInfo {
    /// Everything about the interface `name`.
    ///
    /// # Errors
    /// There is no such interface, or the kernel does not answer.
    pub async fn by_name(handle: &Handle, name: &str) -> Result<Self, LinkError> {
        let links = links(handle).await?;
        let Some(link) = links.iter().find(|link| link.name == name) else {
            let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
            return Err(LinkError::Missing {
                name: name.to_owned(),
                there: names.join(", "),
            });
        };
        let addresses = addresses(handle).await?;
        let first = |v4: bool| {
            let fits = |a: &&netlink::Address| {
                a.interface == link.index && a.global && a.address.is_ipv4() == v4
            };
            addresses.iter().find(fits).map(|a| (a.address, a.length))
        };
        let mut all = routes(handle, AddressFamily::Inet).await?;
        all.extend(routes(handle, AddressFamily::Inet6).await?);
        let interface = interface(link, &addresses);
        let tables = RouteTables::new(&all, &[interface.index]);
        let fib = Fib::new(Vec::new(), tables.into(), Neighbours::default().into());
        Ok(Self {
            v4: first(true),
            v6: first(false),
            router_v4: fib.default_router(interface.index, false),
            router_v6: fib.default_router(interface.index, true),
            interface,
            forwards_v4: link.forwards_v4,
        })
    }

    /// The MAC of an interface that must have one.
    ///
    /// # Errors
    /// It is no Ethernet interface.
    pub fn mac(&self) -> Result<super::frame::Mac, LinkError> {
        let name = || self.interface.name.clone();
        self.interface
            .mac
            .ok_or_else(|| LinkError::NotEthernet { name: name() })
    }
}

/// Switches an interface on and sets its MTU (bytes).
///
/// # Errors
/// The kernel refuses.
pub async fn set_up(handle: &Handle, index: u32, mtu: u32) -> Result<(), LinkError> {
    let message = LinkUnspec::new_with_index(index).up().mtu(mtu).build();
    handle
        .link()
        .change(message)
        .execute()
        .await
        .map_err(|why| LinkError::Set {
            what: format!("switch interface {index} on with an MTU of {mtu}"),
            why,
        })
}

/// Limits into how many packets one super-packet that the kernel hands to an interface can be cut, and sets
/// how many packets may wait there (`ip link set … gso_max_segs … txqueuelen …`).
///
/// # Errors
/// The kernel refuses.
pub async fn set_queue(
    handle: &Handle,
    index: u32,
    segments: u32,
    packets: u32,
) -> Result<(), LinkError> {
    let message = LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::GsoMaxSegs(segments))
        .append_extra_attribute(LinkAttribute::TxQueueLen(packets))
        .build();
    let result = handle.link().change(message).execute().await;
    result.map_err(|why| LinkError::Set {
        what: format!(
            "limit super-packets of interface {index} to {segments} segments, and its queue to {packets} packets"
        ),
        why,
    })
}

/// Gives an interface an address; it is no error if it has it already. An IPv6 address is usable
/// at once: on a TUN device there is nobody who could have the same one.
///
/// # Errors
/// The kernel refuses.
pub async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    length: u8,
) -> Result<(), LinkError> {
    let mut request = handle.address().add(index, address, length).replace();
    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    request.execute().await.map_err(|why| LinkError::Set {
        what: format!("give interface {index} the address {address}/{length}"),
        why,
    })
}

/// Takes an address from an interface; it is no error if it does not have it.
///
/// # Errors
/// The kernel refuses.
pub async fn remove_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    length: u8,
) -> Result<(), LinkError> {
    let mut request = handle.address().add(index, address, length);
    let message = request.message_mut().clone();
    let done = handle.address().del(message).execute().await;
    gone(done, EADDRNOTAVAIL, || {
        format!("take the address {address}/{length} from interface {index}")
    })
}

/// Removes a route that [`add_route`] made; it is no error if it is gone already.
///
/// # Errors
/// The kernel refuses.
pub async fn remove_route(
    handle: &Handle,
    index: u32,
    destination: IpAddr,
    length: u8,
) -> Result<(), LinkError> {
    let message = route_message(index, destination, length, None);
    let done = handle.route().del(message).execute().await;
    gone(done, ESRCH, || {
        format!("remove the route {destination}/{length} from interface {index}")
    })
}

/// What came of a removal: it is no error if the kernel does not have it, which it says by `errno`.
fn gone(
    done: Result<(), rtnetlink::Error>,
    errno: i32,
    what: impl FnOnce() -> String,
) -> Result<(), LinkError> {
    match done {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -errno => Ok(()),
        Err(why) => Err(LinkError::Set { what: what(), why }),
        Ok(()) => Ok(()),
    }
}

/// Routes a prefix into an interface in the main table, with `source` as the address of local
/// sockets that have not chosen one. An existing route is never replaced: it would not come back.
///
/// # Errors
/// The kernel refuses; also if it has a route for the very same prefix and metric.
pub async fn add_route(
    handle: &Handle,
    index: u32,
    destination: IpAddr,
    length: u8,
    source: Option<IpAddr>,
) -> Result<(), LinkError> {
    let message = route_message(index, destination, length, source);
    let request = handle.route().add(message);
    request.execute().await.map_err(|why| LinkError::Set {
        what: format!("route {destination}/{length} into interface {index}"),
        why,
    })
}

/// Gives a route that [`add_route`] made another `source`, without a moment in which there is no
/// route.
///
/// # Errors
/// The kernel refuses.
pub async fn replace_route(
    handle: &Handle,
    index: u32,
    destination: IpAddr,
    length: u8,
    source: Option<IpAddr>,
) -> Result<(), LinkError> {
    let message = route_message(index, destination, length, source);
    let request = handle.route().add(message).replace();
    request.execute().await.map_err(|why| LinkError::Set {
        what: format!("change the route {destination}/{length} into interface {index}"),
        why,
    })
}

const ESRCH: i32 = 3;
const EADDRNOTAVAIL: i32 = 99;

fn route_message(
    index: u32,
    destination: IpAddr,
    length: u8,
    source: Option<IpAddr>,
) -> RouteMessage {
    match destination {
        IpAddr::V4(destination) => {
            let mut builder = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(destination, length)
                .output_interface(index)
                .scope(RouteScope::Link);
            if let Some(IpAddr::V4(source)) = source {
                builder = builder.pref_source(source);
            }
            builder.build()
        }
        IpAddr::V6(destination) => {
            let mut builder = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(destination, length)
                .output_interface(index);
            if let Some(IpAddr::V6(source)) = source {
                builder = builder.pref_source(source);
            }
            builder.build()
        }
    }
}
