//! The `panda-breath` command.

mod at_broker;
mod beside;
pub mod bind;
pub mod device;
pub mod discover;
pub mod doctor;
mod guard_service;
pub mod install;
mod klippy;
pub mod monitor;
mod plain;
pub mod record;
pub mod replay;
pub mod report;
mod simulate;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{Parser, Subcommand};

/// Run a BIQU Panda Breath chamber heater from Klipper.
#[derive(Debug, Parser)]
#[command(name = "panda-breath", bin_name = "panda-breath", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    BindBroker(bind::BindArguments),
    Device(Box<device::Arguments>),
    Discover(Box<discover::Arguments>),
    Doctor(Box<doctor::Arguments>),
    GuardService(guard_service::Arguments),
    Install(Box<install::Arguments>),
    Monitor(monitor::Arguments),
    Record(record::Arguments),
    Replay(replay::Arguments),
    Report(report::Arguments),
    Simulate(Box<simulate::Arguments>),
    UnbindBroker(bind::UnbindArguments),
    Uninstall(Box<install::UninstallArguments>),
}

/// Runs the command with these arguments, the first of which is its own name, and returns the exit
/// code: 0 for success, 1 when it failed, 2 when the arguments are wrong.
pub fn run(args: impl Iterator<Item = OsString>) -> i32 {
    run_in(None, args)
}

/// The same, inside this Python.
pub fn run_in(python: Option<install::Python>, args: impl Iterator<Item = OsString>) -> i32 {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print(); // help and version end here too, with code 0
            return error.exit_code();
        }
    };
    let result = match arguments.command {
        Command::BindBroker(arguments) => bind::run_bind(arguments),
        Command::Device(arguments) => device::run(*arguments),
        Command::Discover(arguments) => discover::run(&arguments),
        Command::Doctor(arguments) => doctor::run(*arguments),
        Command::GuardService(_) => guard_service::run(),
        Command::Install(arguments) => install::run(&arguments, python),
        Command::Monitor(arguments) => monitor::run(&arguments),
        Command::Record(arguments) => record::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Simulate(arguments) => simulate::run(*arguments),
        Command::UnbindBroker(arguments) => bind::run_unbind(&arguments),
        Command::Uninstall(arguments) => install::run_uninstall(&arguments, python),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            complain(&error.to_string());
            // Options that don't go together are wrong arguments, too.
            if error.kind() == io::ErrorKind::InvalidInput {
                2
            } else {
                1
            }
        }
    }
}

