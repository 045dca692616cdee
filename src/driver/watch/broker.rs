//! Listening to a device behind a broker: nothing is published, not even a question to the device.
//!
//! A device tells every change by itself, and its temperature every few seconds, so there is
//! nothing to ask for. What it speaks and where its topics are is learnt from what it says; then
//! the connection is made anew with other subscriptions.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{FIRST_WAIT, Heard, LONGEST_WAIT, OPEN};
use crate::dialect::mqtt::{Delivery, Mqtt, Options};
use crate::driver::mqtt::Broker;
use crate::driver::stay::Stay;

/// A broker that has gone is noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Topics that change again and again are followed this often: each time costs the broker a
/// connection.
const BETWEEN: Duration = Duration::from_secs(3);
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

pub(super) struct BrokerWatch {
    broker: Broker,
    mqtt: Mqtt,
    state: State,
    wait: Duration,
    /// When the topics may be followed again.
    follow_at: Instant,
}

impl BrokerWatch {
    pub(super) fn new(broker: &Broker, options: &Options) -> Self {
        let now = Instant::now();
        Self {
            broker: broker.clone(),
            mqtt: Mqtt::new(options),
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
                    match stay.next().await {
                        Ok(Some(arrival)) => {
                            let _ = self.mqtt.decode(Delivery {
                                topic: &arrival.topic,
                                payload: &arrival.payload,
                                retained: arrival.retained,
                            });
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
