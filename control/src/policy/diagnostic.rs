//! What is wrong or doubtful in a policy file, where, and how it is shown.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::keywords::{Section, Setting};
use super::lex::without_mark;

/// A place in the file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Span {
    pub line: u32,
    pub column: u32,
    /// In characters, at least 1.
    pub length: u32,
}

/// A text from the file as it appears in a message: quoted, escaped and kept short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found(String);

impl Found {
    const LONGEST: usize = 48;

    pub(super) fn new(text: &str) -> Self {
        if text.is_empty() {
            return Self("the end of the line".to_owned());
        }
        let mut shown: String = text.chars().take(Self::LONGEST).collect();
        // What a terminal would obey, or a reader could not see, must not reach it raw.
        shown = shown.chars().flat_map(escape).collect();
        let more = if text.chars().nth(Self::LONGEST).is_some() {
            "\u{2026}"
        } else {
            ""
        };
        Self(format!("`{shown}{more}`"))
    }
}

fn escape(c: char) -> Box<dyn Iterator<Item = char>> {
    if matches!(c, '\'' | '"' | '\\') {
        Box::new([c].into_iter())
    } else {
        Box::new(c.escape_debug())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes a policy unusable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error("found {found} before any section, expected [GENERAL], [CLUSTER] or [TUNNEL] first")]
    EntryOutsideSection { found: Found },
    #[error(
        "found {found}, expected a section alone on its line: [GENERAL], [CLUSTER] or [TUNNEL]"
    )]
    MalformedSection { found: Found },
    #[error("unknown section: found {found}, expected [GENERAL], [CLUSTER] or [TUNNEL]")]
    UnknownSection { found: Found },
    #[error("no equals sign: found {found}, expected `key = value`")]
    MissingEquals { found: Found },
    #[error("unknown key: found {found}, expected {expected}")]
    UnknownKey {
        found: Found,
        expected: &'static str,
    },
    #[error("misplaced key: found {key} in {section}, expected it in {home}")]
    WrongSection {
        key: &'static str,
        section: SectionName,
        home: SectionName,
    },
    #[error("found {found} after {keyword}, expected a number from 0 to 2147483647")]
    BadNumber { keyword: &'static str, found: Found },
    #[error("no value: found nothing after `{key} =`, expected {expected}")]
    MissingValue { key: String, expected: &'static str },
    #[error("duplicate: found {what} again, expected it once (first on line {first_line})")]
    Duplicate { what: String, first_line: u32 },
    #[error("bad address: found {found}, expected {expected}")]
    BadAddress {
        found: Found,
        expected: &'static str,
    },
    #[error("bad prefix: found {found}, expected a length from 0 to {longest} after the slash")]
    BadPrefix { found: Found, longest: u8 },
    #[error("bad prefix: found {found} with host bits set, expected {network}")]
    HostBits { found: Found, network: ipnet::IpNet },
    #[error("reversed range: found the end {end} below the start {start}, expected it above")]
    ReversedRange { start: IpAddr, end: IpAddr },
    #[error("mixed families: found {start} and {end}, expected both IPv4 or both IPv6")]
    MixedFamilies { start: IpAddr, end: IpAddr },
    #[error("not a gateway: found the {kind} address {address}, expected a unicast address")]
    NotAGateway { address: IpAddr, kind: &'static str },
    #[error("not a target: found the {kind} address {address}, expected unicast addresses")]
    NotATarget { address: IpAddr, kind: &'static str },
    #[error("not a server: found the {kind} address {address}, expected a unicast address")]
    NotAServer { address: IpAddr, kind: &'static str },
    #[error("duplicate gateway: found {address} again in cluster {cluster}, expected it once")]
    DuplicateGateway { cluster: u32, address: IpAddr },
    #[error("undefined cluster: found Cluster {number}, expected {defined}")]
    UndefinedCluster { number: u32, defined: String },
    #[error("undefined tunnel: found Redirect Tunnel {number}, expected an entry Tunnel {number}")]
    UndefinedTunnel { number: u32 },
    #[error("found {found}, expected {expected}")]
    Unexpected {
        found: Found,
        expected: &'static str,
    },
    #[error("bad value of {setting}: found {found}, expected {expected}")]
    BadValue {
        setting: Setting,
        found: Found,
        expected: &'static str,
    },
    #[error("{setting} out of range: found {found}, expected 1ms to 1h (3600s)")]
    TimerOutOfRange { setting: Setting, found: Found },
}

/// What is allowed and most likely not meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyWarning {
    #[error(
        "tunnel {number} overlaps tunnel {owner}: found addresses of both, the lower number, tunnel {owner}, gets them"
    )]
    Overlap { number: u32, owner: u32 },
    #[error(
        "tunnel {number} overlaps {count} more tunnels with lower numbers, which get the addresses"
    )]
    OverlapMore { number: u32, count: usize },
    #[error("tunnel {number} is never used: tunnels with lower numbers own all of its range")]
    NeverUsed { number: u32 },
    #[error("cluster {number} is not used by any tunnel or redirect")]
    UnusedCluster { number: u32 },
    #[error(
        "gateway {address} lies inside the range of tunnel {tunnel} that it serves: packets for it would be sent into its own tunnel"
    )]
    GatewayInOwnTunnel { address: IpAddr, tunnel: u32 },
    #[error(
        "gateway {address} lies inside the range of tunnel {tunnel}, which leads elsewhere: it would be reached only through that tunnel"
    )]
    GatewayInOtherTunnel { address: IpAddr, tunnel: u32 },
    #[error("gateway {address} is a loopback address: it is this host itself")]
    LoopbackGateway { address: IpAddr },
    #[error(
        "cluster {number} has IPv4 and IPv6 gateways: a node without both outside can not reach all of them"
    )]
    MixedCluster { number: u32 },
    #[error("the redirect of tunnel {number} has no effect: the tunnel's target is not AUTO")]
    IdleRedirect { number: u32 },
    #[error("section {section} appears again: its entries are added to the earlier ones")]
    SectionAgain { section: SectionName },
    #[error("no tunnel is defined: nothing would be protected")]
    NoTunnel,
    #[error("{setting} has no effect: found Heartbeat = NONE, so no heartbeat is ever sent")]
    NoHeartbeat { setting: Setting },
    #[error(
        "HeartbeatResponseTime {response} is more than 10 times HeartbeatDeferTime {defer}: the short defer time gains little, as a failure is noticed only after {total}"
    )]
    SlowResponse {
        response: String,
        defer: String,
        total: String,
    },
    #[error(
        "HeartbeatResponseTime {response} is below 5ms: gateways with a longer round trip would be held for dead"
    )]
    TightResponse { response: String },
    #[error(
        "a failure is noticed only after {total} (defer time plus twice the response time): many applications give up before"
    )]
    LateDetection { total: String },
    #[error(
        "Standby = {standby}, but the largest cluster in use has {largest} gateways: at most {most} can stand by"
    )]
    StandbyTooLarge {
        standby: u32,
        largest: usize,
        most: usize,
    },
}

