//! Why a repository can not be opened.

use std::path::PathBuf;

/// Why a repository can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("the repository's key: {0}")]
    Key(String),
    #[error(
        "the repository {place} was written with another key than this one. Nothing in it was changed. Give its key, or \
         another place"
    )]
    WrongKey { place: String },
    #[error(
        "the repository {} is in use by another process: one authority at a time may write to it",
        file.display()
    )]
    InUse { file: PathBuf },
    #[error("the repository {place} can not be opened: {why}")]
    Unavailable { place: String, why: String },
    #[error(
        "the repository {place} is of format {found}, and this evergate knows format {known} only"
    )]
    Format {
        place: String,
        found: String,
        known: u8,
    },
    #[error(
        "the repository {place} has a damaged record: {what}{of}. It is not known which numbers were used, and a number that \
         is used twice gives a key away, so nothing is started. To go on without all that is stored there, {remedy}: \
         clients will negotiate anew",
        of = .spi.map(|spi| format!(" of the SA with SPI {spi:#010x}")).unwrap_or_default()
    )]
    Damaged {
        place: String,
        spi: Option<u32>,
        what: String,
        remedy: String,
    },
    #[error("the repository's certificates: {0}")]
    Tls(String),
    #[error("this evergate can not use etcd: it was built without its feature `etcd`")]
    NoEtcd,
    #[error("a thread for the repository can not be started: {0}")]
    Thread(std::io::Error),
    #[error("the repository's thread has ended")]
    Ended,
}
