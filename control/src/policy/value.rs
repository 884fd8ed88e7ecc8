//! What stands right of the equals sign: settings, lists of gateways, ranges and their targets.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::address::{better, hint, not_targets, not_unicast};
use super::diagnostic::{Diagnostic, Found, PolicyError, Span};
use super::duration::{self, NotATimer};
use super::keywords::{Setting, nearest};
use super::lex::Piece;
use super::model::{ClusterId, Target, Via};

const GATEWAY: &str = "the IP address of a gateway";
const TARGET: &str = "a gateway address, `Cluster <number>` or `AUTO`";
const REDIRECTION: &str = "a gateway address or `Cluster <number>`";
const RANGE: &str = "an IP address, a range `<start> - <end>` or a prefix";
const SERVER: &str = "the IP address of a server";

type Read<T> = Result<T, Diagnostic>;

fn fail<T>(piece: Piece<'_>, error: PolicyError) -> Read<T> {
    Err(Diagnostic::new(piece.span(), error))
}

fn did_you_mean(word: &str, words: &[&'static str]) -> Option<String> {
    nearest(word, words).map(|near| format!("did you mean `{near}`?"))
}

/// A number of a cluster or tunnel.
pub(super) fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.filter(|number| *number <= ClusterId::HIGHEST_NAMED)
}

fn address(word: Piece<'_>, expected: &'static str) -> Read<IpAddr> {
    word.text.parse().map_err(|_| {
        let error = PolicyError::BadAddress {
            found: Found::new(word.text),
            expected,
        };
        Diagnostic::new(word.span(), error).with_hint(hint(word.text))
    })
}

fn usable_gateway(word: Piece<'_>, address: IpAddr) -> Read<IpAddr> {
    match not_unicast(address) {
        None => Ok(address),
        Some(kind) => fail(word, PolicyError::NotAGateway { address, kind })
            .map_err(|d: Diagnostic| d.with_hint(better(address))),
    }
}

/// One of `words`, in any case.
pub(super) fn word<T: Copy>(
    value: Piece<'_>,
    setting: Setting,
    expected: &'static str,
    words: &[(&'static str, T)],
) -> Read<T> {
    let named = words
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(value.text));
    named.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let names: Vec<&'static str> = words.iter().map(|(name, _)| *name).collect();
        let error = PolicyError::BadValue {
            setting,
            found: Found::new(value.text),
            expected,
        };
        Diagnostic::new(value.span(), error).with_hint(did_you_mean(value.text, &names))
    })
}

/// A timer of 1 ms to 1 h.
pub(super) fn timer(value: Piece<'_>, setting: Setting) -> Read<Duration> {
    const EXPECTED: &str = "seconds, as in `1.5`, or a number with a unit, as in `50ms`";
    duration::read(value.text).map_err(|why| {
        let found = Found::new(value.text);
        let (error, hint) = match why {
            NotATimer::OutOfRange => (PolicyError::TimerOutOfRange { setting, found }, None),
            NotATimer::Malformed(hint) => (
                PolicyError::BadValue {
                    setting,
                    found,
                    expected: EXPECTED,
                },
                hint,
            ),
        };
        Diagnostic::new(value.span(), error).with_hint(hint)
    })
}

/// A count that fits 32 bits.
pub(super) fn count(value: Piece<'_>, setting: Setting) -> Read<u32> {
    let digits = value.text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| value.text.parse().ok())
        .flatten()
        .ok_or_else(|| {
            let found = Found::new(value.text);
            let expected = "a number from 0 to 4294967295";
            Diagnostic::new(
                value.span(),
                PolicyError::BadValue {
                    setting,
                    found,
                    expected,
                },
            )
        })
}

