//! What random histories have met: how often each event happened in each state of the link, for
//! each wish of Klipper.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::Link;

/// What Klipper wants when something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Want {
    Off,
    Heat,
    /// Not ready, or in shutdown, whatever its target.
    Shut,
    /// No printer wants the device.
    Gone,
}

const LINKS: [Link; 5] = [
    Link::Pending,
    Link::Connecting,
    Link::Connected,
    Link::Reconnecting,
    Link::Error,
];
const WANTS: [Want; 4] = [Want::Off, Want::Heat, Want::Shut, Want::Gone];

/// Each cell at least this often, over all histories.
const ENOUGH: u64 = 100;

/// Why a cell cannot be met, if it cannot.
pub(crate) type Unreachable = fn(Link, Want, &str) -> Option<&'static str>;

#[derive(Default)]
pub(crate) struct Coverage {
    cells: BTreeMap<(Link, Want, &'static str), u64>,
    pub(crate) histories: u64,
    pub(crate) steps: u64,
    /// Verdicts of the reference: off, heat, calm.
    pub(crate) judged: [u64; 3],
}

impl Coverage {
    pub(crate) fn met(&mut self, link: Link, want: Want, event: &'static str) {
        *self.cells.entry((link, want, event)).or_default() += 1;
        self.steps += 1;
    }

    /// Prints the table, and, if there were enough histories for it, holds it to what is asked.
    pub(crate) fn conclude(&self, what: &str, events: &[&'static str], unreachable: Unreachable) {
        let mean = self.steps / self.histories.max(1);
        let [off, heat, calm] = self.judged;
        let mut text = format!(
            "\n{what}: {} histories, {} steps, mean {mean}; \
             judged: {off} times off, {heat} times heat, {calm} times calm\n",
            self.histories, self.steps
        );
        let mut rare = Vec::new();
        let mut reasons = BTreeMap::<&str, usize>::new();
        for link in LINKS {
            for want in WANTS {
                let _ = write!(text, "{:<13}{:<5}", link.name(), format!("{want:?}"));
                for event in events {
                    let count = self.cells.get(&(link, want, *event)).copied();
                    let count = count.unwrap_or_default();
                    if let Some(why) = unreachable(link, want, event) {
                        assert_eq!(count, 0, "{link:?} {want:?} {event}: {why}");
                        *reasons.entry(why).or_default() += 1;
                        let _ = write!(text, " {event}:-");
                        continue;
                    }
                    let _ = write!(text, " {event}:{count}");
                    if count < ENOUGH {
                        rare.push(format!("{link:?} {want:?} {event}: {count}"));
                    }
                }
                text.push('\n');
            }
        }
        for (why, cells) in reasons {
            let _ = writeln!(text, "{cells} cells cannot be met: {why}");
        }
        let _ = writeln!(text, "met less than {ENOUGH} times: {}", rare.len());
        #[expect(clippy::print_stdout, reason = "for whoever runs them in number")]
        {
            println!("{text}");
        }
        if self.histories >= super::histories::IN_NUMBER {
            assert!(mean >= 50, "mean {mean} steps");
            assert!(rare.is_empty(), "met too rarely: {rare:#?}");
            assert!(off > 0 && heat > 0 && calm > 0, "nothing was judged");
        }
    }
}
