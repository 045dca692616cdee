//! `panda-breath simulate`: simulated devices until the command is ended by a signal.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::complain;
use crate::sim::{Firmware, Identity, Options, Setup, Simulator};

/// Simulate Panda Breath devices, to try things without hardware.
///
/// Each prints its address and then runs until it gets a signal.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Stock firmware: 0.0.0, 1.0.1, 1.0.2 or 1.0.3.
    #[arg(long, value_name = "VERSION", default_value_t = Firmware::V1_0_3)]
    firmware: Firmware,
    /// Address and port of the first device; port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Simulate N devices, on consecutive ports.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    count: usize,
    /// Warm up, cool down and dry N times as fast; readings still come twice a second.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// How long a restart of a device takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    reboot_seconds: f64,
    /// Write what happens to FILE, as JSON lines.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Follow FILE (- for standard input) and do what its lines say, e.g. `drop` or `button on`.
    #[arg(long, value_name = "FILE")]
    inject: Option<PathBuf>,
    /// Keep the devices' settings in FILE.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Where the chamber starts, in C.
    #[arg(long, value_name = "C", default_value_t = 22.0, value_parser = temperature)]
    chamber: f64,
    /// Room around the chamber, in C [default: 22, or the chamber's if that is colder].
    #[arg(long, value_name = "C", value_parser = temperature)]
    ambient: Option<f64>,
    /// MAC address of the first device.
    #[arg(long, value_name = "MAC", default_value_t = Identity::default())]
    identity: Identity,
    /// Network name in the snapshot.
    #[arg(long, value_name = "TEXT", default_value = "Simulated")]
    wifi_ssid: String,
    /// Network password in the snapshot.
    #[arg(long, value_name = "TEXT", default_value = "not-a-password")]
    wifi_password: String,
    /// Access point password in the snapshot.
    #[arg(long, value_name = "TEXT", default_value = "987654321")]
    ap_password: String,
    /// Bind a Bambu printer with this access code, which is in the snapshot then.
    #[arg(long, value_name = "TEXT")]
    access_code: Option<String>,
}

/// Runs the simulator; returns only when it can't go on.
pub(super) fn run(arguments: Arguments) -> io::Result<()> {
    // Opened first: a mistake here should not leave a device that was there for a moment.
    let commands = arguments.inject.as_deref().map(open).transpose()?;
    let simulator = Simulator::start(options(arguments))?;
    let mut stdout = io::stdout();
    for address in simulator.addresses() {
        writeln!(stdout, "listening on ws://{address}/ws")?;
    }
    stdout.flush()?;
    if let Some(commands) = commands {
        follow(commands, &simulator);
    }
    simulator.join()
}

/// Where injected commands come from.
enum Commands {
    /// Standard input or a FIFO: reading waits by itself.
    Stream(Box<dyn BufRead>),
    /// A regular file, to which lines are added while it is read.
    Growing(BufReader<File>),
}

fn options(arguments: Arguments) -> Options {
    let chamber_c = arguments.chamber;
    Options {
        setup: Setup {
            firmware: arguments.firmware,
            identity: arguments.identity,
            wifi_ssid: arguments.wifi_ssid,
            wifi_password: arguments.wifi_password,
            ap_password: arguments.ap_password,
            access_code: arguments.access_code,
            chamber_c,
            ambient_c: arguments
                .ambient
                .unwrap_or(chamber_c.min(Setup::default().ambient_c)),
            ..Setup::default()
        },
        listen: arguments.listen,
        count: arguments.count,
        speed: arguments.speed,
        reboot_s: arguments.reboot_seconds,
        log: arguments.log,
        state: arguments.state,
        keep_entries: false,
    }
}

fn open(path: &Path) -> io::Result<Commands> {
    if path == Path::new("-") {
        return Ok(Commands::Stream(Box::new(BufReader::new(io::stdin()))));
    }
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file_type = std::fs::metadata(path).map_err(explain)?.file_type();
    if file_type.is_fifo() {
        // Also opened for writing, so that it doesn't end when the first writer is done.
        let fifo = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(explain)?;
        return Ok(Commands::Stream(Box::new(BufReader::new(fifo))));
    }
    let file = BufReader::new(File::open(path).map_err(explain)?);
    Ok(if file_type.is_file() {
        Commands::Growing(file)
    } else {
        Commands::Stream(Box::new(file))
    })
}

/// Does what the lines say. The end of a stream ends this, not the simulation.
fn follow(commands: Commands, simulator: &Simulator) {
    let (mut reader, grows): (Box<dyn BufRead>, bool) = match commands {
        Commands::Stream(reader) => (reader, false),
        Commands::Growing(file) => (Box::new(file), true),
    };
    let mut line = Vec::new();
    loop {
        let Ok(read) = reader.read_until(b'\n', &mut line) else {
            return;
        };
        let complete = line.ends_with(b"\n");
        if complete || (read == 0 && !grows && !line.is_empty()) {
            obey(&String::from_utf8_lossy(&line), simulator);
            line.clear();
        } else if read == 0 && grows {
            // Nothing wakes this thread: it is a pause that costs no runtime of its own.
            std::thread::park_timeout(FILE_CHECK);
        } else if read == 0 {
            return;
        }
    }
}

fn obey(line: &str, simulator: &Simulator) {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() || line.starts_with('#') {
        return;
    }
    if let Err(error) = simulator.inject(line) {
        complain(&format!("inject: {error}"));
    }
}

fn count(text: &str) -> Result<usize, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=20_000).contains(count));
    count.ok_or_else(|| "not a number from 1 to 20000".to_owned())
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text
        .parse()
        .ok()
        .filter(|speed| (0.001..=10_000.0).contains(speed));
    speed.ok_or_else(|| "not a number from 0.001 to 10000".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "not a number of seconds from 0 to 3600".to_owned())
}

fn temperature(text: &str) -> Result<f64, String> {
    let celsius = text
        .parse()
        .ok()
        .filter(|celsius| (-50.0..=150.0).contains(celsius));
    celsius.ok_or_else(|| "not a temperature from -50 to 150".to_owned())
}

const FILE_CHECK: Duration = Duration::from_millis(50);