/// Writes to stderr; nobody may be left to read it. Part of it may be what others have written.
fn complain(text: &str) {
    let text: Vec<_> = text.split('\n').map(plain::plain).collect();
    let _ = writeln!(io::stderr(), "panda-breath: {}", text.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(arguments: &[&str]) -> i32 {
        run(std::iter::once("panda-breath")
            .chain(arguments.iter().copied())
            .map(OsString::from))
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_wrong_arguments_from_failures() {
        assert_eq!(code(&["--version"]), 0);
        assert_eq!(code(&["simulate", "--help"]), 0);
        assert_eq!(code(&[]), 2);
        assert_eq!(code(&["simulate", "--firmware", "9"]), 2);
        assert_eq!(code(&["simulate", "--speed", "0"]), 2);
        assert_eq!(code(&["simulate", "--count", "0"]), 2);
        assert_eq!(code(&["simulate", "--listen", "nowhere"]), 2);
        assert_eq!(code(&["simulate", "--dialect", "other"]), 2);
        assert_eq!(code(&["simulate", "--log", "/nonexistent/log"]), 1);
        assert_eq!(code(&["simulate", "--inject", "/nonexistent/inject"]), 1);
        assert_eq!(code(&["guard-service", "--help"]), 0);
        assert_eq!(code(&["guard-service", "now"]), 2);
        assert_eq!(code(&["install", "--help"]), 0);
        assert_eq!(code(&["install", "--port", "80"]), 2);
        assert_eq!(code(&["install", "--firmware", "esphome"]), 2);
        assert_eq!(code(&["install", "--home", "/nonexistent"]), 1);
        assert_eq!(code(&["uninstall", "--help"]), 0);
        assert_eq!(code(&["uninstall", "--home", "/nonexistent"]), 1);
        for command in ["monitor", "record", "replay", "report"] {
            assert_eq!(code(&[command, "--help"]), 0);
            assert_eq!(code(&[command]), 2);
        }
        assert_eq!(code(&["monitor", "http://127.2.0.3/"]), 2);
        assert_eq!(code(&["monitor", "127.2.0.3", "--refresh", "1"]), 2);
        assert_eq!(code(&["monitor", "127.2.0.3", "--for", "0"]), 2);
        assert_eq!(code(&["record", "127.2.0.3", "/nonexistent/file"]), 1);
        assert_eq!(code(&["record", "127.2.0.3", "f", "--max-size", "0"]), 2);
        assert_eq!(code(&["replay", "/nonexistent/file"]), 1);
        assert_eq!(code(&["replay", "/dev/null", "--target", "61"]), 2);
        assert_eq!(code(&["report", "/nonexistent/file"]), 1);
        assert_eq!(code(&["bind-broker", "--help"]), 0);
        assert_eq!(code(&["bind-broker", "127.2.0.3"]), 2);
        assert_eq!(code(&["bind-broker", "127.2.0.3:1", "--broker", "name"]), 2);
        assert_eq!(
            code(&["bind-broker", "127.2.0.3:1", "--broker", "127.0.0.1"]),
            2
        );
        assert_eq!(
            code(&["bind-broker", "127.2.0.3:1", "--broker", "192.0.2.5"]),
            1
        );
        assert_eq!(code(&["discover", "--help"]), 0);
        assert_eq!(code(&["discover", "--no-mdns"]), 2);
        assert_eq!(code(&["discover", "--username", "u"]), 2);
        assert_eq!(code(&["discover", "--seconds", "0"]), 2);
        assert_eq!(code(&["discover", "--no-mdns", "http://127.2.0.3/"]), 2);
        assert_eq!(code(&["discover", "--no-mdns", "127.2.0.3:1"]), 1);
        assert_eq!(code(&["doctor", "--help"]), 0);
        assert_eq!(code(&["doctor", "127.2.0.3:1", "--config", "x"]), 2);
        assert_eq!(code(&["doctor", "--broker", "mqtt://127.2.0.3"]), 2);
        assert_eq!(code(&["doctor", "--seconds", "0"]), 2);
        assert_eq!(code(&["doctor", "--config", "/nonexistent/printer.cfg"]), 1);
        assert_eq!(code(&["doctor", "127.2.0.3:1", "--json"]), 1);
        assert_eq!(code(&["device", "--help"]), 0);
        assert_eq!(code(&["device"]), 2);
        assert_eq!(code(&["device", "status", "mqtt://192.0.2.5"]), 2);
        assert_eq!(code(&["device", "ap", "set", "127.2.0.3:1"]), 2);
        assert_eq!(code(&["device", "status", "127.2.0.3:1"]), 1);
        assert_eq!(
            code(&["device", "update", "127.2.0.3:1", "/nonexistent"]),
            1
        );
        assert_eq!(code(&["unbind-broker", "http://127.2.0.3/"]), 2);
        assert_eq!(code(&["unbind-broker", "127.2.0.3:1"]), 1);
    }

    #[test]
    fn exit_codes_of_what_listens_behind_a_broker() {
        for arguments in [
            &["127.2.0.3", "--broker", "127.2.0.4"][..],
            &["--firmware", "esphome"],
            &["--broker", "mqtt://127.2.0.4"],
            &["--broker", "127.2.0.4", "--firmware", "stock"],
            &["--broker", "127.2.0.4", "--mqtt-device-id", "+"],
            &["--broker", "127.2.0.4", "--topic-prefix", "a/#"],
            &["--broker", "127.2.0.4", "--password-file", "x"],
            &["--broker", "127.2.0.4", "--ca-file", "x"],
            &[
                "--broker",
                "127.2.0.4",
                "--tls",
                "--ca-file",
                "/nonexistent",
            ],
            &["--broker", "127.2.0.4", "--refresh", "30"],
        ] {
            for command in ["monitor", "record"] {
                let file = (command == "record").then_some("/nonexistent/f");
                let all: Vec<_> = [command]
                    .iter()
                    .chain(arguments)
                    .copied()
                    .chain(file)
                    .collect();
                assert_eq!(code(&all), 2, "{all:?}");
            }
        }
        let broker = ["--broker", "127.2.0.4:1"];
        assert_eq!(code(&["record", broker[0], broker[1]]), 2);
        assert_eq!(code(&["record", broker[0], broker[1], "/nonexistent/f"]), 1);
        assert_eq!(code(&["record", "127.2.0.3"]), 2);
        let file = std::env::temp_dir().join(format!("pb-never-{}.jsonl", std::process::id()));
        let name = file.to_str().unwrap();
        assert_eq!(code(&["record", "127.2.0.3:1", name, "--for", "1"]), 1);
        assert!(!file.exists(), "nothing was recorded");
        std::fs::write(&file, "old").unwrap();
        let long = ["record", "127.2.0.3:1", name, "--for", "1"];
        assert_eq!(code(&long), 1, "it exists");
        assert_eq!(code(&[&long[..], &["--force"]].concat()), 1);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        std::fs::remove_file(&file).unwrap();
        let left = std::fs::read_dir(std::env::temp_dir()).unwrap();
        let beside = format!(".{}", file.file_name().unwrap().to_string_lossy());
        let mut left = left.map(|one| one.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.find(|one| one.starts_with(&beside)), None);
        assert_eq!(code(&["monitor", broker[0], broker[1], "--for", "1"]), 1);
    }
}
