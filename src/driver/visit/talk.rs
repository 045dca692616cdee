//! What commands say during a visit, and what the device answers.

use tungstenite::Message;

use crate::dialect::Report;
use crate::dialect::stock::Stock;
use crate::dialect::stock::page::{self, Page};
use crate::driver::websocket::Incoming;

use super::Visit;

/// One frame of the device.
#[derive(Debug, Default)]
pub struct Heard {
    /// What it does.
    pub report: Report,
    /// What its page shows.
    pub page: Page,
}

impl Visit {
    /// Sends one frame, and stays.
    pub fn say(&mut self, frame: String) {
        self.connection.send(frame);
    }

    /// Waits for the next frame; one that means nothing is an empty one. The error says why there
    /// will be none. May be dropped at any time.
    pub async fn hear(&mut self) -> Result<Heard, String> {
        match super::next(&mut self.connection).await {
            Incoming::Message(message) => {
                let bytes = Message::into_data(message);
                Ok(Heard {
                    // The mode alone needs to know the generation; only snapshots are asked for it.
                    report: Stock::default().decode(&bytes).unwrap_or_default(),
                    page: page::decode(&bytes),
                })
            }
            Incoming::Unreadable => Ok(Heard::default()),
            Incoming::Ended(why) => Err(why),
        }
    }
}
