//! The routes that lead a client's tunnel ranges into its TUN device, and their sources.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dataplane::net::links::{self, LinkError};

/// What the kernel says where there is such a route already.
const EEXIST: i32 = 17;

/// Routes, each with the address that sockets get which have not chosen one.
pub(super) type Wanted = BTreeMap<IpNet, Option<IpAddr>>;

/// What the kernel does with routes; tests have another one.
pub(super) trait Kernel {
    /// Makes a route; one that leads to the same place already is no error.
    async fn add(&self, route: IpNet, source: Option<IpAddr>) -> Result<(), LinkError>;
    /// Gives a route of ours another source.
    async fn replace(&self, route: IpNet, source: Option<IpAddr>) -> Result<(), LinkError>;
    /// Removes a route; one that is gone already is no error.
    async fn remove(&self, route: IpNet) -> Result<(), LinkError>;
}

/// The routes and addresses of one device in the running kernel.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) links: rtnetlink::Handle,
    pub(super) index: u32,
}

impl Device {
    pub(super) async fn add_address(&self, address: IpAddr) -> Result<(), LinkError> {
        let length = IpNet::from(address).prefix_len();
        links::add_address(&self.links, self.index, address, length).await
    }

    pub(super) async fn remove_address(&self, address: IpAddr) -> Result<(), LinkError> {
        let length = IpNet::from(address).prefix_len();
        links::remove_address(&self.links, self.index, address, length).await
    }

    /// Whether the route is one of ours that was left over.
    async fn leads_here(&self, route: IpNet) -> Result<bool, LinkError> {
        let family = if route.addr().is_ipv4() {
            netlink_packet_route::AddressFamily::Inet
        } else {
            netlink_packet_route::AddressFamily::Inet6
        };
        let all = links::routes(&self.links, family).await?;
        Ok(all.iter().any(|there| {
            (there.destination, there.length) == (route.network(), route.prefix_len())
                && there.hops.iter().any(|hop| hop.interface == self.index)
        }))
    }
}

impl Kernel for Device {
    async fn add(&self, route: IpNet, source: Option<IpAddr>) -> Result<(), LinkError> {
        let (address, length) = (route.addr(), route.prefix_len());
        let added = links::add_route(&self.links, self.index, address, length, source).await;
        match added {
            Err(error) if exists(&error) && self.leads_here(route).await? => {
                self.replace(route, source).await
            }
            added => added,
        }
    }

    async fn replace(&self, route: IpNet, source: Option<IpAddr>) -> Result<(), LinkError> {
        let (address, length) = (route.addr(), route.prefix_len());
        links::replace_route(&self.links, self.index, address, length, source).await
    }

    async fn remove(&self, route: IpNet) -> Result<(), LinkError> {
        links::remove_route(&self.links, self.index, route.addr(), route.prefix_len()).await
    }
}

fn exists(error: &LinkError) -> bool {
    let LinkError::Set { why, .. } = error else {
        return false;
    };
    matches!(why, rtnetlink::Error::NetlinkError(error) if error.raw_code() == -EEXIST)
}

/// The routes that are there, one by one as they were made.
pub(super) struct Routes<K> {
    kernel: K,
    there: Wanted,
}

impl<K: Kernel> Routes<K> {
    pub(super) fn new(kernel: K) -> Self {
        Self {
            kernel,
            there: Wanted::new(),
        }
    }

    /// Adds what is missing of `wanted`: all, or after an error none.
    pub(super) async fn extend(&mut self, wanted: &Wanted) -> Result<(), LinkError> {
        let mut added = Vec::new();
        for (route, source) in wanted {
            if self.there.contains_key(route) {
                continue;
            }
            if let Err(error) = self.kernel.add(*route, *source).await {
                for route in added {
                    self.remove(route).await;
                }
                return Err(error);
            }
            self.there.insert(*route, *source);
            added.push(*route);
        }
        Ok(())
    }

