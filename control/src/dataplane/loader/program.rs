//! One program of the object: loading it, attaching it, running it without an interface.

use std::{os::fd::AsFd, time::Duration};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, MapData, MapError, PerCpuArray, XskMap},
    programs::{
        ProgramError, TestRun as _, TestRunOptions, Xdp,
        links::FdLink,
        xdp::{XdpLinkId, XdpMode as AyaMode},
    },
};
use evergate_common::reason::Counter;

use super::{
    LoadError, OBJECT,
    error::{errno, explain},
    interface::index,
};

/// How a program is to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native if the driver can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic path, which works with any driver and is slower.
    Generic,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the kernel's generic path.
    Generic,
}

/// What came of attaching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// How the program is attached.
    pub mode: AttachedMode,
    /// A sentence for the operator, if it is not as good as it could be.
    pub warning: Option<String>,
}

/// Counters summed over all CPUs, by [`Counter::index`].
pub type Counters = [u64; Counter::COUNT];

/// What a program did with a packet in a run without an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The verdict: 1 drop, 2 pass, 3 send back, 4 redirect.
    pub verdict: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Time of one run, averaged over the repetitions.
    pub duration: Duration,
}

/// A loaded program and the object that it came from.
#[derive(Debug)]
pub(super) struct Program {
    ebpf: Ebpf,
    name: &'static str,
    link: Option<Link>,
}