/// A section as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionName(pub(super) Section);

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An error or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    #[error(transparent)]
    Error(#[from] PolicyError),
    #[error(transparent)]
    Warning(#[from] PolicyWarning),
}

/// Whether a problem makes the policy unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One problem at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub span: Span,
    pub problem: Problem,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(super) fn new(span: Span, problem: impl Into<Problem>) -> Self {
        Self {
            span,
            problem: problem.into(),
            hint: None,
        }
    }

    pub(super) fn with_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = hint.map(Into::into);
        self
    }

    pub fn severity(&self) -> Severity {
        match self.problem {
            Problem::Error(_) => Severity::Error,
            Problem::Warning(_) => Severity::Warning,
        }
    }

    pub fn is_error(&self) -> bool {
        self.severity() == Severity::Error
    }

    /// The diagnostic in full, with file name, source line and caret; `text` is the whole file.
    pub fn render<'a>(&'a self, path: &'a str, text: &'a str) -> impl fmt::Display + 'a {
        let line = usize::try_from(self.span.line)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        Rendered {
            diagnostic: self,
            path,
            source: without_mark(text).lines().nth(line),
        }
    }

    /// Like [`Self::render`] for a caller that has the source line at hand.
    pub(super) fn render_line<'a>(
        &'a self,
        path: &'a str,
        source: Option<&'a str>,
    ) -> impl fmt::Display + 'a {
        Rendered {
            diagnostic: self,
            path,
            source,
        }
    }
}

/// One line, without the file name: `line 3, column 5: error: …`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, .. } = self.span;
        write!(
            f,
            "line {line}, column {column}: {}: {}",
            self.severity(),
            self.problem
        )?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

struct Rendered<'a> {
    diagnostic: &'a Diagnostic,
    path: &'a str,
    source: Option<&'a str>,
}

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic {
            span,
            problem,
            hint,
        } = self.diagnostic;
        let Span {
            line,
            column,
            length,
        } = *span;
        let severity = self.diagnostic.severity();
        writeln!(f, "{}:{line}:{column}: {severity}: {problem}", self.path)?;
        if let Some(source) = self.source {
            excerpt(f, source, line, column, length)?;
        }
        match hint {
            Some(hint) => writeln!(f, "      = help: {hint}"),
            None => Ok(()),
        }
    }
}

/// What a terminal obeys, or what turns or hides the text around it.
fn unshowable(c: char) -> bool {
    let turns_or_hides = matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || turns_or_hides
}

/// The source line with carets under the place; only the part around it if the line is long.
fn excerpt(
    f: &mut fmt::Formatter<'_>,
    source: &str,
    line: u32,
    column: u32,
    length: u32,
) -> fmt::Result {
    const BEFORE: usize = 60;
    const WIDTH: usize = 100;
    let at = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let from = at.saturating_sub(BEFORE);
    // One cell for each character keeps the caret below its place.
    let shown: String = source
        .chars()
        .skip(from)
        .take(WIDTH)
        .map(|c| {
            if c == '\t' {
                ' '
            } else if unshowable(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    let cut = if from > 0 { "\u{2026}" } else { "" };
    let more = if source.chars().nth(from + WIDTH).is_some() {
        "\u{2026}"
    } else {
        ""
    };
    let indent = at - from + cut.chars().count();
    let room = WIDTH.saturating_sub(at - from).max(1);
    let carets = usize::try_from(length).unwrap_or(usize::MAX).clamp(1, room);
    writeln!(f, "{line:>5} | {cut}{}{more}", shown.trim_end())?;
    writeln!(f, "      | {:indent$}{:^<carets$}", "", "")
}