/// The gateways of a cluster and their places; every bad one is reported to `problems`.
pub(super) fn gateways(
    value: Piece<'_>,
    cluster: Option<u32>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<(IpAddr, Span)> {
    let mut seen = HashSet::new();
    let mut gateways = Vec::new();
    for word in value.words() {
        match address(word, GATEWAY).and_then(|found| usable_gateway(word, found)) {
            Ok(address) if seen.insert(address) => gateways.push((address, word.span())),
            Ok(address) => {
                let cluster = cluster.unwrap_or_default();
                let error = PolicyError::DuplicateGateway { cluster, address };
                problems.push(Diagnostic::new(word.span(), error));
            }
            Err(problem) if word.is_dash() => {
                let hint = "a cluster is a list, not a range: write each gateway";
                problems.push(problem.with_hint(Some(hint)));
            }
            Err(problem) => problems.push(problem),
        }
    }
    gateways
}

/// The two halves of a tunnel entry, each read as far as it can be.
pub(super) struct TunnelValue {
    pub(super) range: Option<(IpAddr, IpAddr)>,
    pub(super) range_span: Span,
    pub(super) target: Option<(Target, Span)>,
}

/// Reads `<start>[-<end>] <target>`; problems of both halves are reported to `problems`.
pub(super) fn tunnel(value: Piece<'_>, problems: &mut Vec<Diagnostic>) -> TunnelValue {
    let words = value.words_and_dashes();
    let (range, range_span, rest) = match words.as_slice() {
        [start, dash, end, rest @ ..] if dash.is_dash() => {
            (ends(*start, *end), start.through(*end), rest)
        }
        [start, dash] if dash.is_dash() => {
            let error = PolicyError::Unexpected {
                found: Found::new(""),
                expected: "the last address of the range after the dash",
            };
            problems.extend(address(*start, RANGE).err());
            problems.push(Diagnostic::new(dash.end(), error));
            return TunnelValue {
                range: None,
                range_span: start.through(*dash),
                target: None,
            };
        }
        [start, rest @ ..] => (single(*start), start.span(), rest),
        [] => {
            return TunnelValue {
                range: None,
                range_span: value.span(),
                target: None,
            };
        }
    };
    let mut target = target(value, rest, TARGET);
    // `<start> <end> Cluster 1`: the end was taken for the target.
    if let (Ok(_), [end, _, ..], Err(problem)) = (&range, rest, &mut target)
        && end.text.parse::<IpAddr>().is_ok()
        && problem.hint.is_none()
    {
        problem.hint = Some("a range is written with a dash between its ends".to_owned());
    }
    let range = range.map_err(|problem| problems.push(problem)).ok();
    let target = target.map_err(|problem| problems.push(problem)).ok();
    TunnelValue {
        range,
        range_span,
        target,
    }
}

fn ends(start: Piece<'_>, end: Piece<'_>) -> Read<(IpAddr, IpAddr)> {
    let whole = start.through(end);
    let prefix = |problem: Diagnostic, word: Piece<'_>| {
        let is_prefix = word.text.parse::<IpNet>().is_ok();
        match is_prefix.then_some("a prefix is a range already: it takes no dash") {
            Some(hint) => problem.with_hint(Some(hint)),
            None => problem,
        }
    };
    let first = address(start, "the first address of a range").map_err(|p| prefix(p, start))?;
    let last = address(end, "the last address of a range").map_err(|p| prefix(p, end))?;
    if first.is_ipv4() != last.is_ipv4() {
        let error = PolicyError::MixedFamilies {
            start: first,
            end: last,
        };
        return Err(Diagnostic::new(whole, error));
    }
    if last < first {
        let error = PolicyError::ReversedRange {
            start: first,
            end: last,
        };
        return Err(Diagnostic::new(whole, error));
    }
    judged(whole, first, last)
}

fn judged(span: Span, start: IpAddr, end: IpAddr) -> Read<(IpAddr, IpAddr)> {
    match not_targets(start, end) {
        None => Ok((start, end)),
        Some((address, kind)) => {
            let error = PolicyError::NotATarget { address, kind };
            Err(Diagnostic::new(span, error).with_hint(better(address)))
        }
    }
}