/// Detaches when dropped, also when the process dies.
#[derive(Debug)]
struct Link(#[expect(dead_code, reason = "held for its file descriptor")] FdLink);

impl Program {
    /// Loads one program. `globals`: its load-time settings. `sizes`: entries of maps that are to
    /// differ from the object's. `request_mac`: only for the program that repeats a request.
    pub(super) fn load(
        name: &'static str,
        globals: &[(&'static str, u8)],
        request_mac: Option<u64>,
        sizes: &[(&'static str, u32)],
    ) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        for (global, value) in globals {
            loader.override_global(global, value, true);
        }
        if let Some(mac) = &request_mac {
            loader.override_global("REQUEST_MAC", mac, true);
        }
        for (map, entries) in sizes {
            loader.map_max_entries(map, *entries);
        }
        let what = format!("loading XDP program {name}");
        let ebpf = loader
            .load(OBJECT)
            .map_err(|error| explain(&what, &error))?;
        let mut program = Program {
            ebpf,
            name,
            link: None,
        };
        program
            .xdp()?
            .load()
            .map_err(|error| explain(&what, &error))?;
        Ok(program)
    }

    fn xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        let what = format!("XDP program {}", self.name);
        let missing = || LoadError::Refused {
            what: what.clone(),
            cause: "not in the object file".to_owned(),
        };
        self.ebpf
            .program_mut(self.name)
            .ok_or_else(missing)?
            .try_into()
            .map_err(|error: ProgramError| explain(&what, &error))
    }

    /// Takes a map out of the object.
    pub(super) fn map<M>(&mut self, name: &'static str) -> Result<M, LoadError>
    where
        M: TryFrom<aya::maps::Map, Error = MapError>,
    {
        let what = format!("map {name}");
        let map = self.ebpf.take_map(name).ok_or_else(|| LoadError::Refused {
            what: what.clone(),
            cause: "not in the object file".to_owned(),
        })?;
        M::try_from(map).map_err(|error| explain(&what, &error))
    }

    /// Attaches to an interface; what was attached before is detached first.
    pub(super) fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, LoadError> {
        self.detach();
        let index = index(interface)?;
        let tries: &[(AyaMode, AttachedMode)] = match mode {
            XdpMode::Auto => &[
                (AyaMode::Driver, AttachedMode::Native),
                (AyaMode::Skb, AttachedMode::Generic),
            ],
            XdpMode::Native => &[(AyaMode::Driver, AttachedMode::Native)],
            XdpMode::Generic => &[(AyaMode::Skb, AttachedMode::Generic)],
        };
        let mut warning = None;
        let mut result = None;
        for (flag, attached) in tries {
            match self.link(interface, index, *flag) {
                Ok(link) => {
                    self.link = Some(Link(link));
                    return Ok(Attached {
                        mode: *attached,
                        warning,
                    });
                }
                // Generic mode would not change these.
                Err(error @ (LoadError::Busy { .. } | LoadError::Privilege { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    warning = Some(format!(
                        "interface {interface}: no native XDP, so the slower generic mode is \
                         used ({error})"
                    ));
                    result = Some(error);
                }
            }
        }
        Err(result.unwrap_or_else(|| LoadError::NoInterface {
            interface: interface.to_owned(),
        }))
    }

    fn link(&mut self, interface: &str, index: u32, mode: AyaMode) -> Result<FdLink, LoadError> {
        let name = self.name;
        let program = self.xdp()?;
        let attached: Result<XdpLinkId, _> = program.attach_to_if_index(index, mode);
        let id = attached.map_err(|error| refusal(interface, name, mode, &error))?;
        let what = format!("interface {interface}: attaching XDP program {name}");
        let link = program
            .take_link(id)
            .map_err(|error| explain(&what, &error))?;
        // aya falls back to netlink, and such a program would outlive us.
        FdLink::try_from(link).map_err(|_| LoadError::Kernel {
            what: format!("interface {interface}: BPF links for XDP"),
            found: "running here".to_owned(),
        })
    }

    /// Detaches, if attached.
    pub(super) fn detach(&mut self) {
        self.link = None;
    }

    /// Runs the program on a packet by `BPF_PROG_TEST_RUN`.
    pub(super) fn run(&mut self, packet: &[u8], repeat: u32) -> Result<Run, LoadError> {
        let what = format!("running XDP program {}", self.name);
        let mut out = vec![0; packet.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.repeat = repeat;
        let result = self
            .xdp()?
            .test_run(options)
            .map_err(|error| explain(&what, &error))?;
        out.truncate(result.data_size_out as usize);
        Ok(Run {
            verdict: result.return_value,
            packet: out,
            duration: result.duration,
        })
    }
}

fn refusal(interface: &str, name: &str, mode: AyaMode, error: &ProgramError) -> LoadError {
    let interface = interface.to_owned();
    match errno(error) {
        Some(libc::EBUSY | libc::EEXIST) => LoadError::Busy { interface },
        Some(libc::ENODEV) => LoadError::NoInterface { interface },
        Some(libc::ERANGE) => LoadError::Mtu { interface },
        Some(code @ (libc::EOPNOTSUPP | libc::EINVAL)) if mode == AyaMode::Driver => {
            LoadError::NotNative {
                interface,
                cause: std::io::Error::from_raw_os_error(code),
            }
        }
        _ => explain(
            &format!("interface {interface}: attaching XDP program {name}"),
            error,
        ),
    }
}

/// Sums counters over all CPUs.
pub(super) fn sum(
    map: &'static str,
    counters: &PerCpuArray<MapData, u64>,
) -> Result<Counters, LoadError> {
    let mut sums = [0; Counter::COUNT];
    for (index, slot) in (0u32..).zip(sums.iter_mut()) {
        let values = counters
            .get(&index, 0)
            .map_err(|error| explain(map, &error))?;
        *slot = values
            .iter()
            .fold(0u64, |sum, value| sum.wrapping_add(*value));
    }
    Ok(sums)
}

/// Puts a socket into an XSK map.
pub(super) fn set_xsk(
    map: &'static str,
    sockets: &mut XskMap<MapData>,
    queue: u32,
    socket: impl AsFd,
) -> Result<(), LoadError> {
    sockets
        .set(queue, socket.as_fd(), 0)
        .map_err(|error| explain(&format!("map {map}, receive queue {queue}"), &error))
}

/// Writes the one element of an array.
pub(super) fn set_only<V: Pod>(
    map: &'static str,
    array: &mut Array<MapData, V>,
    value: V,
) -> Result<(), LoadError> {
    array
        .set(0, value, 0)
        .map_err(|error| explain(&format!("map {map}"), &error))
}
