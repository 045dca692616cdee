//! Listening to a device behind a broker: nothing is published, not even a question to the device.
//!
//! A device tells every change by itself, and its temperature every few seconds, so there is
//! nothing to ask for. What it speaks and where its topics are is learnt from what it says; then
//! the connection is made anew with other subscriptions.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{FIRST_WAIT, Heard, LONGEST_WAIT, OPEN};
use crate::dialect::mqtt::{Delivery, LEARNT_WRONG, Mqtt, Options};
use crate::driver::mqtt::Broker;
use crate::driver::stay::Stay;

/// A broker that has gone is noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Topics that change again and again are followed this often: each time costs the broker a
/// connection.
const BETWEEN: Duration = Duration::from_secs(3);
/// So far apart are two messages that prove a device to be there.
const PROOF: Duration = Duration::from_secs(1);
/// A connection that has lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(10);

type Opening = Pin<Box<dyn Future<Output = Result<Stay, String>>>>;

enum State {
    Waiting(Instant),
    Opening(Opening, Vec<String>),
    Open {
        stay: Box<Stay>,
        subscriptions: Vec<String>,
        since: Instant,
    },
}

/// Whether a device has come of what was learnt.
#[derive(Default)]
struct Voice {
    first: Option<Instant>,
    last: Option<Instant>,
    came: bool,
}

pub(super) struct BrokerWatch {
    broker: Broker,
    options: Options,
    mqtt: Mqtt,
    voice: Voice,
    state: State,
    wait: Duration,
    /// When the topics may be followed again.
    follow_at: Instant,
}

impl Voice {
    fn heard(&mut self) {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        self.came |= now >= first + PROOF;
        self.last = Some(now);
    }
}

impl BrokerWatch {
    pub(super) fn new(broker: &Broker, options: &Options) -> Self {
        let now = Instant::now();
        Self {
            broker: broker.clone(),
            options: options.clone(),
            mqtt: Mqtt::new(options),
            voice: Voice::default(),
            state: State::Waiting(now),
            wait: FIRST_WAIT,
            follow_at: now,
        }
    }

    pub(super) async fn next(&mut self) -> Heard {
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    let subscriptions = self.mqtt.terms().subscriptions;
                    self.state = State::Opening(self.open(subscriptions.clone()), subscriptions);
                }
                State::Opening(opening, subscriptions) => {
                    let opened = opening.await;
                    let subscriptions = std::mem::take(subscriptions);
                    return self.opened(opened, subscriptions);
                }
                State::Open {
                    stay,
                    subscriptions,
                    since,
                } => {
                    if self.mqtt.take_changed() && self.mqtt.terms().subscriptions != *subscriptions
                    {
                        return self.follow();
                    }
                    let doubt_at = self.voice.last.unwrap_or(*since).max(*since)
                        + Duration::from_millis(LEARNT_WRONG);
                    let in_vain = self.mqtt.has_learnt() && !self.voice.came;
                    let next = tokio::select! {
                        next = stay.next() => next,
                        () = sleep_until(doubt_at), if in_vain => {
                            self.mqtt = Mqtt::new(&self.options);
                            self.voice = Voice::default();
                            return self.follow();
                        }
                    };
                    match next {
                        Ok(Some(arrival)) => {
                            let report = self.mqtt.decode(Delivery {
                                topic: &arrival.topic,
                                payload: &arrival.payload,
                                retained: arrival.retained,
                            });
                            if report.is_ok_and(|report| report.is_from_device())
                                && !arrival.retained
                            {
                                self.voice.heard();
                            }
                            return Heard::Delivered(arrival);
                        }
                        Ok(None) => return Heard::Unreadable,
                        Err(why) => {
                            if since.elapsed() >= GOOD {
                                self.wait = FIRST_WAIT;
                            }
                            return self.ended(why);
                        }
                    }
                }
            }
        }
    }

    fn open(&self, subscriptions: Vec<String>) -> Opening {
        let broker = self.broker.clone();
        Box::pin(async move { Stay::long(&broker, subscriptions, OPEN, KEEP_ALIVE).await })
    }

    fn opened(&mut self, opened: Result<Stay, String>, subscriptions: Vec<String>) -> Heard {
        match opened {
            Ok(stay) => {
                self.mqtt.forget_state();
                self.state = State::Open {
                    stay: Box::new(stay),
                    subscriptions,
                    since: Instant::now(),
                };
                Heard::Opened
            }
            Err(why) => self.ended(why),
        }
    }

    /// Goes to where the device says that its topics are.
    fn follow(&mut self) -> Heard {
        let now = Instant::now();
        let next = State::Waiting(now.max(self.follow_at));
        self.follow_at = now.max(self.follow_at) + BETWEEN;
        if let State::Open { stay, .. } = std::mem::replace(&mut self.state, next) {
            stay.leave();
        }
        Heard::Refreshed
    }

    fn ended(&mut self, why: String) -> Heard {
        self.state = State::Waiting(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Heard::Closed(why)
    }
}
