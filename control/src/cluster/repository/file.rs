//! The file of an embedded repository: private, locked as long as it is open, with the directory's entry on
//! the disk before anything in it counts.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::RepositoryError;

/// Only the authority's own user may have it.
const MODE: u32 = 0o600;

/// A locked file. Copies are the same file under the same lock, so a database can be closed after an error and
/// opened again with nobody getting in between, and with no path that a confined process would need.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    file: Arc<File>,
    sync_failed: Arc<AtomicBool>,
}

impl Disk {
    fn lock(file: File, path: &Path) -> Result<Self, RepositoryError> {
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                let file = path.to_owned();
                return Err(RepositoryError::InUse { file });
            }
            Err(TryLockError::Error(error)) => return Err(unavailable(path, &error)),
        }
        let private = file.set_permissions(Permissions::from_mode(MODE));
        private.map_err(|error| unavailable(path, &error))?;
        Ok(Self {
            file: Arc::new(file),
            sync_failed: Arc::default(),
        })
    }

    /// The file that is there; `None`: there is none.
    pub(super) fn existing(path: &Path) -> Result<Option<Self>, RepositoryError> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Self::lock(file, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(path, &error)),
        }
    }

    /// An empty file beside the one that is to be made: until it is whole it does not get its name.
    pub(super) fn draft(path: &Path) -> Result<Self, RepositoryError> {
        let draft = draft_of(path);
        let mut open = OpenOptions::new();
        let open = open.read(true).write(true).create(true).mode(MODE);
        let file = open
            .open(&draft)
            .map_err(|error| unavailable(path, &error))?;
        let disk = Self::lock(file, path)?;
        // What an earlier attempt left there.
        disk.file
            .set_len(0)
            .map_err(|error| unavailable(path, &error))?;
        Ok(disk)
    }

    /// Gives the draft its name, durably.
    pub(super) fn publish(&self, path: &Path) -> Result<(), RepositoryError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let publish = || {
            self.file.sync_all()?;
            // Not over one that somebody else has made meanwhile.
            renameat_with(CWD, draft_of(path), CWD, path, RenameFlags::NOREPLACE)?;
            File::open(folder)?.sync_all()
        };
        publish().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => RepositoryError::InUse {
                file: path.to_owned(),
            },
            _ => unavailable(path, &error),
        })
    }

    /// The kernel could not put on the disk what it had taken. It may tell that only once, and what it then gives
    /// to read is not what is on the disk: nothing can be relied on any more.
    pub(super) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Relaxed)
    }
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn unavailable(path: &Path, error: &io::Error) -> RepositoryError {
    RepositoryError::Unavailable {
        place: path.display().to_string(),
        why: error.to_string(),
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.file.sync_data();
        if synced.is_err() {
            self.sync_failed.store(true, Ordering::Relaxed);
        }
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
