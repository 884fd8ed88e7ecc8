//! From what the file says to a configuration that can work, or to a list of all that is wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use super::file::{self, File, Number, Table, Text, Time, choices, problem};
use super::{
    Channel, ChannelEnd, Config, Identity, Inside, Named, Outside, Problem, Role, SOCKET_DIRECTORY,
    STATE_DIRECTORY, XdpMode, duration,
};

/// The longest name of an interface: `IFNAMSIZ` less its final zero.
const MAX_INTERFACE: usize = 15;
/// The longest path of a Unix socket.
const MAX_SOCKET: usize = 107;

pub(super) type Place = Range<usize>;

/// Collects what is wrong while the configuration is put together. Getters answer with a default
/// once they have complained, so that one walk finds everything.
pub(super) struct Checker<'a> {
    path: &'a Path,
    pub(super) source: &'a str,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Of the files that were named.
    folders: BTreeSet<PathBuf>,
}

/// Turns the file into a configuration.
pub(super) fn check(path: &Path, source: &str, file: File) -> Result<Config, Vec<Problem>> {
    let mut c = Checker {
        path,
        source,
        errors: Vec::new(),
        warnings: Vec::new(),
        folders: path.parent().map(Path::to_path_buf).into_iter().collect(),
    };
    let config = c.config(file);
    c.errors.sort();
    c.warnings.sort();
    match config {
        Some(config) if c.errors.is_empty() => Ok(Config {
            warnings: c.warnings,
            folders: c.folders,
            ..config
        }),
        _ => Err(c.errors),
    }
}

/// With its article.
fn a(role: Role) -> String {
    match role {
        Role::Authority => format!("an {role}"),
        Role::Client | Role::Gateway | Role::Front => format!("a {role}"),
    }
}

/// Whether a node decides by itself who may be its client.
fn channel_is_own(channel: Option<&Channel>) -> bool {
    !matches!(
        channel.map(|channel| &channel.end),
        Some(ChannelEnd::Edge { .. })
    )
}

/// The whole file: where a missing top-level key is reported.
pub(super) const TOP: Place = 0..0;

