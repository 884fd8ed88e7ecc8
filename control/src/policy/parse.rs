//! The policy file: sections, entries, and what must hold across them. Pure: text in, [`Parsed`] out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::diagnostic::{Diagnostic, Found, PolicyError, PolicyWarning, SectionName, Span};
use super::keywords::{Key, Section, Setting};
use super::lex::{Piece, lines};
use super::model::{
    ClusterDef, HeartbeatForm, HeartbeatMode, Policy, RedirectDef, Target, TunnelDef, Via,
};
use super::{value, warn};

/// What came of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The policy, unless there is an error.
    pub policy: Option<Policy>,
    /// All errors, or all warnings if there is no error; by place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Where the entries stand, for what is checked when all of them are known.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) settings: BTreeMap<Setting, Span>,
    pub(super) clusters: BTreeMap<u32, ClusterPlace>,
    pub(super) tunnels: BTreeMap<u32, TunnelPlace>,
    pub(super) redirects: BTreeMap<(u32, IpAddr), Span>,
    /// Clusters as named by tunnels and redirects.
    references: Vec<(u32, Span)>,
}

#[derive(Debug, Default)]
pub(super) struct ClusterPlace {
    pub(super) key: Span,
    /// In the order of the cluster's gateways.
    pub(super) gateways: Vec<Span>,
}

#[derive(Debug, Default)]
pub(super) struct TunnelPlace {
    pub(super) key: Span,
    pub(super) range: Span,
    pub(super) target: Span,
}

/// Where an entry stands that comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Before any section; the flag says that this has been reported.
    Nothing(bool),
    Known(Section),
    /// In a section that was reported as unknown: its entries mean nothing.
    Unknown,
}

/// Reads the text of a policy file. Never panics and has no side effect.
pub fn parse(text: &str) -> Parsed {
    let mut parser = Parser {
        policy: Policy::default(),
        places: Places::default(),
        problems: Vec::new(),
        within: Within::Nothing(false),
        sections: BTreeSet::new(),
    };
    for line in lines(text) {
        if line.text.starts_with('[') {
            parser.section(line);
        } else {
            parser.entry(line);
        }
    }
    parser.finish()
}

struct Parser {
    policy: Policy,
    places: Places,
    problems: Vec<Diagnostic>,
    within: Within,
    sections: BTreeSet<Section>,
}

impl Parser {
    fn report(&mut self, span: Span, error: PolicyError) {
        self.problems.push(Diagnostic::new(span, error));
    }

    fn report_with_hint(&mut self, span: Span, error: PolicyError, near: Option<String>) {
        let hint = near.map(|near| format!("did you mean `{near}`?"));
        self.problems
            .push(Diagnostic::new(span, error).with_hint(hint));
    }

