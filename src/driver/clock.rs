//! The one clock of the driver.

use rustix::time::{ClockId, clock_gettime};

use crate::session::Millis;

/// Milliseconds since the machine started, sleep included, so that a suspended computer sees the
/// gap (rule R5). The call is answered without entering the kernel.
pub(super) fn now() -> Millis {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
    seconds * 1_000 + millis
}

/// The same in seconds, finer, for the age of a reading.
pub(super) fn age_seconds(at: Millis) -> f64 {
    let time = clock_gettime(ClockId::Boottime);
    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    let now = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    let at = at as f64 / 1e3;
    (now - at).max(0.0)
}

/// When something happened that is so many seconds old. What has no age is as old as can be.
pub(super) fn before(age: f64) -> Millis {
    let age = if age.is_nan() { f64::MAX } else { age };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates at 0 and at the highest"
    )]
    now().saturating_sub((age * 1e3) as Millis)
}
