//! `panda-breath guard-service`.

use std::io::{self, ErrorKind};

use clap::Args;

use crate::driver::guard::service;

/// Watch over the guards of all Klippers of this user, and go on where one has to end.
///
/// Each klippy that has a `[panda_breath]` section starts a guard of its own, which turns the device
/// off when klippy is killed. What ends all of klippy's processes at once ends that guard too; this
/// service, run apart from Klipper, does not end with it, and turns off what is still on. See
/// docs/guard.md for a systemd unit.
///
/// It ends on SIGTERM, after 15 s at the most if a device has to be turned off.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run() -> io::Result<()> {
    service::run().map_err(|error| {
        if error.kind() == ErrorKind::AddrInUse {
            let text = "a guard service of this user is already running";
            io::Error::new(ErrorKind::AddrInUse, text)
        } else {
            error
        }
    })
}
