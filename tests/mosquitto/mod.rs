//! Real brokers for tests: private mosquitto processes on free loopback ports, and certificates
//! for them.
#![allow(dead_code, reason = "each file of tests uses what it needs of it")]

mod certificates;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

pub(crate) use certificates::Certificates;

/// How long anything may take that happens at all. Only a failing test waits so long.
const LIMIT: Duration = Duration::from_secs(30);
/// Another program may take a free port before mosquitto does.
const ATTEMPTS: u32 = 5;

/// The only user that [`Access::Password`] and [`Access::Tls`] let in.
pub(crate) const USERNAME: &str = "klipper";
/// Its password.
pub(crate) const PASSWORD: &str = "a secret: no one's business";

/// Whom a broker lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Anonymous,
    /// Those who know the password.
    Password,
    /// The same, encrypted.
    Tls,
    /// Those with a certificate, encrypted.
    ClientCertificate,
}

/// What a broker is like.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) access: Access,
    /// Whether it remembers over a restart.
    pub(crate) persistent: bool,
    /// Further lines of its configuration.
    pub(crate) extra: String,
    /// With TLS: the name of its certificate among [`Certificates`].
    pub(crate) certificate: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: Access::Anonymous,
            persistent: false,
            extra: String::new(),
            certificate: "server",
        }
    }
}

impl From<Access> for Options {
    fn from(access: Access) -> Self {
        Self {
            access,
            ..Self::default()
        }
    }
}

/// A running broker; it ends with this.
pub(crate) struct Mosquitto {
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    child: Option<Child>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// A broker, or nothing where mosquitto is not installed: then the test is over. Where
/// everything has to be tested, that is a failure instead.
#[track_caller]
pub(crate) fn mosquitto_or_skip(options: impl Into<Options>) -> Option<Mosquitto> {
    (!missing_or_fail()).then(|| Mosquitto::start(&options.into()))
}

/// Whether something is not there that these tests need, which is said or, see above, fails.
#[track_caller]
pub(crate) fn missing_or_fail() -> bool {
    let Some(missing) = PROGRAMS.into_iter().find(|name| program(name).is_none()) else {
        return false;
    };
    let how = "apt install mosquitto mosquitto-clients openssl";
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{missing} is not installed, but CI=true: nothing may be skipped ({how})"
    );
    #[expect(clippy::print_stderr, reason = "why a test did nothing")]
    {
        eprintln!("skipped: {missing} is not installed ({how})");
    }
    true
}

/// What these tests run.
const PROGRAMS: [&str; 5] = [
    "mosquitto",
    "mosquitto_passwd",
    "mosquitto_pub",
    "mosquitto_sub",
    "openssl",
];

/// Debian keeps brokers where only root looks.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

impl Mosquitto {
    #[track_caller]
    fn start(options: &Options) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("mosquitto-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut broker = Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            folder,
            child: None,
            log: Arc::default(),
        };
        if matches!(options.access, Access::Password | Access::Tls) {
            let path = broker.folder.join("passwords");
            run(Command::new("mosquitto_passwd")
                .args(["-b", "-c"])
                .arg(path)
                .args([USERNAME, PASSWORD]));
        }
        for _ in 0..ATTEMPTS {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            broker.address = free.local_addr().unwrap();
            drop(free);
            broker.configure(options);
            if broker.try_launch() {
                return broker;
            }
        }
        panic!("mosquitto does not start: {}", broker.log());
    }

    fn configure(&self, options: &Options) {
        let folder = self.folder.display();
        let mut text = format!(
            "listener {} {}\n\
             log_dest stderr\nlog_type all\nconnection_messages true\n\
             persistence {}\npersistence_location {folder}/\n\
             user root\n", // else it could not read a private key; ignored for any other user
            self.address.port(),
            self.address.ip(),
            options.persistent,
        );
        text += match options.access {
            Access::Anonymous => "allow_anonymous true\n",
            Access::Password | Access::Tls | Access::ClientCertificate => "allow_anonymous false\n",
        };
        if matches!(options.access, Access::Password | Access::Tls) {
            writeln!(text, "password_file {folder}/passwords").unwrap();
        }
        if matches!(options.access, Access::Tls | Access::ClientCertificate) {
            let files = Certificates::get();
            writeln!(text, "cafile {}", files.certificate("ca").display()).unwrap();
            let own = options.certificate;
            writeln!(text, "certfile {}", files.certificate(own).display()).unwrap();
            writeln!(text, "keyfile {}", files.key(own).display()).unwrap();
        }
        if options.access == Access::ClientCertificate {
            text += "require_certificate true\nuse_identity_as_username true\n";
        }
        text += &options.extra;
        std::fs::write(self.folder.join("mosquitto.conf"), text).unwrap();
    }

    fn try_launch(&mut self) -> bool {
        let mut child = Command::new(program("mosquitto").unwrap())
            .arg("-c")
            .arg(self.folder.join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        self.log = Arc::default();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                log.push(line);
            }
            log.push("(end of the log)".into());
        });
        self.child = Some(child);
        let line = self.wait_log(|line| line.ends_with(" running") || line == "(end of the log)");
        let running = line.ends_with(" running");
        if !running {
            self.kill();
        }
        running
    }

    /// Everything it has said since it was started.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line of its log.
    #[track_caller]
    pub(crate) fn wait_log(&self, wanted: impl Fn(&str) -> bool) -> String {
        let lines = self.log.lines.lock().unwrap();
        let (lines, result) = self
            .log
            .more
            .wait_timeout_while(lines, LIMIT, |lines| !lines.iter().any(|line| wanted(line)))
            .unwrap();
        assert!(!result.timed_out(), "never said: {}", lines.join("\n"));
        lines.iter().find(|line| wanted(line)).unwrap().clone()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it is not running");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Stops it in the middle of what it does: the kernel goes on to take bytes for it.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it without a chance to say or to save anything.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it in order; a persistent one saves what it knows.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Starts it again where it was.
    #[track_caller]
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "it is running");
        assert!(
            (0..ATTEMPTS).any(|_| self.try_launch()),
            "does not start again: {}",
            self.log()
        );
    }

    /// [`Self::stop`], and [`Self::launch`].
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.launch();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Log {
    fn push(&self, line: String) {
        self.lines.lock().unwrap().push(line);
        self.more.notify_all();
    }
}

/// Runs a program that has to succeed.
#[track_caller]
fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
