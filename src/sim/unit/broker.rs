//! What a stock device does at a broker, from 1.0.4 on.

use std::rc::Rc;

use super::Unit;
use crate::driver::mqtt::Terms;
use crate::sim::link::{Face, Link};
use crate::sim::log::Event;

impl Face for Unit {
    fn link(&self) -> &Link {
        &self.link
    }

    fn terms(&self) -> Terms {
        self.device.borrow().terms()
    }

    fn opened(&self) {
        self.trouble.borrow_mut().clear();
        let number = self.accepted.get() + 1;
        self.accepted.set(number);
        self.link_client.set(number);
        self.note(Event::Open {
            client: number,
            open: self.open_count(),
        });
        let mut device = self.device.borrow_mut();
        device.set_broker_connected(true);
        let states = vec![device.availability("online"), device.published_state()];
        drop(device);
        self.link.publish(states);
    }

    fn closed(&self) {
        self.device.borrow_mut().set_broker_connected(false);
        let client = self.link_client.replace(0);
        self.note(Event::Close {
            client,
            open: self.open_count(),
        });
    }

    fn received(self: Rc<Self>, topic: &str, payload: &[u8]) {
        self.note(Event::message(self.link_client.get(), topic, payload));
        let effect = self.device.borrow_mut().handle_mqtt(payload);
        self.obey(effect);
        self.note_state();
    }

    fn unreachable(&self, text: &str) {
        if self.trouble.replace(text.to_owned()) != text {
            (self.complain)(text);
            self.note(Event::Unreachable {
                text: text.to_owned(),
            });
        }
    }
}
