//! A process that writes a repository, as its lines of output tell.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) struct Writer {
    child: Child,
    lines: Receiver<String>,
    done: u64,
}

impl Writer {
    /// Begins to write with this number. `limited`: a file that becomes too long is an error, and no death.
    pub(crate) fn start(first: u64, place: &str, limited: bool) -> Self {
        let program = env!("CARGO_BIN_EXE_repository");
        let mut command = match limited {
            true => {
                let mut shell = Command::new("sh");
                let script = "trap '' XFSZ; exec \"$@\"";
                shell.args(["-c", script, "sh", program]);
                shell
            }
            false => Command::new(program),
        };
        let command = command.args(["write", &first.to_string(), place]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a writer");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let (to, lines) = channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        Self {
            child,
            lines,
            done: 0,
        }
    }

    /// The first line, of those that come, that is like this.
    pub(crate) fn wait(&mut self, like: impl Fn(&str) -> bool, long: Duration) -> String {
        let until = Instant::now() + long;
        loop {
            let line = match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => panic!("no such line within {long:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the writer has ended"),
            };
            self.note(&line);
            if like(&line) {
                return line;
            }
        }
    }

    /// The last number that it has said to be done, once it is dead.
    pub(crate) fn rest(mut self) -> u64 {
        while let Ok(line) = self.lines.recv() {
            self.note(&line);
        }
        self.done
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    fn note(&mut self, line: &str) {
        if let Some(number) = line.strip_prefix("done ") {
            let number = number.parse().expect("a number");
            assert!(
                self.done == 0 || number == self.done + 1,
                "{number} after {}",
                self.done
            );
            self.done = number;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
