//! The words of the syntax, compared without regard to case, and what a misspelt one may mean.

use std::fmt;

/// The sections of a policy file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    General,
    Cluster,
    Tunnel,
}

impl Section {
    const ALL: [Self; 3] = [Self::General, Self::Cluster, Self::Tunnel];

    fn name(self) -> &'static str {
        match self {
            Self::General => "GENERAL",
            Self::Cluster => "CLUSTER",
            Self::Tunnel => "TUNNEL",
        }
    }

    /// What entries the section takes, for messages.
    pub(super) fn entries(self) -> &'static str {
        match self {
            Self::General => {
                "`Heartbeat`, `HeartbeatResponseTime`, `HeartbeatDeferTime`, `HeartbeatForm`, \
                 `RandomOrder` or `Standby`"
            }
            Self::Cluster => "`Cluster <number>`",
            Self::Tunnel => "`Tunnel <number>` or `Redirect Tunnel <number>`",
        }
    }

    /// Finds a section by the name between its brackets.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|section| section.name().eq_ignore_ascii_case(name))
    }

    /// The section that a misspelt name most likely means.
    pub(super) fn like(name: &str) -> Option<Self> {
        nearest(name, &Self::ALL.map(Self::name)).and_then(Self::named)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.name())
    }
}

/// A setting of the `[GENERAL]` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    Heartbeat,
    HeartbeatResponseTime,
    HeartbeatDeferTime,
    HeartbeatForm,
    RandomOrder,
    Standby,
}

impl Setting {
    /// The key as it is documented.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "Heartbeat",
            Self::HeartbeatResponseTime => "HeartbeatResponseTime",
            Self::HeartbeatDeferTime => "HeartbeatDeferTime",
            Self::HeartbeatForm => "HeartbeatForm",
            Self::RandomOrder => "RandomOrder",
            Self::Standby => "Standby",
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stands left of the equals sign, without its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Setting(Setting),
    Cluster,
    Tunnel,
    Redirect,
}

impl Key {
    const ALL: [Self; 9] = [
        Self::Setting(Setting::Heartbeat),
        Self::Setting(Setting::HeartbeatResponseTime),
        Self::Setting(Setting::HeartbeatDeferTime),
        Self::Setting(Setting::HeartbeatForm),
        Self::Setting(Setting::RandomOrder),
        Self::Setting(Setting::Standby),
        Self::Cluster,
        Self::Tunnel,
        Self::Redirect,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Setting(setting) => setting.name(),
            Self::Cluster => "Cluster",
            Self::Tunnel => "Tunnel",
            Self::Redirect => "Redirect Tunnel",
        }
    }

    /// The section that the key belongs to.
    pub(super) fn home(self) -> Section {
        match self {
            Self::Setting(_) => Section::General,
            Self::Cluster => Section::Cluster,
            Self::Tunnel | Self::Redirect => Section::Tunnel,
        }
    }

    /// Finds a key; runs of blanks inside count as one.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        Self::ALL
            .into_iter()
            .find(|key| key.name().eq_ignore_ascii_case(&name))
    }

    /// The documented spelling that a misspelt key most likely means.
    pub(super) fn like(name: &str) -> Option<&'static str> {
        nearest(name, &Self::ALL.map(Self::name))
    }
}

/// The candidate with the fewest slips from `word`: at most one in three letters, at least one.
pub(super) fn nearest(word: &str, candidates: &[&'static str]) -> Option<&'static str> {
    // No keyword is longer than 21 letters, and the distance takes quadratic time.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .iter()
        .map(|candidate| {
            (
                strsim::osa_distance(&word, &candidate.to_ascii_lowercase()),
                *candidate,
            )
        })
        .filter(|(slips, candidate)| *slips <= (candidate.len() / 3).max(1))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_any_case_and_spacing() {
        assert_eq!(
            Key::named("HEARTBEATDEFERTIME").map(Key::name),
            Some("HeartbeatDeferTime")
        );
        assert_eq!(Key::named("redirect \t TUNNEL"), Some(Key::Redirect));
        assert_eq!(Key::named("redirect"), None);
        assert_eq!(Section::named("tunnel"), Some(Section::Tunnel));
        assert_eq!(Section::named("[tunnel]"), None);
    }

    #[test]
    fn slips_are_understood_and_noise_is_not() {
        assert_eq!(Key::like("Hartbeat"), Some("Heartbeat"));
        assert_eq!(Key::like("HeartbeatDefferTime"), Some("HeartbeatDeferTime"));
        assert_eq!(Key::like("Clutser"), Some("Cluster"));
        assert_eq!(Key::like("Colour"), None);
        assert_eq!(Key::like(""), None);
        assert_eq!(Section::like("CLUSTERS"), Some(Section::Cluster));
        assert_eq!(Section::like("GENRAL"), Some(Section::General));
        assert_eq!(Section::like("MAIN"), None);
    }
}
