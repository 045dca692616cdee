//! One device's task: it feeds the session what happens and does what the session says.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::dialect::Identity;
use crate::dialect::mqtt::{Delivery, Terms};
use crate::session::{Claim, Command, Conn, Event, Guard, Input, Session};

use super::clock;
use super::device::{Claims, Entry, Holder, TaskOrder};
use super::link::{Heard, Link, LinkEvent, Plan, next_event};
use super::owner::{Acquired, Ownership, acquire, take};
use super::resolve::Resolver;
use super::testament::Testament;

/// So many messages are worked through before anybody else gets a turn.
const BATCH: usize = 64;
/// How often a guard that is at work is looked at, and how often a guard asks for a device whose
/// name its klippy has still.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One device at work.
pub(super) struct Task {
    key: String,
    entry: Rc<Entry>,
    claims: Claims,
    session: Session,
    resolver: Resolver,
    /// At most two: the one that stays, and a short one.
    links: Vec<(Conn, Link)>,
    testament: Testament,
    /// The session has said that nothing is left to do.
    over: bool,
}

impl Task {
    pub(super) fn new(key: String, entry: Rc<Entry>, claims: Claims, session: Session) -> Self {
        Self {
            key,
            entry,
            claims,
            session,
            resolver: Resolver::default(),
            links: Vec::new(),
            testament: Testament::default(),
            over: false,
        }
    }

    pub(super) async fn run(mut self) {
        let entry = Rc::clone(&self.entry);
        if entry.is_guards() {
            // Before the first off: by the time a device answers, the next klippy may have it.
            if let Some(identity) = entry.bequest.get().identity {
                self.claim(identity);
            }
        }
        self.turn(Input::Tick);
        loop {
            self.obey();
            let now = clock::now();
            let snapshot = self.session.snapshot(now);
            entry.last.replace(snapshot.clone());
            if self.over {
                return;
            }
            entry.shared.turned(now);
            entry.shared.publish(snapshot);
            let wait = self.session.deadline(now) - now;
            // A new timer each time: one that is set anew leaves its old entry in the runtime's
            // wheel, and the thread wakes up for that one as well.
            let due = sleep_until(Instant::now() + Duration::from_millis(wait));
            tokio::select! {
                () = entry.wake.notified() => self.told(),
                (conn, event) = next_event(&mut self.links) => self.happened(conn, event),
                () = due => self.turn(Input::Tick),
            }
        }
    }

    fn turn(&mut self, input: Input<'_>) {
        #[cfg(test)]
        super::bug::strike(&self.entry, &self.claims);
        let shared = &self.entry.shared;
        self.session.renew(shared.renewed_at());
        // Being adopted means to forget what an earlier printer's sensors said, not this one's.
        if !matches!(input, Input::Adopted(_)) {
            if let Some(around) = shared.take_surroundings(self.entry.handle.get()) {
                self.session.surround(around);
            }
        }
        let now = clock::now();
        self.session.handle(now, input);
        let (entry, session) = (&self.entry, &self.session);
        if let Some(guard) = self.testament.tell(&self.key, entry, session, now) {
            self.entry.order(TaskOrder::Guard(guard));
        }
    }

    /// The other thread, or another device, has something for us.
    fn told(&mut self) {
        let orders = std::mem::take(&mut *self.entry.orders.borrow_mut());
        for order in orders {
            match order {
                TaskOrder::Doubt => self.turn(Input::Doubt),
                TaskOrder::Guard(guard) => self.guard_is(&guard),
                TaskOrder::Acquired(identity, acquired) => self.acquired(identity, acquired),
                TaskOrder::Adopt => {
                    self.testament.changed(&self.key, &self.entry);
                    let config = self.entry.config.borrow().clone();
                    self.turn(Input::Adopted(&config));
                }
                TaskOrder::Orphan => self.turn(Input::Orphaned),
                TaskOrder::End => self.session.end(clock::now()),
            }
        }
        match self.entry.shared.take_wish(self.entry.handle.get()) {
            Some(wish) => self.turn(Input::Wish(wish)),
            None => self.turn(Input::Tick),
        }
    }

    fn happened(&mut self, conn: Conn, event: LinkEvent) {
        match event {
            LinkEvent::Reached => self.turn(Input::Reached(conn)),
            LinkEvent::Opened(address) => {
                self.turn(Input::Opened(conn, address));
                self.read(conn);
            }
            LinkEvent::Readable => self.read(conn),
            LinkEvent::Failed(why) => self.close(conn, &why),
        }
    }

    /// Works through what has arrived on a connection, up to a batch of it.
    fn read(&mut self, conn: Conn) {
        for _ in 0..BATCH {
            let heard = self.link(conn).and_then(Link::take);
            match heard {
                None => return,
                Some(Heard::Unreadable) => self.turn(Input::Unreadable(conn)),
                Some(Heard::Ended(why)) => return self.close(conn, &why),
                Some(Heard::Frame(bytes)) => self.turn(Input::Frame(conn, &bytes)),
                Some(Heard::Delivery {
                    topic,
                    payload,
                    retained,
                }) => {
                    let delivery = Delivery {
                        topic: &topic,
                        payload: &payload,
                        retained,
                    };
                    self.turn(Input::Delivered(conn, delivery));
                }
            }
            self.obey();
            if self.over {
                return;
            }
        }
    }

    fn link(&mut self, conn: Conn) -> Option<&mut Link> {
        let link = self.links.iter_mut().find(|(other, _)| *other == conn);
        link.map(|(_, link)| link)
    }

    fn close(&mut self, conn: Conn, why: &str) {
        self.links.retain(|(other, _)| *other != conn);
        self.turn(Input::Closed(conn, why));
    }