/// A single address or a prefix.
fn single(word: Piece<'_>) -> Read<(IpAddr, IpAddr)> {
    let Some(slash) = word.text.find('/') else {
        let address = address(word, RANGE)?;
        return judged(word.span(), address, address);
    };
    let (before, after) = word.split_at(slash);
    let network = address(before, "the network address of a prefix")?;
    let longest = if network.is_ipv4() { 32 } else { 128 };
    let length = after.text.strip_prefix('/').unwrap_or_default();
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let prefix = digits.then(|| length.parse().ok()).flatten();
    let Some(net) = prefix.and_then(|length| IpNet::new(network, length).ok()) else {
        return fail(
            word,
            PolicyError::BadPrefix {
                found: Found::new(word.text),
                longest,
            },
        );
    };
    if net.addr() != net.network() {
        let found = Found::new(word.text);
        return fail(
            word,
            PolicyError::HostBits {
                found,
                network: net.trunc(),
            },
        );
    }
    judged(word.span(), net.network(), net.broadcast())
}

/// Reads the last part of an entry, and that nothing follows it. `expected` says what is allowed.
fn target(value: Piece<'_>, words: &[Piece<'_>], expected: &'static str) -> Read<(Target, Span)> {
    let [first, rest @ ..] = words else {
        let error = PolicyError::Unexpected {
            found: Found::new(""),
            expected,
        };
        return Err(Diagnostic::new(value.end(), error));
    };
    let lower = first.text.to_ascii_lowercase();
    let (target, span, rest) = if lower == "auto" {
        if expected == REDIRECTION {
            let found = Found::new(first.text);
            return fail(*first, PolicyError::Unexpected { found, expected });
        }
        (Target::Auto, first.span(), rest)
    } else if lower.strip_prefix("cluster").is_some_and(|tail| {
        // `Clusters` is no number gone wrong, but a slip of the keyword.
        tail.is_empty() || !tail.starts_with(|c: char| c.is_alphabetic())
    }) {
        let (_, attached) = first.split_at("cluster".len());
        let (word, rest) = match (attached.is_empty(), rest) {
            (true, [word, rest @ ..]) => (*word, rest),
            _ => (attached, rest),
        };
        let Some(number) = number(word.text) else {
            let found = Found::new(word.text);
            return fail(
                word,
                PolicyError::BadNumber {
                    keyword: "`Cluster`",
                    found,
                },
            );
        };
        (Target::Via(Via::Cluster(number)), first.through(word), rest)
    } else {
        let address = address(*first, expected).map_err(|problem| match problem.hint {
            Some(_) => problem,
            None => problem.with_hint(did_you_mean(first.text, &["Cluster", "AUTO"])),
        })?;
        (
            Target::Via(Via::Gateway(usable_gateway(*first, address)?)),
            first.span(),
            rest,
        )
    };
    match rest {
        [] => Ok((target, span)),
        [surplus, ..] => {
            let found = Found::new(surplus.text);
            let expected = "the end of the line after the target";
            fail(*surplus, PolicyError::Unexpected { found, expected })
        }
    }
}

/// Reads `<server> <gateway or cluster>`; problems of both parts are reported to `problems`.
pub(super) fn redirect(
    value: Piece<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Option<(IpAddr, Via, Span)> {
    let words = value.words();
    let (server, rest) = words.split_first()?;
    let server = address(*server, SERVER).and_then(|address| match not_unicast(address) {
        None => Ok(address),
        Some(kind) => fail(*server, PolicyError::NotAServer { address, kind })
            .map_err(|d: Diagnostic| d.with_hint(better(address))),
    });
    let target = target(value, rest, REDIRECTION);
    let server = server.map_err(|problem| problems.push(problem)).ok();
    match target.map_err(|problem| problems.push(problem)).ok()? {
        (Target::Via(via), span) => Some((server?, via, span)),
        (Target::Auto, _) => None,
    }
}