    /// Gives routes the source that is wanted now. One that the kernel refuses goes on with its
    /// old source, and is tried again at the next change.
    pub(super) async fn follow(&mut self, wanted: &Wanted) {
        for (route, source) in wanted {
            let Some(there) = self.there.get_mut(route) else {
                continue;
            };
            if source.is_none() || there == source {
                continue;
            }
            match self.kernel.replace(*route, *source).await {
                Ok(()) => *there = *source,
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// Whether a route has this source: the kernel removes such a route with the address.
    pub(super) fn use_source(&self, address: IpAddr) -> bool {
        self.there.values().any(|source| *source == Some(address))
    }

    /// Removes all but `wanted`.
    pub(super) async fn retain(&mut self, wanted: &Wanted) {
        let gone = self
            .there
            .keys()
            .filter(|route| !wanted.contains_key(route));
        for route in gone.copied().collect::<Vec<_>>() {
            self.remove(route).await;
        }
    }

    /// One that can not be removed is tried again at the next change. Until then its packets end
    /// in the device, which is better than that they leave in plain.
    async fn remove(&mut self, route: IpNet) {
        match self.kernel.remove(route).await {
            Ok(()) => {
                self.there.remove(&route);
            }
            Err(error) => tracing::warn!("{error}; it will be tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A kernel that refuses some routes, and writes down what it did.
    #[derive(Default)]
    struct Fake {
        refuses: RefCell<Vec<IpNet>>,
        done: RefCell<Vec<String>>,
    }

    impl Fake {
        fn answer(&self, what: &str, route: IpNet) -> Result<(), LinkError> {
            if self.refuses.borrow().contains(&route) {
                return Err(LinkError::Missing {
                    name: route.to_string(),
                    there: String::new(),
                });
            }
            self.done.borrow_mut().push(format!("{what} {route}"));
            Ok(())
        }
    }

    impl Kernel for Fake {
        async fn add(&self, route: IpNet, _: Option<IpAddr>) -> Result<(), LinkError> {
            self.answer("add", route)
        }

        async fn replace(&self, route: IpNet, source: Option<IpAddr>) -> Result<(), LinkError> {
            let source = source.map(|source| source.to_string()).unwrap_or_default();
            self.answer(&format!("source {source} for"), route)
        }

        async fn remove(&self, route: IpNet) -> Result<(), LinkError> {
            self.answer("remove", route)
        }
    }

    const A: &str = "10.0.0.0/24";
    const B: &str = "10.0.1.0/24";
    const C: &str = "10.0.2.0/24";

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn wanted(routes: &[&str]) -> Wanted {
        routes.iter().map(|route| (net(route), None)).collect()
    }

    fn took(routes: &Routes<Fake>) -> Vec<String> {
        routes.kernel.done.take()
    }

    #[tokio::test]
    async fn a_refused_route_leaves_the_routes_as_they_were() {
        let mut routes = Routes::new(Fake::default());
        routes.extend(&wanted(&[A])).await.unwrap();
        took(&routes);

        routes.kernel.refuses.borrow_mut().push(net(C));
        assert!(routes.extend(&wanted(&[A, B, C])).await.is_err());
        assert_eq!(took(&routes), [format!("add {B}"), format!("remove {B}")]);
        assert_eq!(routes.there, wanted(&[A]));

        routes.kernel.refuses.borrow_mut().clear();
        routes.extend(&wanted(&[B, C])).await.unwrap();
        routes.retain(&wanted(&[B, C])).await;
        let expected = [
            format!("add {B}"),
            format!("add {C}"),
            format!("remove {A}"),
        ];
        assert_eq!(took(&routes), expected);
        assert_eq!(routes.there, wanted(&[B, C]));
    }

    #[tokio::test]
    async fn a_route_that_could_not_be_removed_is_still_ours() {
        let mut routes = Routes::new(Fake::default());
        routes.extend(&wanted(&[A])).await.unwrap();
        routes.kernel.refuses.borrow_mut().push(net(A));
        routes.retain(&wanted(&[])).await;
        assert_eq!(routes.there, wanted(&[A]));
        // Wanted again, it is not made a second time, which the kernel would refuse.
        routes.extend(&wanted(&[A])).await.unwrap();
        routes.kernel.refuses.borrow_mut().clear();
        took(&routes);
        routes.retain(&wanted(&[])).await;
        assert_eq!(took(&routes), [format!("remove {A}")]);
    }

    #[tokio::test]
    async fn routes_follow_the_source_that_is_wanted() {
        let mut routes = Routes::new(Fake::default());
        routes.extend(&wanted(&[A, B])).await.unwrap();
        took(&routes);
        let source: IpAddr = "10.99.0.1".parse().unwrap();
        let sources = Wanted::from([
            (net(A), Some(source)),
            (net(B), None),
            (net(C), Some(source)),
        ]);
        routes.follow(&sources).await;
        assert_eq!(took(&routes), [format!("source 10.99.0.1 for {A}")]);
        assert!(routes.use_source(source));
        routes.follow(&sources).await;
        routes.follow(&wanted(&[A])).await;
        assert!(took(&routes).is_empty(), "no change");

        let next: IpAddr = "10.99.0.2".parse().unwrap();
        let sources = Wanted::from([(net(A), Some(next))]);
        routes.kernel.refuses.borrow_mut().push(net(A));
        routes.follow(&sources).await;
        assert!(routes.use_source(source), "refused: it has the old one");
        routes.kernel.refuses.borrow_mut().clear();
        routes.follow(&sources).await;
        assert!(routes.use_source(next) && !routes.use_source(source));
    }
}