    /// Keeps the value of a successful reading and reports a failed one.
    fn kept<T>(&mut self, read: Result<T, Diagnostic>) -> Option<T> {
        read.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn section(&mut self, line: Piece<'_>) {
        let name = line
            .text
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'));
        let Some((name, "")) = name else {
            let found = Found::new(line.text);
            self.report(line.span(), PolicyError::MalformedSection { found });
            // The name is most likely right, so that its entries are still checked.
            let letters = line
                .text
                .trim_start_matches('[')
                .split([']', ' ', '\t'])
                .next();
            self.within = letters
                .and_then(|name| Section::named(name).or_else(|| Section::like(name)))
                .map_or(Within::Unknown, Within::Known);
            return;
        };
        let name = name.trim();
        if let Some(section) = Section::named(name) {
            self.within = Within::Known(section);
            if !self.sections.insert(section) {
                let warning = PolicyWarning::SectionAgain {
                    section: SectionName(section),
                };
                self.problems.push(Diagnostic::new(line.span(), warning));
            }
            return;
        }
        let meant = Section::like(name);
        let error = PolicyError::UnknownSection {
            found: Found::new(line.text),
        };
        self.report_with_hint(line.span(), error, meant.map(|section| section.to_string()));
        self.within = meant.map_or(Within::Unknown, Within::Known);
    }

    fn entry(&mut self, line: Piece<'_>) {
        match self.within {
            Within::Unknown => return,
            Within::Nothing(false) => {
                let found = Found::new(line.text);
                self.report(line.span(), PolicyError::EntryOutsideSection { found });
                self.within = Within::Nothing(true);
            }
            Within::Nothing(true) | Within::Known(_) => {}
        }
        let Some((name, value)) = line.split_once('=') else {
            let found = Found::new(line.text);
            return self.report(line.end(), PolicyError::MissingEquals { found });
        };
        let Some((key, number)) = self.key(name) else {
            return;
        };
        match key {
            Key::Setting(setting) => self.setting(setting, name, value),
            Key::Cluster => self.cluster(number, name, value),
            Key::Tunnel => self.tunnel(number, name, value),
            Key::Redirect => self.redirect(number, name, value),
        }
    }

    /// Reads the left side. A slip is reported and then taken for what it most likely means, so
    /// that the value is checked too and nothing that refers to the entry seems undefined.
    fn key(&mut self, name: Piece<'_>) -> Option<(Key, Option<u32>)> {
        let is_letter = |c: char| !c.is_ascii_digit() && !matches!(c, '+' | '-');
        let digits = name.text.trim_start_matches(is_letter);
        let (word, digits) = name.split_at(name.text.len() - digits.len());
        let word = word.trim();
        let named = Key::named(word.text)
            .filter(|key| digits.is_empty() || !matches!(key, Key::Setting(_)));
        let key = match named {
            Some(key) => key,
            None => {
                let near = Key::like(word.text);
                let found = Found::new(name.text);
                let expected = match self.within {
                    Within::Known(section) => section.entries(),
                    Within::Nothing(_) | Within::Unknown => "a key of a section",
                };
                let error = PolicyError::UnknownKey { found, expected };
                self.report_with_hint(name.span(), error, near.map(str::to_owned));
                Key::named(near?)?
            }
        };
        if let Within::Known(section) = self.within
            && section != key.home()
            && named.is_some()
        {
            let (section, home) = (SectionName(section), SectionName(key.home()));
            let error = PolicyError::WrongSection {
                key: key.name(),
                section,
                home,
            };
            self.report(name.span(), error);
        }
        if matches!(key, Key::Setting(_)) {
            return Some((key, None));
        }
        let number = value::number(digits.text);
        if number.is_none() {
            let (span, found) = match digits.is_empty() {
                true => (name.end(), Found::new("=")),
                false => (digits.span(), Found::new(digits.text)),
            };
            self.report(
                span,
                PolicyError::BadNumber {
                    keyword: key.name(),
                    found,
                },
            );
        }
        Some((key, number))
    }

    /// Reports an entry without a value.
    fn has_value(&mut self, name: Piece<'_>, value: Piece<'_>, expected: &'static str) -> bool {
        if value.is_empty() {
            let key = Found::new(name.text)
                .to_string()
                .trim_matches('`')
                .to_owned();
            self.report(value.end(), PolicyError::MissingValue { key, expected });
        }
        !value.is_empty()
    }

    fn again(&mut self, name: Piece<'_>, what: String, first: Span) {
        self.report(
            name.span(),
            PolicyError::Duplicate {
                what,
                first_line: first.line,
            },
        );
    }

    fn setting(&mut self, setting: Setting, name: Piece<'_>, value: Piece<'_>) {
        const MODES: [(&str, HeartbeatMode); 3] = [
            ("NONE", HeartbeatMode::None),
            ("DEFERRED", HeartbeatMode::Deferred),
            ("INSTANT", HeartbeatMode::Instant),
        ];
        const FORMS: [(&str, HeartbeatForm); 2] = [
            ("KEYED", HeartbeatForm::Keyed),
            ("PLAIN", HeartbeatForm::Plain),
        ];
        let expected = match setting {
            Setting::Heartbeat => "NONE, DEFERRED or INSTANT",
            Setting::HeartbeatResponseTime | Setting::HeartbeatDeferTime => {
                "a time, as in `1.5` (seconds) or `50ms`"
            }
            Setting::HeartbeatForm => "KEYED or PLAIN",
            Setting::RandomOrder => "yes or no",
            Setting::Standby => "a number of gateways",
        };
        let first = self.places.settings.get(&setting).copied();
        if let Some(first) = first {
            self.again(name, setting.to_string(), first);
        }
        if !self.has_value(name, value, expected) {
            return;
        }
        // A second value is checked, but the first one stays.
        let mut general = self.policy.general.clone();
        let read = match setting {
            Setting::Heartbeat => {
                value::word(value, setting, expected, &MODES).map(|mode| general.heartbeat = mode)
            }
            Setting::HeartbeatResponseTime => {
                value::timer(value, setting).map(|time| general.response_time = time)
            }
            Setting::HeartbeatDeferTime => {
                value::timer(value, setting).map(|time| general.defer_time = time)
            }
            Setting::HeartbeatForm => {
                value::word(value, setting, expected, &FORMS).map(|form| general.form = form)
            }
            Setting::RandomOrder => {
                value::word(value, setting, expected, &[("yes", true), ("no", false)])
                    .map(|random| general.random_order = random)
            }
            Setting::Standby => value::count(value, setting).map(|count| general.standby = count),
        };
        self.kept(read);
        if first.is_none() {
            self.places.settings.insert(setting, name.span());
            self.policy.general = general;
        }
    }

    fn cluster(&mut self, number: Option<u32>, name: Piece<'_>, value: Piece<'_>) {
        let first = number.and_then(|number| self.places.clusters.get(&number));
        let first = first.map(|place| place.key);
        if let (Some(number), Some(first)) = (number, first) {
            self.again(name, format!("Cluster {number}"), first);
        }
        let mut gateways = Vec::new();
        if self.has_value(name, value, "gateway addresses with blanks between") {
            gateways = value::gateways(value, number, &mut self.problems);
        }
        if let Some(number) = number.filter(|_| first.is_none()) {
            let (gateways, spans) = gateways.into_iter().unzip();
            let place = ClusterPlace {
                key: name.span(),
                gateways: spans,
            };
            self.places.clusters.insert(number, place);
            self.policy.clusters.insert(number, ClusterDef { gateways });
        }
    }

    fn tunnel(&mut self, number: Option<u32>, name: Piece<'_>, value: Piece<'_>) {
        let first = number.and_then(|number| self.places.tunnels.get(&number));
        let first = first.map(|place| place.key);
        if let (Some(number), Some(first)) = (number, first) {
            self.again(name, format!("Tunnel {number}"), first);
        }
        let mut place = TunnelPlace {
            key: name.span(),
            ..TunnelPlace::default()
        };
        let mut read = None;
        if self.has_value(name, value, "an address or range and its target") {
            let value = value::tunnel(value, &mut self.problems);
            place.range = value.range_span;
            if let Some((target, span)) = value.target {
                place.target = span;
                if let Target::Via(Via::Cluster(cluster)) = target {
                    self.places.references.push((cluster, span));
                }
                read = value.range.map(|(start, end)| (start, end, target));
            }
        }
        let Some(number) = number.filter(|_| first.is_none()) else {
            return;
        };
        self.places.tunnels.insert(number, place);
        if let Some((start, end, target)) = read {
            self.policy.tunnels.push(TunnelDef {
                number,
                start,
                end,
                target,
            });
        }
    }

    fn redirect(&mut self, number: Option<u32>, name: Piece<'_>, value: Piece<'_>) {
        if !self.has_value(
            name,
            value,
            "a server address and where it is redirected to",
        ) {
            return;
        }
        let read = value::redirect(value, &mut self.problems);
        let Some((server, via, span)) = read else {
            return;
        };
        if let Via::Cluster(cluster) = via {
            self.places.references.push((cluster, span));
        }
        let Some(tunnel) = number else { return };
        if let Some(first) = self.places.redirects.get(&(tunnel, server)).copied() {
            return self.again(name, format!("Redirect Tunnel {tunnel} of {server}"), first);
        }
        self.places.redirects.insert((tunnel, server), name.span());
        self.policy.redirects.push(RedirectDef {
            tunnel,
            server,
            via,
        });
    }

    /// Checks what only all entries together show.
    fn finish(mut self) -> Parsed {
        for (number, span) in std::mem::take(&mut self.places.references) {
            if !self.places.clusters.contains_key(&number) {
                let defined = defined(self.places.clusters.keys());
                self.report(span, PolicyError::UndefinedCluster { number, defined });
            }
        }
        let redirects: Vec<(u32, Span)> = self
            .places
            .redirects
            .iter()
            .map(|((tunnel, _), span)| (*tunnel, *span))
            .collect();
        for (number, span) in redirects {
            if !self.places.tunnels.contains_key(&number) {
                self.report(span, PolicyError::UndefinedTunnel { number });
            }
        }
        self.policy.tunnels.sort_by_key(|tunnel| tunnel.number);
        self.policy
            .redirects
            .sort_by_key(|redirect| (redirect.tunnel, redirect.server));
        let broken = self.problems.iter().any(Diagnostic::is_error);
        if broken {
            self.problems.retain(Diagnostic::is_error);
        } else {
            self.problems
                .extend(warn::warnings(&self.policy, &self.places));
        }
        self.problems.sort_by_key(|problem| problem.span);
        Parsed {
            policy: (!broken).then_some(self.policy),
            diagnostics: self.problems,
        }
    }
}

fn defined<'a>(clusters: impl ExactSizeIterator<Item = &'a u32>) -> String {
    const NAMED: usize = 8;
    let all = clusters.len();
    let names: Vec<String> = clusters
        .take(NAMED)
        .map(|n| format!("Cluster {n}"))
        .collect();
    match names.len() {
        0 => "an entry for it in [CLUSTER], which has none".to_owned(),
        named if named < all => format!("one of {} and {} more", names.join(", "), all - named),
        1 => names.concat(),
        _ => format!("one of {}", names.join(", ")),
    }
}
