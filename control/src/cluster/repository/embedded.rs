//! The repository in a file of this machine, by `redb`.

use std::future::pending;
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, Error, ReadableDatabase as _, ReadableTable as _, StorageBackend,
    TableDefinition, TableError,
};

use super::file::Disk;
use super::plan::{Batch, Change};
use super::seal::{FORMAT, Kind, Opener, Records, Sealer};
use super::worker::{Failure, Store};
use super::{Contents, RepositoryError, RepositoryKey, Stored};

const PAIRS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("pairs");
const KEPT: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("kept");
const IKE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ike");
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
const ABOUT_FORMAT: &str = "format";
const ABOUT_KEY: &str = "key";
const ABOUT_RUN: &str = "run";

/// Memory for pages of the file: all of a usual repository would be more than is read again.
const CACHE: usize = 64 << 20;

/// A file with SA pairs. Nobody else has it open.
pub(super) struct Embedded {
    path: PathBuf,
    disk: Disk,
    /// `None` after an error, until it is opened again.
    database: Option<Database>,
}

impl Embedded {
    /// Opens or makes it, reads all of it, and forgets what has expired at this time.
    pub(super) fn open(
        path: &Path,
        key: &RepositoryKey,
        now: u64,
    ) -> Result<(Self, Contents), RepositoryError> {
        let path = path.to_owned();
        let failed = |error| refused(&path, &error);
        let (disk, database) = match Disk::existing(&path)? {
            Some(disk) => {
                let database = start(disk.clone()).map_err(failed)?;
                (disk, database)
            }
            None => {
                let disk = Disk::draft(&path)?;
                let database = start(disk.clone()).map_err(failed)?;
                found(&database, key).map_err(failed)?;
                disk.publish(&path)?;
                (disk, database)
            }
        };
        check(&database, &path, key)?;
        let stored = read(&database, &path, key)?;
        let (stored, expired): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|s| s.pair.expires > now);
        let mut batch = Batch::default();
        for Stored { pair, .. } in expired {
            batch.changes.insert(pair.spi(), Change::Erase);
        }
        let records = ike_records(&database).map_err(failed)?;
        let mut opener = Opener::new(key);
        let ike = opener.ike(&records).map_err(|spi| {
            let what = format!("{} {spi:016x}", Kind::Ike.name());
            damaged(&path, None, what)
        })?;
        let (ike, expired): (Vec<_>, Vec<_>) = ike.into_iter().partition(|s| s.expires > now);
        batch.ike = expired.iter().map(|s| (s.spi, None)).collect();
        let last = run_record(&database).map_err(failed)?;
        let run = opener.next_run(last.as_deref(), !records.is_empty());
        let run = run.ok_or_else(|| damaged(&path, None, Kind::Run.name().to_owned()))?;
        batch.run = Some(Sealer::new(key).seal(Kind::Run, 0_u32, &run));
        write(&database, &batch).map_err(failed)?;
        let embedded = Self {
            path,
            disk,
            database: Some(database),
        };
        let pairs = stored;
        Ok((embedded, Contents { pairs, ike, run }))
    }

    fn try_commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => start(self.disk.clone())?,
        };
        // After an error it has to be opened again: it is not put back.
        write(&database, batch)?;
        self.database = Some(database);
        Ok(())
    }
}

impl Store for Embedded {
    const RECORDS: usize = 8192;

    async fn commit(&mut self, batch: &Batch) -> Result<(), Failure> {
        let Err(error) = self.try_commit(batch) else {
            return Ok(());
        };
        let why = format!("{}: {error}", self.path.display());
        match error {
            _ if self.disk.sync_failed() => Err(Failure::Lost(why)),
            Error::Corrupted(_) => Err(Failure::Lost(why)),
            _ => Err(Failure::Away(why)),
        }
    }

    async fn watch(&mut self) -> Failure {
        pending().await
    }

    async fn close(self) {}
}

/// Opens the database in a file. Every page of it is checked: what is damaged is to be found now.
pub(super) fn start(disk: impl StorageBackend) -> Result<Database, Error> {
    let mut builder = Builder::new();
    let builder = builder.set_cache_size(CACHE);
    let builder = builder.set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(disk)?)
}

