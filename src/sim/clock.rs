//! The simulator's clock: `CLOCK_MONOTONIC` in seconds, the `t` of every log line, so that a log
//! can be laid beside the times other processes on the machine took.

use rustix::time::{ClockId, clock_gettime};

/// Seconds of `CLOCK_MONOTONIC`.
pub(crate) fn now_s() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 s of uptime is far away, and nanoseconds need 30 bits"
    )]
    let seconds = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_run_backwards() {
        let first = now_s();
        assert!(now_s() >= first);
    }
}
