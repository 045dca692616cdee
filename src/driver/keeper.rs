//! Keeps a guard running: starts it, notices its end, starts another.
//!
//! One guard for all devices of the process. It is not ended with the driver's thread, which comes
//! and goes with RESTARTs, but watches for as long as the process lives.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until};

use crate::session::Guard;

use super::guard::board::Board;
use super::guard::life::Process;

/// A guard that ends sooner than this would end again at once.
const GOOD: Duration = Duration::from_secs(10);
/// So long the next one waits then.
const AGAIN: Duration = Duration::from_secs(1);
/// A guard that is not ready by then will not be.
const START: Duration = Duration::from_secs(20);

/// How to start a guard; its own arguments follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<OsString>,
    /// Where it writes what it did; none: nowhere.
    pub log: Option<PathBuf>,
}

/// The guard of this process; kept while drivers come and go.
static GUARD: Mutex<Option<Arc<Kept>>> = Mutex::new(None);

#[derive(Debug)]
struct Kept {
    board: Board,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// The other end is the guard's, and nobody else's: it is closed when that ends.
    words: OwnedFd,
    ready: bool,
}

/// The driver's view of the guard.
#[derive(Debug)]
pub(super) struct Keeper {
    kept: Arc<Kept>,
    launch: Launch,
    state: RefCell<Guard>,
}

/// What a keeper waits for; apart from it, because waiting changes it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    words: Option<pipe::Receiver>,
    started: Option<Instant>,
    again: Option<Instant>,
    /// How many have ended one soon after the other.
    short_lived: u32,
}

impl Keeper {
    pub(super) fn new(launch: Launch) -> io::Result<Self> {
        let mut guard = GUARD.lock();
        let kept = if let Some(kept) = &*guard {
            Arc::clone(kept)
        } else {
            let kept = Arc::new(Kept {
                board: Board::new()?,
                running: Mutex::new(None),
            });
            *guard = Some(Arc::clone(&kept));
            kept
        };
        Ok(Self {
            kept,
            launch,
            state: RefCell::default(),
        })
    }

    pub(super) fn board(&self) -> &Board {
        &self.kept.board
    }

    pub(super) fn state(&self) -> Guard {
        self.state.borrow().clone()
    }

    /// Starts a guard, or goes on with the one that there is.
    pub(super) fn start(&self, waiting: &mut Waiting) {
        let mut running = self.kept.running.lock();
        waiting.again = None;
        if running.is_none() {
            match spawn(&self.launch, &self.kept.board) {
                Ok(new) => *running = Some(new),
                Err(error) => {
                    let program = self.launch.program.display();
                    let why = format!("{program} cannot be started ({error})");
                    self.state.replace(Guard::Gone(why.into()));
                    waiting.again = Some(Instant::now() + AGAIN);
                    return;
                }
            }
        }
        let Some(running) = &*running else { return };
        let words = running.words.try_clone();
        waiting.words = words
            .ok()
            .and_then(|fd| pipe::Receiver::from_owned_fd_unchecked(fd).ok());
        waiting.started = Some(Instant::now());
        if running.ready {
            self.state.replace(Guard::Watching);
        } else if !matches!(*self.state.borrow(), Guard::Gone(_)) {
            self.state.replace(Guard::Starting);
        }
    }

    /// Waits until something about the guard changes; returns what to tell people.
    pub(super) async fn changed(&self, waiting: &mut Waiting) -> Option<String> {
        loop {
            let overdue = match (self.state(), waiting.started) {
                (Guard::Watching, _) | (_, None) => None,
                (_, Some(started)) => Some(started + START),
            };
            let overdue = overdue.into_iter().chain(waiting.again).min();
            let far = Instant::now() + Duration::from_secs(86_400);
            tokio::select! {
                () = readable(waiting.words.as_ref()) => {
                    let mut word = [0; 1];
                    let words = waiting.words.as_ref();
                    match words.map(|words| words.try_read(&mut word)) {
                        Some(Ok(0)) => return Some(self.ended(waiting)),
                        Some(Ok(_)) => {
                            if let Some(running) = self.kept.running.lock().as_mut() {
                                running.ready = true;
                            }
                            self.state.replace(Guard::Watching);
                            return None;
                        }
                        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Some(Err(_)) | None => return Some(self.ended(waiting)),
                    }
                }
                () = sleep_until(overdue.unwrap_or(far)) => {
                    if waiting.again.is_some_and(|at| Instant::now() >= at) {
                        self.start(waiting);
                        return None;
                    }
                    // What does not even get ready is of no use.
                    if let Some(running) = self.kept.running.lock().as_mut() {
                        let _ = running.child.kill();
                    }
                    waiting.started = None;
                }
            }
        }
    }

    /// Another guard is started at once, unless that would go on for ever.
    fn ended(&self, waiting: &mut Waiting) -> String {
        waiting.words = None;
        let how = match self.kept.running.lock().take() {
            Some(mut running) => {
                // Its end of the pipe is closed: it has ended, or is about to.
                let _ = running.child.kill();
                running
                    .child
                    .wait()
                    .map_or_else(|_| String::new(), |status| status.to_string())
            }
            None => String::new(),
        };
        self.kept.board.no_guard();
        let short = waiting.started.is_none_or(|at| at.elapsed() < GOOD);
        waiting.short_lived = if short { waiting.short_lived + 1 } else { 0 };
        if waiting.short_lived > 1 {
            let why = format!("it has ended ({how}); see {}", self.log());
            self.state.replace(Guard::Gone(why.into()));
            waiting.again = Some(Instant::now() + AGAIN);
        } else {
            self.state.replace(Guard::Starting);
            self.start(waiting);
        }
        format!("the guard has ended ({how}); starting another")
    }

    fn log(&self) -> String {
        let log = self.launch.log.as_ref();
        log.map_or_else(|| "klippy.log".into(), |log| log.display().to_string())
    }
}

async fn readable(words: Option<&pipe::Receiver>) {
    match words {
        Some(words) => {
            let _ = words.readable().await;
        }
        None => std::future::pending().await,
    }
}

/// Called on the driver's thread, which has all signals blocked: so has the guard, from its first
/// instruction (a SIGTERM while Python starts would end it).
fn spawn(launch: &Launch, board: &Board) -> io::Result<Running> {
    let this = Process::this()?;
    let (words, its_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let log = launch.log.as_ref();
    let errors = log.and_then(|log| OpenOptions::new().create(true).append(true).open(log).ok());
    let child = Command::new(&launch.program)
        .args(&launch.arguments)
        .arg(this.pid.to_string())
        .arg(this.started.to_string())
        .args(log)
        .stdin(board.file().try_clone_to_owned()?)
        .stdout(its_end)
        .stderr(errors.map_or_else(Stdio::null, Stdio::from))
        .current_dir("/")
        .process_group(0) // whoever ends klippy's group does not end its guard
        .spawn()?;
    Ok(Running {
        child,
        words,
        ready: false,
    })
}