/// Says in an empty repository whose it is.
pub(super) fn found(database: &Database, key: &RepositoryKey) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    {
        let mut about = transaction.open_table(ABOUT)?;
        about.insert(ABOUT_FORMAT, [FORMAT].as_slice())?;
        about.insert(ABOUT_KEY, key.id().as_slice())?;
        transaction.open_table(PAIRS)?;
        transaction.open_table(KEPT)?;
    }
    transaction.commit()?;
    Ok(())
}

fn check(database: &Database, path: &Path, key: &RepositoryKey) -> Result<(), RepositoryError> {
    let failed = |error| refused(path, &error);
    let place = path.display().to_string();
    let about = |name| {
        let about = database.begin_read()?.open_table(ABOUT)?;
        let value = about.get(name)?.map(|value| value.value().to_vec());
        Ok::<_, Error>(value.unwrap_or_default())
    };
    let format = about(ABOUT_FORMAT).map_err(failed)?;
    if format != [FORMAT] {
        return Err(RepositoryError::Format {
            place,
            found: format!("{format:?}"),
            known: FORMAT,
        });
    }
    match key.is(&about(ABOUT_KEY).map_err(failed)?) {
        true => Ok(()),
        false => Err(RepositoryError::WrongKey { place }),
    }
}

pub(super) fn read(
    database: &Database,
    path: &Path,
    key: &RepositoryKey,
) -> Result<Vec<Stored>, RepositoryError> {
    let records = |table: TableDefinition<'static, u32, &'static [u8]>| {
        let table = database.begin_read()?.open_table(table)?;
        let mut records = Records::new();
        for entry in table.iter()? {
            let (spi, record) = entry?;
            records.push((spi.value(), record.value().to_vec()));
        }
        Ok::<_, Error>(records)
    };
    let failed = |error| refused(path, &error);
    let (pairs, kept) = (
        records(PAIRS).map_err(failed)?,
        records(KEPT).map_err(failed)?,
    );
    Opener::new(key).all(pairs, kept).map_err(|(spi, kind)| {
        let what = kind.name().to_owned();
        damaged(path, Some(spi), what)
    })
}

fn ike_records(database: &Database) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let table = match database.begin_read()?.open_table(IKE) {
        Ok(table) => table,
        // Of a time when IKE SAs were not kept.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (spi, record) = entry?;
        records.push((spi.value(), record.value().to_vec()));
    }
    Ok(records)
}

fn run_record(database: &Database) -> Result<Option<Vec<u8>>, Error> {
    let about = database.begin_read()?.open_table(ABOUT)?;
    Ok(about.get(ABOUT_RUN)?.map(|value| value.value().to_vec()))
}

pub(super) fn write(database: &Database, batch: &Batch) -> Result<(), Error> {
    let mut transaction = database.begin_write()?;
    // With one phase a commit that turns out damaged counts as one that never ended, and the state before it
    // comes back: numbers that were used would be given out again.
    transaction.set_two_phase_commit(true);
    {
        let mut pairs = transaction.open_table(PAIRS)?;
        let mut all_kept = transaction.open_table(KEPT)?;
        for (spi, change) in &batch.changes {
            match change {
                Change::Put { pair, kept } => {
                    if let Some(pair) = pair {
                        pairs.insert(spi, pair.as_slice())?;
                    }
                    all_kept.insert(spi, kept.as_slice())?;
                }
                Change::Erase => {
                    pairs.remove(spi)?;
                    all_kept.remove(spi)?;
                }
            }
        }
        let mut ike = transaction.open_table(IKE)?;
        for (spi, record) in &batch.ike {
            match record {
                Some(record) => ike.insert(spi, record.as_slice())?,
                None => ike.remove(spi)?,
            };
        }
        if let Some(run) = &batch.run {
            let mut about = transaction.open_table(ABOUT)?;
            about.insert(ABOUT_RUN, run.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn refused(path: &Path, error: &Error) -> RepositoryError {
    match error {
        Error::Corrupted(what) => damaged(path, None, what.clone()),
        _ => RepositoryError::Unavailable {
            place: path.display().to_string(),
            why: error.to_string(),
        },
    }
}

fn damaged(path: &Path, spi: Option<u32>, what: String) -> RepositoryError {
    RepositoryError::Damaged {
        place: path.display().to_string(),
        spi,
        what,
        remedy: "move the file away".to_owned(),
    }
}