impl Checker<'_> {
    pub(super) fn error(&mut self, at: &Place, text: impl Into<String>) {
        self.errors.push(problem(self.source, at, text.into()));
    }

    pub(super) fn warn(&mut self, at: &Place, text: impl Into<String>) {
        self.warnings.push(problem(self.source, at, text.into()));
    }

    fn config(&mut self, file: File) -> Option<Config> {
        self.of_no_use(&file);
        let File {
            name,
            role,
            identity,
            socket,
            policy,
            ..
        } = file;
        let name = self.required(name, &TOP, "name", "the node's name, such as \"gw-a\"");
        let name = name.and_then(|name| self.node_name(name));
        let role = self.required(
            role,
            &TOP,
            "role",
            "\"client\", \"gateway\", \"authority\" or \"front\"",
        );
        let role: Option<Role> = role.and_then(|role| self.named(&role, "role"));
        let expected = "the node's IKE identity, such as \"gw-a.example\"";
        let identity = match (role, identity) {
            // It authenticates to nobody.
            (Some(Role::Front), None) => name.clone().map(Identity::Fqdn),
            (_, text) => {
                let text = self.required(text, &TOP, "identity", expected);
                text.and_then(|text| self.identity(&text, "identity"))
            }
        };
        let socket = self.socket(socket, name.as_deref());
        // What is right depends on the role, so without one nothing further is judged.
        let role = role?;
        let policy = self.policy(policy, role);
        let outside = self.outside(file.outside, role);
        let inside = self.inside(file.inside, role);
        if let (Some((outside, _)), Some((inside, at))) = (&outside, &inside)
            && outside.interface == inside.interface
            && !matches!(role, Role::Authority | Role::Front)
        {
            let found = &inside.interface;
            self.error(
                at,
                format!(
                    "inside.interface: found `{found}`, which is the outside \
                interface too; expected another one"
                ),
            );
        }
        let state = match file.state {
            Some(folder) => self.resolved(folder.get_ref()),
            None => PathBuf::from(STATE_DIRECTORY),
        };
        let x509 = self.x509(file.local, identity.as_ref());
        let heartbeat = self.heartbeat(file.heartbeat, role);
        let esp = self.esp(file.esp);
        let ike = self.ike(file.ike);
        let drain = self.drain(file.drain, role);
        let steering_at = file.steering.as_ref().map_or(TOP, Spanned::span);
        let steering = self.steering(file.steering, role, outside.as_ref().map(|(o, _)| o));
        let channel = self.channel(
            file.channel,
            role,
            outside.as_ref().map(|(o, _)| o),
            inside.as_ref().map(|(i, _)| i),
        );
        let connectivity = self.connectivity(file.connectivity, role, channel.as_ref());
        let filter = self.filter(file.filter, role, outside.as_ref().map(|(o, _)| o));
        let at = outside.as_ref().map(|(o, _)| o);
        let front = self.front(file.front, role, at, channel.as_ref());
        let (channelled, fronted) = (channel.as_ref(), front.as_ref());
        let behind = self.behind(file.behind, role, at, channelled, &heartbeat, fronted);
        if let (Some(_), true) = (&steering, front.is_some() || behind.is_some()) {
            let said = "[steering]: found beside [front] or [behind], expected one of the two ways: by numbers \
                        in SPIs, or by clients";
            self.error(&steering_at, said);
        }
        let repository = self.repository(file.repository, role, &state);
        let privileges = self.privileges(file.privileges);
        let any_pool = file.pool.is_some();
        let (pool, pool_at) = self.pool(file.pool, role);
        let own = outside.as_ref().and_then(|(outside, _)| outside.address);
        if let (Some(address), Some((_, at))) = (own, &outside) {
            self.not_pooled(address, &pool, at, "outside.address");
        }
        let (peers, mut groups) = self.peers(
            file.peers,
            role,
            &x509,
            identity.as_ref(),
            own,
            any_pool.then_some(&pool),
        );
        let (users, of_users) =
            self.users(file.users, role, &x509, &peers, any_pool.then_some(&pool));
        groups.extend(of_users);
        let known = !(peers.is_empty() && users.is_empty() && groups.is_empty());
        if matches!(role, Role::Gateway | Role::Authority)
            && channel_is_own(channel.as_ref())
            && !known
        {
            self.warn(
                &pool_at,
                "no [[peer]]: no client can authenticate; only SAs that are \
                written by hand (`evergate sa add`) will carry traffic",
            );
        }
        Some(Config {
            path: self.path.to_path_buf(),
            name: name?,
            role,
            identity: identity?,
            socket: socket?,
            state,
            policy,
            outside: outside?.0,
            inside: inside?.0,
            x509,
            heartbeat,
            esp,
            ike,
            drain,
            steering,
            front,
            behind,
            channel,
            connectivity,
            filter,
            repository,
            pool,
            peers,
            users,
            groups,
            privileges,
            folders: BTreeSet::new(),
            warnings: Vec::new(),
        })
    }

    pub(super) fn required<T>(
        &mut self,
        value: Option<T>,
        at: &Place,
        key: &str,
        what: &str,
    ) -> Option<T> {
        if value.is_none() {
            self.error(at, format!("`{key}` is missing: expected {what}"));
        }
        value
    }

    pub(super) fn table<T: Default>(&mut self, table: Table<T>) -> T {
        table.map(Spanned::into_inner).unwrap_or_default()
    }

    fn node_name(&mut self, name: Spanned<String>) -> Option<String> {
        let at = name.span();
        let name = name.into_inner();
        let sane = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let first = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || name.len() > 64 || !name.bytes().all(sane) {
            self.error(
                &at,
                format!(
                    "name: found `{name}`, expected 1 to 64 letters, digits, \
                `.`, `_` or `-`, the first a letter or digit"
                ),
            );
            return None;
        }
        Some(name)
    }

    pub(super) fn named<T: Named>(&mut self, text: &Spanned<String>, key: &str) -> Option<T> {
        let found = text.get_ref();
        let value = T::NAMES
            .iter()
            .find(|(name, _)| name == found)
            .map(|(_, value)| *value);
        if value.is_none() {
            let known: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
            let choices = choices(found, &known);
            self.error(&text.span(), format!("{key}: found `{found}`, {choices}"));
        }
        value
    }

    pub(super) fn named_or<T: Named + Default>(&mut self, text: Text, key: &str) -> T {
        text.and_then(|text| self.named(&text, key))
            .unwrap_or_default()
    }

    pub(super) fn parsed<T: FromStr>(
        &mut self,
        text: &Spanned<String>,
        key: &str,
        what: &str,
    ) -> Option<T> {
        let found = text.get_ref();
        let value = found.parse().ok();
        if value.is_none() {
            self.error(
                &text.span(),
                format!("{key}: found `{found}`, expected {what}"),
            );
        }
        value
    }

    pub(super) fn identity(&mut self, text: &Spanned<String>, key: &str) -> Option<Identity> {
        self.parsed(
            text,
            key,
            "a host name, an e-mail address, an IP address or a distinguished name",
        )
    }

    /// An address that one host can have.
    pub(super) fn unicast(&mut self, text: &Spanned<String>, key: &str) -> Option<IpAddr> {
        let address: IpAddr =
            self.parsed(text, key, "an IP address such as 192.0.2.1 or 2001:db8::1")?;
        let what = match address {
            IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 notation",
            _ if address.is_multicast() => "a multicast address",
            _ if address.is_unspecified() => "the unspecified address",
            _ => return Some(address),
        };
        let text_at = text.span();
        self.error(
            &text_at,
            format!("{key}: found {address}, {what}; expected a host's address"),
        );
        None
    }

    pub(super) fn interface(
        &mut self,
        text: Text,
        at: &Place,
        key: &str,
        what: &str,
    ) -> Option<String> {
        let name = self.required(text, at, key, what)?;
        let place = name.span();
        let name = name.into_inner();
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c);
        if name.is_empty() || name.len() > MAX_INTERFACE {
            let bytes = name.len();
            self.error(
                &place,
                format!(
                    "{key}: found `{name}` of {bytes} bytes, expected the \
                name of an interface: 1 to {MAX_INTERFACE} bytes"
                ),
            );
            return None;
        }
        if name.contains(odd) || name == "." || name == ".." {
            self.error(
                &place,
                format!(
                    "{key}: found `{name}`, expected the name of an \
                interface, without blanks, `/`, `:` and `%`"
                ),
            );
            return None;
        }
        Some(name)
    }

    pub(super) fn number(
        &mut self,
        number: Number,
        key: &str,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let number = number?;
        let found = *number.get_ref();
        if range.contains(&found) {
            return Some(found);
        }
        let (low, high) = (range.start(), range.end());
        self.error(
            &number.span(),
            format!("{key}: found {found}, expected {low} to {high}"),
        );
        None
    }

    pub(super) fn time(
        &mut self,
        time: Time,
        key: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let time = time?;
        let found = &time.get_ref().0;
        let Some(value) = duration::parse(found) else {
            let expected = duration::EXPECTED;
            self.error(
                &time.span(),
                format!("{key}: found `{found}`, expected {expected}"),
            );
            return None;
        };
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (duration::show(*range.start()), duration::show(*range.end()));
        self.error(
            &time.span(),
            format!("{key}: found {found}, expected {low} to {high}"),
        );
        None
    }

    pub(super) fn unused<T>(
        &mut self,
        value: Option<&Spanned<T>>,
        key: &str,
        role: Role,
        why: &str,
    ) {
        if let Some(value) = value {
            self.warn(
                &value.span(),
                format!("{key} has no effect on {}: {why}", a(role)),
            );
        }
    }

    /// A path of the file, relative to the file's own directory.
    fn resolved(&self, text: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(text)
    }

    /// The same, for a file that will be read again.
    pub(super) fn beside(&mut self, text: &str) -> PathBuf {
        let path = self.resolved(text);
        self.folders.extend(path.parent().map(Path::to_path_buf));
        path
    }

    fn socket(&mut self, socket: Text, name: Option<&str>) -> Option<PathBuf> {
        let at = socket.as_ref().map_or(TOP, Spanned::span);
        let path = match socket {
            Some(path) if path.get_ref().is_empty() => {
                self.error(
                    &at,
                    "socket: found an empty path, expected one such as \
                    \"/run/evergate/gw-a.sock\"",
                );
                return None;
            }
            Some(path) => self.resolved(path.get_ref()),
            None => Path::new(SOCKET_DIRECTORY).join(format!("{}.sock", name?)),
        };
        let bytes = path.as_os_str().len();
        if bytes > MAX_SOCKET {
            let shown = path.display();
            self.error(
                &at,
                format!(
                    "socket: found {shown} of {bytes} bytes, expected at most \
                {MAX_SOCKET}"
                ),
            );
            return None;
        }
        Some(path)
    }

    fn policy(&mut self, policy: Text, role: Role) -> Option<PathBuf> {
        match (policy, role) {
            (Some(policy), Role::Client) if policy.get_ref().is_empty() => {
                self.error(
                    &policy.span(),
                    "policy: found an empty path, expected a file",
                );
                None
            }
            (Some(policy), Role::Client) => Some(self.beside(policy.get_ref())),
            (None, Role::Client) => {
                self.error(
                    &TOP,
                    "`policy` is missing: expected the policy file of this client, \
                    such as \"policy.conf\"",
                );
                None
            }
            (Some(policy), role) => {
                self.error(
                    &policy.span(),
                    format!(
                        "policy: found on {}, expected only on a \
                        client; others follow their clients' policies",
                        a(role)
                    ),
                );
                None
            }
            (None, _) => None,
        }
    }

    /// Answers with the place too, for what is found out later.
    fn outside(&mut self, table: Table<file::Outside>, role: Role) -> Option<(Outside, Place)> {
        let what = match role {
            Role::Authority => "the address that the edges share",
            Role::Client | Role::Gateway | Role::Front => {
                "the interface toward the untrusted network"
            }
        };
        let table = self.required(table, &TOP, "[outside]", what)?;
        let at = table.span();
        let table = table.into_inner();
        let address_at = table.address.as_ref().map_or(at.clone(), Spanned::span);
        let address = table
            .address
            .and_then(|text| self.unicast(&text, "outside.address"));
        let xdp = self.named_or(table.xdp, "outside.xdp");
        let path_mtu = self.named_or(table.path_mtu, "outside.path_mtu");
        let interface = match role {
            Role::Authority => {
                let why = "it has no packets to carry";
                self.unused(table.interface.as_ref(), "outside.interface", role, why);
                self.required(address, &at, "outside.address", what)?;
                String::new()
            }
            _ => self.interface(table.interface, &at, "outside.interface", what)?,
        };
        Some((
            Outside {
                interface,
                address,
                xdp,
                path_mtu,
            },
            address_at,
        ))
    }

    fn inside(&mut self, table: Table<file::Inside>, role: Role) -> Option<(Inside, Place)> {
        let what = match role {
            Role::Client => "the name of the TUN device to create",
            Role::Gateway => "the interface toward the LAN",
            Role::Authority | Role::Front => {
                let why = match role {
                    Role::Authority => "it has no packets to carry",
                    _ => "it has no tunnels, the nodes behind it have them",
                };
                self.unused(table.as_ref(), "[inside]", role, why);
                let none = Inside {
                    interface: String::new(),
                    mtu: None,
                    xdp: XdpMode::Off,
                };
                return Some((none, TOP));
            }
        };
        let table = self.required(table, &TOP, "[inside]", what)?;
        let at = table.span();
        let table = table.into_inner();
        match role {
            Role::Client => {
                self.unused(
                    table.xdp.as_ref(),
                    "inside.xdp",
                    role,
                    "its inside is a TUN device",
                );
            }
            Role::Gateway => {
                let why = "it uses the interface's own MTU";
                self.unused(table.mtu.as_ref(), "inside.mtu", role, why);
            }
            Role::Authority | Role::Front => {}
        }
        let mtu = self.number(table.mtu, "inside.mtu", 576..=3400);
        let xdp: XdpMode = self.named_or(table.xdp, "inside.xdp");
        let name_at = table.interface.as_ref().map_or(at.clone(), Spanned::span);
        let interface = self.interface(table.interface, &at, "inside.interface", what)?;
        let mtu = mtu.and_then(|mtu| u16::try_from(mtu).ok());
        Some((
            Inside {
                interface,
                mtu,
                xdp,
            },
            name_at,
        ))
    }
}