    /// Does what the session says.
    fn obey(&mut self) {
        while let Some(command) = self.session.poll() {
            match command {
                Command::Connect {
                    conn,
                    address,
                    terms,
                } => self.connect(conn, address, terms),
                Command::Send(conn, text) => {
                    if let Some(link) = self.link(conn) {
                        link.send(text);
                    }
                }
                Command::Publish(conn, message) => {
                    if let Some(link) = self.link(conn) {
                        link.publish(message);
                    }
                }
                Command::Leave(conn) => {
                    if let Some(link) = self.link(conn) {
                        link.leave();
                    }
                    self.links.retain(|(other, _)| *other != conn);
                }
                // Dropping the socket resets it: SO_LINGER is 0 from its first moment.
                Command::Abort(conn) => self.links.retain(|(other, _)| *other != conn),
                Command::Claim(identity) => self.claim(identity),
                Command::Tell(event) => self.entry.shared.tell(event),
                Command::End => self.over = !self.entry.owned.get(),
            }
        }
    }

    fn connect(&mut self, conn: Conn, address: Option<SocketAddr>, terms: Option<Terms>) {
        let (host, port) = {
            let config = self.entry.config.borrow();
            (config.host.clone(), config.port)
        };
        // Asked here, so that an answer that comes after this attempt is there for the next one.
        drop(self.resolver.lookup(&host));
        let plan = match (terms, self.entry.broker.borrow().as_ref()) {
            (Some(terms), Some(broker)) => Plan::broker(broker, terms, &self.key),
            _ => Plan::device(),
        };
        let link = Link::reach(self.resolver.clone(), host, port, address, plan);
        self.links.push((conn, link));
    }

    /// A guard that turns the device off is waited for, whatever else is said of it.
    fn guard_is(&mut self, guard: &Guard) {
        if !self.testament.is_guard_busy() {
            let known = self
                .entry
                .keeper
                .borrow()
                .as_ref()
                .map(|keeper| keeper.state());
            let guard = match (guard, known) {
                (Guard::Busy, Some(known)) => known,
                (guard, _) => guard.clone(),
            };
            return self.turn(Input::Guard(&guard));
        }
        self.turn(Input::Guard(&Guard::Busy));
        let entry = Rc::clone(&self.entry);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(LOOK_AGAIN).await;
            entry.order(TaskOrder::Guard(Guard::Busy));
        });
    }

    /// Whether another section, or another process, has this very device.
    fn claim(&mut self, identity: Identity) {
        let mut doubt = false;
        let mut claims = self.claims.borrow_mut();
        let mut ownership = None;
        match claims.remove(&identity) {
            Some(holder) if holder.key == self.key => {
                if holder.ownership.is_none() && holder.acquiring {
                    claims.insert(identity, holder);
                    return; // the answer is on its way
                }
                ownership = holder.ownership;
            }
            Some(holder) if holder.entry.owned.get() => {
                let name = holder.entry.config.borrow().name.clone();
                claims.insert(identity, holder);
                drop(claims);
                return self.turn(Input::Claimed(identity, Claim::Taken(&name)));
            }
            Some(holder) => {
                // What is left of an earlier configuration: this session takes over its duty.
                holder.entry.order(TaskOrder::End);
                doubt = true;
            }
            None => {}
        }
        let free = if ownership.is_none() {
            take(identity)
        } else {
            None
        };
        ownership = ownership.or_else(|| free.map(|name| Ownership::keep(name, &self.entry)));
        let ours = ownership.is_some();
        let holder = Holder {
            key: self.key.clone(),
            entry: Rc::clone(&self.entry),
            acquiring: !ours,
            ownership,
        };
        claims.insert(identity, holder);
        drop(claims);
        if ours {
            return self.turn(Input::Claimed(identity, Claim::Ours { doubt }));
        }
        self.ask_for(identity, doubt, Duration::ZERO);
    }

    /// Asks whichever process has the device, after a while.
    fn ask_for(&self, identity: Identity, doubt: bool, after: Duration) {
        let entry = Rc::clone(&self.entry);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            let mut acquired = acquire(identity, entry.asker).await;
            if let Acquired::Ours { doubt: other, .. } = &mut acquired {
                *other |= doubt;
            }
            entry.order(TaskOrder::Acquired(identity, acquired));
        });
    }

    fn acquired(&mut self, identity: Identity, acquired: Acquired) {
        let mut claims = self.claims.borrow_mut();
        let Some(holder) = claims.get_mut(&identity) else {
            return;
        };
        if holder.key != self.key {
            return; // another section has taken it over meanwhile
        }
        match acquired {
            Acquired::Ours { listener, doubt } => {
                holder.ownership = listener.map(|listener| Ownership::keep(listener, &self.entry));
                // The klippy of this guard has its name still. The next one must find us instead.
                holder.acquiring = holder.ownership.is_none() && self.entry.is_guards();
                let again = holder.acquiring;
                drop(claims);
                if again {
                    self.ask_for(identity, false, LOOK_AGAIN);
                }
                if doubt {
                    self.turn(Input::Doubt); // also if there is no connection to claim for now
                }
                self.turn(Input::Claimed(identity, Claim::Ours { doubt }));
            }
            Acquired::Held { pid, answers } => {
                claims.remove(&identity);
                drop(claims);
                if self.entry.is_guards() {
                    let text = format!("process {pid} looks after the device now");
                    self.entry.shared.tell(Event { text });
                    return self.session.end(clock::now());
                }
                self.turn(Input::Claimed(identity, Claim::Held { pid, answers }));
            }
        }
    }
}
