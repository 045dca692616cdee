//! What a guard does all the time: it looks at the board, decides, and obeys.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::sleep;

use crate::driver::clock;
use crate::driver::device::{Devices, Entry};

use super::board::{Duty, Reader, Work};
use super::decide::{Decision, Role, Seen, Watch};
use super::life::{Life, Process};
use super::record::Record;

/// So many lines about one device, and the rest is silence (rule R6).
const MOST_LINES: u32 = 200;

/// One process and its devices, watched.
pub(super) struct Watcher {
    process: Process,
    reader: Reader,
    record: Record,
    watch: Watch,
    role: Role,
    devices: Devices,
    /// By the key of the device.
    wards: BTreeMap<String, Ward>,
}

/// A device that is being turned off.
struct Ward {
    slot: usize,
    entry: Rc<Entry>,
    name: String,
    place: String,
    /// It is to be left alone, and then counts as this; its task is about to end.
    leaving: Option<Work>,
    error: Option<Arc<str>>,
    confirmed: bool,
    lines: u32,
}

impl Watcher {
    pub(super) fn new(role: Role, process: Process, reader: Reader, record: Record) -> Self {
        Self {
            process,
            reader,
            record,
            watch: Watch::new(role),
            role,
            devices: Devices::default(),
            wards: BTreeMap::new(),
        }
    }

    /// Until nothing is left to do. `terminations` counts the requests to hurry.
    pub(super) async fn run(mut self, mut terminations: Receiver<u32>) {
        let life = Life::of(self.process);
        loop {
            let duties = self.reader.duties().clone();
            let alive = life.is_alive();
            if self.look(&duties, alive) {
                return self.say_goodbye();
            }
            let (now, seen) = (clock::now(), self.seen(&duties));
            let wait = self.watch.deadline(now, &seen).saturating_sub(now);
            tokio::select! {
                () = life.ended() => {}
                Ok(()) = terminations.changed() => self.watch.term(clock::now()),
                ended = self.devices.next_ended() => self.ended(ended.as_deref()),
                () = sleep(Duration::from_millis(wait)) => {}
            }
            for ward in self
                .wards
                .values_mut()
                .filter(|ward| ward.leaving.is_none())
            {
                ward.report(&mut self.record);
            }
        }
    }

    /// Decides and obeys; returns whether nothing is left to do.
    fn look(&mut self, duties: &BTreeMap<usize, Duty>, alive: bool) -> bool {
        let seen = self.seen(duties);
        let mut acting = BTreeSet::new();
        for decision in self.watch.turn(clock::now(), alive, &seen) {
            match decision {
                Decision::Act(slot) => {
                    self.reader.set_work(slot, Work::Busy);
                    acting.insert(slot);
                }
                Decision::LetGo(slot) => self.leave(slot, Work::Idle, "Klipper is back"),
                Decision::GiveUp(slot) => self.leave(slot, Work::Settled, "giving up"),
                Decision::End => return true,
            }
        }
        if acting.is_empty() {
            return false;
        }
        // In that order: either the driver sees that we act, or we see that it is back.
        let seen = self.seen(duties);
        for decision in self.watch.turn(clock::now(), alive, &seen) {
            if let Decision::LetGo(slot) = decision {
                self.reader.set_work(slot, Work::Idle);
                acting.remove(&slot);
            }
        }
        for slot in acting {
            if let Some(duty) = duties.get(&slot) {
                self.act(slot, duty, alive);
            }
        }
        false
    }

    fn seen(&self, duties: &BTreeMap<usize, Duty>) -> BTreeMap<usize, Seen> {
        let one = |(slot, duty): (&usize, &Duty)| {
            let settled = self.reader.work(*slot) == Work::Settled;
            let seen = Seen {
                may_be_on: duty.bequest.may_be_on && !settled,
                abandoned: duty.abandoned,
                good_until: self.reader.good_until(*slot),
                retry: duty.config.guard_retry,
            };
            (*slot, seen)
        };
        duties.iter().map(one).collect()
    }

    fn act(&mut self, slot: usize, duty: &Duty, alive: bool) {
        let pid = self.process.pid;
        let what = match (self.role, alive) {
            (Role::Guard, true) => format!("Klipper (process {pid}) was not heard of"),
            (Role::Guard, false) => format!("Klipper (process {pid}) has ended"),
            (Role::Service, _) => format!("the guard of Klipper (process {pid}) has ended"),
        };
        let address = duty.bequest.address.map(|address| address.ip().to_string());
        let place = address.unwrap_or_else(|| duty.config.host.clone());
        let name = duty.config.name.clone();
        self.record.say(&format!(
            "{name}: {what}; turning off the device at {place}"
        ));
        let entry = match self.devices.take_over(duty, pid) {
            Ok(entry) => entry,
            Err(why) => {
                self.record
                    .say(&format!("{name}: it cannot be reached: {why}"));
                return self.settle(slot);
            }
        };
        let ward = Ward {
            slot,
            entry,
            name,
            place,
            leaving: None,
            error: None,
            confirmed: false,
            lines: 0,
        };
        self.wards.insert(duty.key.clone(), ward);
    }

    /// Nothing more will be done for this device.
    fn settle(&mut self, slot: usize) {
        self.reader.set_work(slot, Work::Settled);
        self.watch.done(slot);
    }

    /// Leaves a device alone.
    fn leave(&mut self, slot: usize, work: Work, why: &str) {
        let mut wards = self.wards.iter_mut();
        let Some((key, ward)) = wards.find(|(_, ward)| ward.slot == slot) else {
            return;
        };
        ward.leaving = Some(work);
        let what = match work {
            Work::Settled => {
                self.reader.set_work(slot, work);
                ward.may_be_on()
            }
            // Not before its connection is gone.
            Work::Idle | Work::Busy => "leaving the device to it".to_owned(),
        };
        self.record.say(&format!("{}: {why}; {what}", ward.name));
        self.devices.let_go(key);
    }

    /// A device is looked after no more: it is off, or it is to be left alone.
    fn ended(&mut self, key: Option<&str>) {
        let Some(mut ward) = key.and_then(|key| self.wards.remove(key)) else {
            return;
        };
        if let Some(work) = ward.leaving {
            return self.reader.set_work(ward.slot, work);
        }
        ward.report(&mut self.record);
        self.settle(ward.slot);
    }

    fn say_goodbye(&mut self) {
        for ward in self
            .wards
            .values_mut()
            .filter(|ward| ward.leaving.is_none())
        {
            ward.report(&mut self.record);
            let line = format!("{}: no time is left; {}", ward.name, ward.may_be_on());
            self.record.say(&line);
        }
    }
}

impl Ward {
    /// Writes down what its session has to say.
    fn report(&mut self, record: &mut Record) {
        let mut lines = self.entry.shared.events();
        let last = self.entry.last.borrow();
        if last.last_error != self.error {
            self.error.clone_from(&last.last_error);
            let error = self.error.as_ref();
            lines.extend(error.map(|error| format!("{}: {error}", self.place)));
        }
        if last.off_known && !self.confirmed {
            self.confirmed = true;
            lines.push("the device has confirmed off".to_owned());
        }
        for line in lines {
            if self.lines < MOST_LINES {
                self.lines += 1;
                record.say(&format!("{}: {line}", self.name));
            }
        }
    }

    fn may_be_on(&self) -> String {
        let why = self.error.as_deref().unwrap_or("off is not confirmed yet");
        format!("the device at {} may still be on ({why})", self.place)
    }
}
