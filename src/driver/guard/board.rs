//! The board: memory that the driver and its guard share, through which alone they speak.
//!
//! Slots, not a queue: nothing can fill up or get lost while either of them stands still, and what
//! is written stays when its writer dies. Writing does not wake anybody, so that a heater that is on
//! costs one short system call per second.
//!
//! | at | what | written by |
//! |---|---|---|
//! | 0 | which of two regions holds the duties, and how long they are | driver |
//! | `UNTIL` | per slot: by when the driver must have been heard of again | driver |
//! | `WORK` | per slot: what the guard does, or has done | guard |
//! | `REGIONS` | the duties as JSON, alternately in one region and the other | driver |
//!
//! A header and a number are written in one call within one page: whoever is killed in the middle
//! leaves the old one or the new one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{pread, pwrite};
use serde::{Deserialize, Serialize};

use crate::session::{Bequest, Config, Millis};

use super::super::mqtt::{Broker, Files, Login, Tls};

/// More devices than a printer has; those beyond it have no guard.
const SLOTS: usize = 4096;
const UNTIL: u64 = 0x1_0000;
const WORK: u64 = 0x2_0000;
const REGIONS: [u64; 2] = [0x100_0000, 0x4000_0000];
/// What all duties together may take (rule R6).
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// In the header, so that a foreign file is not taken for a board.
const MAGIC: u64 = 0x7062_6f61_7264_0001;

/// What a guard does with a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing.
    #[default]
    Idle,
    /// It is turning the device off.
    Busy,
    /// It has done so, or has given it up.
    Settled,
}

/// One device that may have to be turned off, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Duty {
    pub(crate) key: String,
    pub(crate) config: Config,
    pub(crate) broker: Option<Way>,
    pub(crate) bequest: Bequest,
    /// Nobody in its process looks after it any more.
    pub(crate) abandoned: bool,
}

/// The way in at a broker: [`Broker`] without what has been read from files.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Way {
    host: String,
    port: u16,
    login: Option<(String, String)>,
    tls: Option<Files>,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive() // there is a password in it (rule R11)
    }
}

impl Way {
    pub(crate) fn of(broker: &Broker) -> Self {
        let login = broker.login.as_ref();
        Self {
            host: broker.host.clone(),
            port: broker.port,
            login: login.map(|login| (login.username.clone(), login.password.clone())),
            tls: broker.tls.as_ref().map(Tls::files),
        }
    }

    /// Reads the files anew.
    pub(crate) fn broker(&self) -> Result<Broker, String> {
        let login = self.login.clone();
        Ok(Broker {
            host: self.host.clone(),
            port: self.port,
            login: login.map(|(username, password)| Login { username, password }),
            tls: self.tls.clone().map(Tls::load).transpose()?,
        })
    }
}

/// The driver's side.
#[derive(Debug)]
pub(crate) struct Board {
    file: OwnedFd,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    generation: u64,
    /// The duties as they are on the board, by slot.
    duties: BTreeMap<usize, String>,
    /// Which device has which slot.
    slots: BTreeMap<String, usize>,
}

