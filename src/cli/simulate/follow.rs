//! `--inject`: the lines of a file, a FIFO or standard input, each done as it comes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use super::complain;
use crate::sim::Simulator;

/// Where injected commands come from.
pub(super) enum Commands {
    /// Standard input or a FIFO: reading waits by itself.
    Stream(Box<dyn BufRead>),
    /// A regular file, to which lines are added while it is read.
    Growing(BufReader<File>),
}

/// Opens it, so that a mistake is known before anything is simulated.
pub(super) fn open(path: &Path) -> io::Result<Commands> {
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
pub(super) fn follow(commands: Commands, simulator: &Simulator) {
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

const FILE_CHECK: Duration = Duration::from_millis(50);
