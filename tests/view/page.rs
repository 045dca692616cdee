//! `panda-breath monitor` on a terminal, as a process of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use _core::sim::Simulator;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use super::{LIMIT, device};

const ARGUMENTS: &str = "PANDA_BREATH_TEST_ARGUMENTS";
const LEAVE: &str = "\x1b[?1049l";

/// Not a test, but the command: a test starts this file again with a terminal of its own.
#[test]
#[ignore = "started by other tests"]
fn the_command() {
    let arguments = std::env::var(ARGUMENTS).unwrap();
    let arguments = ["panda-breath"].into_iter().chain(arguments.split('\n'));
    std::process::exit(_core::cli::run(arguments.map(OsString::from)));
}

/// How a monitor is ended.
type End = fn(&Terminal);

/// A terminal and a monitor on it.
struct Terminal {
    person: OwnedFd,
    program: OwnedFd,
    child: Child,
    shown: Receiver<Vec<u8>>,
    before: String,
}

impl Terminal {
    fn new(simulator: &Simulator) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let program = open(name.as_c_str(), flags, Mode::empty()).unwrap();
        resize(&person, 80, 24);
        let before = format!("{:?}", tcgetattr(&program).unwrap());
        let stdio = || Stdio::from(program.try_clone().unwrap());
        // Here it is not on the main thread, which must leave the signals alone.
        let child = Command::new("setsid")
            .args([
                "--ctty",
                "env",
                "--block-signal=INT,TERM,HUP,QUIT,TSTP,WINCH",
            ])
            .arg(std::env::current_exe().unwrap())
            .args(["page::the_command", "--exact", "--ignored", "--nocapture"])
            .arg("--test-threads=1")
            .env(ARGUMENTS, format!("monitor\n{}", simulator.address(0)))
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let (tell, shown) = channel();
        let mut file = File::from(person.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = file.read(&mut buffer) {
                if tell.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            person,
            program,
            child,
            shown,
            before,
        }
    }

    /// Waits for this to be drawn, from now on.
    #[track_caller]
    fn wait(&self, part: &str) {
        // It draws twice per second: this is a limit for the whole, too.
        let most = 2 * LIMIT.as_secs();
        let mut text = String::new();
        for _ in 0..most {
            if text.contains(part) {
                return;
            }
            match self.shown.recv_timeout(LIMIT) {
                Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("no {part:?}: {error}: {text:?}"),
            }
        }
        assert!(text.contains(part), "no {part:?}: {text:?}");
    }

    fn modes(&self) -> String {
        format!("{:?}", tcgetattr(&self.program).unwrap())
    }

    fn press(&self, key: &[u8]) {
        rustix::io::write(&self.person, key).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// It has ended well, and the terminal is as it was.
    #[track_caller]
    fn assert_left(mut self) {
        self.wait(LEAVE);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert_eq!(self.modes(), self.before);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn the_terminal_is_left_as_it_was_found_however_it_ends() {
    let simulator = device();
    let endings: [(&str, End); 5] = [
        ("q", |terminal| terminal.press(b"q")),
        ("Ctrl-C", |terminal| terminal.press(b"\x03")),
        ("SIGTERM", |terminal| terminal.signal(Signal::TERM)),
        ("SIGHUP", |terminal| terminal.signal(Signal::HUP)),
        ("Ctrl-\\", |terminal| terminal.press(b"\x1c")),
    ];
    let started = endings.map(|(name, end)| (name, end, Terminal::new(&simulator)));
    for (name, end, terminal) in started {
        terminal.wait("Temperature  22 C");
        assert_ne!(terminal.modes(), terminal.before, "{name}");
        end(&terminal);
        terminal.assert_left();
    }
}

#[test]
fn a_page_follows_the_size_of_the_terminal() {
    let simulator = device();
    let terminal = Terminal::new(&simulator);
    terminal.wait("10 min ago"); // the plot
    resize(&terminal.person, 40, 9);
    terminal.wait("q or Ctrl-C ends it. It only listens: no\x1b[0m");
    resize(&terminal.person, 100, 40);
    terminal.wait("nothing is sent to the device.\x1b[0m");
    terminal.press(b"q");
    terminal.assert_left();
}

#[test]
fn ctrl_z_gives_the_terminal_back_until_it_goes_on() {
    let simulator = device();
    let terminal = Terminal::new(&simulator);
    terminal.wait("Temperature  22 C");
    terminal.signal(Signal::TSTP);
    terminal.wait(LEAVE);
    // Told to go on before it stands still, it would stand still for ever.
    let pid = Pid::from_child(&terminal.child);
    let stopped = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    assert!(stopped.unwrap().1.stopped());
    assert_eq!(terminal.modes(), terminal.before);
    terminal.signal(Signal::CONT);
    terminal.wait("Temperature  22 C");
    terminal.press(b"q");
    terminal.assert_left();
}
