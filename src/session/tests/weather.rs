//! Ordinary Wi-Fi, as TCP shows it: nothing is lost or reordered, it only comes later.

use super::super::Millis;

/// A lost segment is sent again after this at first; the slower of the two stacks (lwIP's).
const FIRST_RETRY: Millis = 1_500;
const LONGEST_RETRY: Millis = 60_000;
const HOUR: Millis = 3_600_000;

/// How a network treats what is sent. By default it does nothing to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    state: u64,
    /// Up to this much later.
    jitter: Millis,
    /// One segment of so many is lost; 0: none.
    one_in: u64,
    /// Nothing gets through for so long, once per hour.
    outage: Millis,
}

impl Weather {
    /// 1 % loss, 200 ms jitter, an outage of 20 s per hour.
    pub(crate) fn ordinary(seed: u64) -> Self {
        Self {
            state: seed,
            jitter: 200,
            one_in: 100,
            outage: 20_000,
        }
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mixed(self.state) >> 16) % limit.max(1)
    }

    /// Whether nothing gets through at this time.
    pub(crate) fn is_out(&self, at: Millis) -> bool {
        if self.outage == 0 {
            return false;
        }
        let begins = mixed(at / HOUR + 1) % (HOUR - self.outage);
        (begins..begins + self.outage).contains(&(at % HOUR))
    }

    /// When something arrives that would arrive at `at` in calm weather.
    pub(crate) fn arrival(&mut self, at: Millis) -> Millis {
        if self.jitter == 0 {
            return at;
        }
        let (mut at, mut retry) = (at + self.below(self.jitter), FIRST_RETRY);
        while self.is_out(at) || self.below(self.one_in) == 0 {
            at += retry;
            retry = (2 * retry).min(LONGEST_RETRY);
        }
        at
    }
}

/// `splitmix64`'s finalizer: the same number gives the same, and neighbours have nothing in common.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