impl Board {
    pub(crate) fn new() -> io::Result<Self> {
        let file = memfd_create("panda_breath_guard", MemfdFlags::CLOEXEC)?;
        let board = Self {
            file,
            written: Mutex::default(),
        };
        board.publish(&mut board.written.lock())?;
        Ok(board)
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The slot of a device; `None` where there are too many of them.
    pub(crate) fn slot(&self, key: &str) -> Option<usize> {
        let mut written = self.written.lock();
        if let Some(slot) = written.slots.get(key) {
            return Some(*slot);
        }
        let free = (0..SLOTS).find(|slot| !written.slots.values().any(|used| used == slot))?;
        written.slots.insert(key.to_owned(), free);
        Some(free)
    }

    /// Puts a device's duty on the board, in the place of what was there.
    pub(crate) fn set(&self, slot: usize, duty: &Duty) -> io::Result<()> {
        let text = serde_json::to_string(duty)?;
        let mut written = self.written.lock();
        if written.duties.get(&slot) == Some(&text) {
            return Ok(());
        }
        written.duties.insert(slot, text);
        self.publish(&mut written)
    }

    /// Takes a device off the board.
    pub(crate) fn clear(&self, key: &str) -> io::Result<()> {
        let mut written = self.written.lock();
        let Some(slot) = written.slots.remove(key) else {
            return Ok(());
        };
        if written.duties.remove(&slot).is_none() {
            return Ok(());
        }
        self.publish(&mut written)
    }

    /// By when the driver must have been heard of again.
    pub(crate) fn good_until(&self, slot: usize, until: Millis) -> io::Result<()> {
        write_all(&self.file, &until.to_le_bytes(), number_at(UNTIL, slot))
    }

    /// What the guard does with a device, or has done while we were not heard of.
    pub(crate) fn work(&self, slot: usize) -> Work {
        read_work(&self.file, slot)
    }

    /// We are back: what the guard has done is done.
    pub(crate) fn unsettle(&self, slot: usize) {
        write_work(&self.file, slot, Work::Idle);
    }

    /// A guard that was killed does not say that it has stopped.
    pub(crate) fn no_guard(&self) {
        let slots: Vec<usize> = self.written.lock().slots.values().copied().collect();
        for slot in slots {
            self.unsettle(slot);
        }
    }

    fn publish(&self, written: &mut Written) -> io::Result<()> {
        let generation = written.generation + 1;
        let region = REGIONS[usize::from(generation % 2 == 1)];
        let mut text = String::from("[");
        for (slot, duty) in &written.duties {
            if text.len() > 1 {
                text.push(',');
            }
            let _ = write!(text, "[{slot},{duty}]"); // a string takes everything
        }
        text.push(']');
        if text.len() > MOST_BYTES {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        write_all(&self.file, text.as_bytes(), region)?;
        let length = text.len() as u64;
        let header: Vec<u8> = [MAGIC, generation, region, length]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        write_all(&self.file, &header, 0)?;
        written.generation = generation;
        Ok(())
    }
}

/// The guard's side.
#[derive(Debug)]
pub(crate) struct Reader {
    file: OwnedFd,
    generation: u64,
    duties: BTreeMap<usize, Duty>,
}

impl Reader {
    pub(crate) fn new(file: OwnedFd) -> io::Result<Self> {
        let reader = Self {
            file,
            generation: 0,
            duties: BTreeMap::new(),
        };
        if reader.header()[0] == MAGIC {
            Ok(reader)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this is not a board of panda-breath",
            ))
        }
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn header(&self) -> [u64; 4] {
        let mut bytes = [0; 32];
        let _ = pread(&self.file, &mut bytes, 0);
        let mut numbers = [0; 4];
        for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        numbers
    }

    /// What is on the board now. What cannot be read (it is being written) is as it was.
    pub(crate) fn duties(&mut self) -> &BTreeMap<usize, Duty> {
        let header @ [_, generation, region, length] = self.header();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if generation != self.generation && length <= MOST_BYTES {
            let mut text = vec![0; length];
            let whole = read_all(&self.file, &mut text, region);
            // Two writes later the same region is written again: then it is read the next time.
            if whole && self.header() == header {
                if let Ok(duties) = serde_json::from_slice::<Vec<(usize, Duty)>>(&text) {
                    self.duties = duties.into_iter().collect();
                    self.generation = generation;
                }
            }
        }
        &self.duties
    }

    pub(crate) fn good_until(&self, slot: usize) -> Millis {
        read_number(&self.file, number_at(UNTIL, slot))
    }

    pub(crate) fn work(&self, slot: usize) -> Work {
        read_work(&self.file, slot)
    }

    pub(crate) fn set_work(&self, slot: usize, work: Work) {
        write_work(&self.file, slot, work);
    }
}

fn read_work(file: &OwnedFd, slot: usize) -> Work {
    match read_number(file, number_at(WORK, slot)) {
        1 => Work::Busy,
        2 => Work::Settled,
        _ => Work::Idle,
    }
}

fn write_work(file: &OwnedFd, slot: usize, work: Work) {
    let number: u64 = match work {
        Work::Idle => 0,
        Work::Busy => 1,
        Work::Settled => 2,
    };
    // Where it cannot be written, it is as it was.
    let _ = write_all(file, &number.to_le_bytes(), number_at(WORK, slot));
}

fn number_at(array: u64, slot: usize) -> u64 {
    array + 8 * (slot.min(SLOTS - 1) as u64)
}

fn read_number(file: &OwnedFd, at: u64) -> u64 {
    let mut bytes = [0; 8];
    let _ = pread(file, &mut bytes, at);
    u64::from_le_bytes(bytes)
}

fn read_all(file: &OwnedFd, bytes: &mut [u8], at: u64) -> bool {
    let mut done = 0;
    while done < bytes.len() {
        match pread(file, &mut bytes[done..], at + done as u64) {
            Ok(0) | Err(_) => return false,
            Ok(n) => done += n,
        }
    }
    true
}

fn write_all(file: &OwnedFd, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(file, &bytes[done..], at + done as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => done += n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duty(key: &str) -> Duty {
        Duty {
            key: key.to_owned(),
            config: Config::default(),
            broker: None,
            bequest: Bequest::default(),
            abandoned: false,
        }
    }

    fn pair() -> (Board, Reader) {
        let board = Board::new().unwrap();
        let reader = Reader::new(board.file().try_clone_to_owned().unwrap()).unwrap();
        (board, reader)
    }

    #[test]
    fn what_is_put_on_the_board_is_read_and_what_is_taken_off_is_gone() {
        let (board, mut reader) = pair();
        assert!(reader.duties().is_empty());
        let (a, b) = (board.slot("a").unwrap(), board.slot("b").unwrap());
        assert_ne!(a, b);
        assert_eq!(board.slot("a"), Some(a), "the same device, the same slot");
        board.set(a, &duty("a")).unwrap();
        board.set(b, &duty("b")).unwrap();
        assert_eq!(reader.duties().len(), 2);
        assert_eq!(reader.duties()[&b], duty("b"));
        let later = Duty {
            abandoned: true,
            ..duty("a")
        };
        board.set(a, &later).unwrap();
        assert_eq!(reader.duties()[&a], later);
        board.clear("b").unwrap();
        assert_eq!(reader.duties().keys().collect::<Vec<_>>(), [&a]);
        assert_eq!(board.slot("c"), Some(b), "a free slot is used again");
    }

    #[test]
    fn numbers_go_both_ways() {
        let (board, reader) = pair();
        let slot = board.slot("a").unwrap();
        assert_eq!(reader.good_until(slot), 0);
        board.good_until(slot, 12_345).unwrap();
        assert_eq!(reader.good_until(slot), 12_345);
        assert_eq!(board.work(slot), Work::Idle);
        for work in [Work::Busy, Work::Settled] {
            reader.set_work(slot, work);
            assert_eq!((board.work(slot), reader.work(slot)), (work, work));
        }
        board.no_guard();
        assert_eq!(reader.work(slot), Work::Idle);
    }

    #[test]
    fn r8_a_header_that_was_not_written_leaves_the_old_duties() {
        let (board, mut reader) = pair();
        let slot = board.slot("a").unwrap();
        board.set(slot, &duty("a")).unwrap();
        assert_eq!(reader.duties().len(), 1);
        // Killed after the region and before the header: the other region is written next.
        let region = REGIONS[usize::from(reader.generation % 2 == 0)];
        write_all(&board.file, b"[[0,{\"key\":", region).unwrap();
        reader.generation = 0; // as a guard that has just been started
        assert_eq!(reader.duties().len(), 1);
    }

    #[test]
    fn r11_a_password_is_in_no_debug_output() {
        let way = Way {
            host: "broker".into(),
            port: 1883,
            login: Some(("klipper".into(), "secret".into())),
            tls: None,
        };
        let duty = Duty {
            broker: Some(way.clone()),
            ..duty("a")
        };
        assert!(!format!("{duty:?}").contains("secret"));
        assert_eq!(way.broker().unwrap().login.unwrap().password, "secret");
    }

    #[test]
    fn a_file_that_is_no_board_is_refused() {
        let file = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        assert!(Reader::new(file).is_err());
    }
}
