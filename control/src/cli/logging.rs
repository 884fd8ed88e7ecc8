//! Where log lines go: standard error, one line each, for a terminal or for the journal.

use std::io::{self, IsTerminal as _};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// What is logged unless the operator says otherwise.
pub(super) fn default_filter(serves: bool) -> Targets {
    Targets::new().with_default(if serves { Level::INFO } else { Level::WARN })
}

/// Starts logging. Colours only on a terminal; no time where the journal notes its own.
pub(super) fn init(filter: Targets) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .compact();
    let layer = if journal {
        layer.without_time().boxed()
    } else {
        layer.boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .init();
}
