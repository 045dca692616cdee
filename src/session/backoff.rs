//! When to try the next connection.

use super::Millis;

const SHORTEST: Millis = 250;
const LONGEST: Millis = 5_000;

/// How long to wait before the next attempt: nothing the first time, then an eighth of the time
/// the device has been away, from 0.25 s to 5 s, less up to a quarter of jitter.
///
/// Growing with the outage instead of doubling with each attempt keeps the same ends, and is never
/// late by more than an eighth: a device that reboots in 5 s is found again 0.3 s later in the
/// median, where doubling would be waiting for its 7.75th second.
pub(super) fn delay(attempts: u32, away: Millis, jitter: u64) -> Millis {
    if attempts == 0 {
        return 0;
    }
    let whole = (away / 8).clamp(SHORTEST, LONGEST);
    whole - jitter % (whole / 4 + 1)
}

/// A small generator of the session's own, so that a thousand devices do not knock in step and a
/// test can repeat what it saw (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Jitter(pub(super) u64);

impl Jitter {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_retry_is_at_once() {
        assert_eq!(delay(0, 0, 7), 0);
        assert_eq!(delay(0, 60_000, 7), 0);
    }

    #[test]
    fn delay_grows_with_the_outage_between_its_limits() {
        let mut jitter = Jitter(1);
        for (away, whole) in [
            (0, 250),
            (1_000, 250),
            (4_000, 500),
            (20_000, 2_500),
            (3_600_000, 5_000),
        ] {
            for _ in 0..200 {
                let wait = delay(1, away, jitter.next());
                assert!(
                    wait <= whole && wait >= whole - whole / 4,
                    "{wait} of {whole}"
                );
            }
        }
    }

    #[test]
    fn two_sessions_do_not_knock_in_step() {
        let (mut a, mut b) = (Jitter(1), Jitter(2));
        let differ = (0..100)
            .filter(|_| delay(1, 40_000, a.next()) != delay(1, 40_000, b.next()))
            .count();
        assert!(differ > 90, "{differ}");
    }

    #[test]
    fn jitter_takes_off_up_to_a_quarter() {
        for (jitter, wait) in [(0, 500), (1, 499), (125, 375), (126, 500)] {
            assert_eq!(delay(1, 4_000, jitter), wait, "{jitter}");
        }
    }

    #[test]
    fn jitter_is_the_generator_that_it_says() {
        let mut jitter = Jitter(1_234_567); // the published example
        let first = [jitter.next(), jitter.next(), jitter.next()];
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(first, published);
    }
}
