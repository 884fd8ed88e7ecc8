//! Where a node keeps its state and writes its log: a small disk of its own, which can be filled.
//!
//! It is mounted in a mount namespace that a holder keeps, so that it outlives the node and nothing
//! of it is visible outside.

use crate::lab::{Lab, Place, Process};
use crate::probe::wait_ready;
use crate::{paths, sh};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::Command;

/// Of the disk, as `mount` wants it.
const SIZE: &str = "2m";
/// From so much on the log begins anew.
const LONG: u64 = 512 << 10;
const CLOCK: &str = include_str!("clock.c");

/// The disk of one node, and its clock.
pub(super) struct Home {
    place: Place,
    holder: Process,
    /// The disk, by way of the holder.
    disk: PathBuf,
    /// How far the log has been read.
    read: u64,
    clock: PathBuf,
}

impl Home {
    /// Mounts it where the node's configuration has its state, and has the lab run the node there.
    pub(super) fn new(lab: &mut Lab, place: Place) -> Result<Self> {
        Self::of_size(lab, place, SIZE)
    }

    /// The same with a disk of this size.
    pub(super) fn of_size(lab: &mut Lab, place: Place, size: &str) -> Result<Self> {
        let state = lab.dir().join("state");
        fs::create_dir_all(&state)?;
        let at = state.to_string_lossy();
        let script =
            "mount -t tmpfs -o size=\"$1\",mode=1777 none \"$2\" && echo ready && exec cat";
        let words = ["sh", "-euc", script, "sh", size, &at];
        let mut holder = lab.spawn_piped(place, &words)?;
        wait_ready(&mut holder)
            .with_context(|| format!("{place} can not have a disk of its own"))?;
        let pid = holder.pid();
        let inside = state.strip_prefix("/").unwrap_or(&state);
        let disk = PathBuf::from(format!("/proc/{pid}/root")).join(inside);
        let clock = lab.dir().join(format!("{place}.clock"));
        fs::write(&clock, 0i64.to_ne_bytes())?;
        let own = |text: &str| text.to_owned();
        let run = format!(
            "exec env LD_PRELOAD='{}' CHAOS_CLOCK='{}' \"$@\" 2>>'{at}/log'",
            library()?.display(),
            clock.display()
        );
        lab.run_by(
            place,
            vec![
                own("nsenter"),
                format!("--target={pid}"),
                own("--mount"),
                own("sh"),
                own("-c"),
                run,
                own("sh"),
            ],
        );
        Ok(Self {
            place,
            holder,
            disk,
            read: 0,
            clock,
        })
    }

    /// Puts what the node has logged since the last time where the lab looks for it, and yields it.
    pub(super) fn collect(&mut self, lab: &Lab) -> Result<String> {
        let path = self.disk.join("log");
        let Ok(mut file) = File::options().read(true).write(true).open(&path) else {
            // Not started yet.
            return Ok(String::new());
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut new = Vec::new();
        file.read_to_end(&mut new)?;
        self.read += new.len() as u64;
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(lab.log(self.place))?;
        log.write_all(&new)?;
        // The node appends, so it goes on at the beginning.
        if self.read > LONG && file.metadata()?.len() == self.read {
            file.set_len(0)?;
            self.read = 0;
        }
        Ok(String::from_utf8_lossy(&new).into_owned())
    }

    /// Leaves no byte free on the disk, nor at the end of the log.
    pub(super) fn fill(&self) -> Result<()> {
        let log = self.disk.join("log");
        for (path, part) in [(self.disk.join("fill"), 4096), (log, 1)] {
            let mut file = File::options().create(true).append(true).open(path)?;
            let spaces = vec![b' '; part];
            loop {
                match file.write_all(&spaces) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    pub(super) fn empty(&self) -> Result<()> {
        fs::remove_file(self.disk.join("fill")).map_err(Into::into)
    }

    /// Sets how many seconds the node's CLOCK_REALTIME is ahead.
    pub(super) fn leap(&self, seconds: i64) -> Result<()> {
        // Written in place: the node has the file mapped.
        let mut file = File::options().write(true).open(&self.clock)?;
        Ok(file.write_all(&seconds.to_ne_bytes())?)
    }

    /// Lets go of it. The node must have ended.
    pub(super) fn leave(mut self) {
        drop(self.holder.stdin());
    }
}

/// The clock that leaps, made when it is first asked for.
fn library() -> Result<PathBuf> {
    let folder = paths::target().join("chaos");
    fs::create_dir_all(&folder)?;
    let (source, made) = (folder.join("clock.c"), folder.join("clock.so"));
    let same = fs::read_to_string(&source).is_ok_and(|text| text == CLOCK);
    if !same || !made.exists() {
        fs::write(&source, CLOCK)?;
        let mut command = Command::new("cc");
        command.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]);
        sh::read(command.arg("-o").arg(&made).arg(&source))
            .context("the clock that leaps (a C compiler is needed)")?;
    }
    Ok(made)
}
