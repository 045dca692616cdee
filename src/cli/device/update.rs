//! `device update`: a firmware file to the device, and what becomes of it.
//!
//! The answer to the upload says nothing: it is 200 and empty whatever happens. What became of it
//! is said over the WebSocket, to whoever listens; so that connection stays open meanwhile. Where
//! nothing is heard, the device is looked at after its restart.

use std::cell::Cell;
use std::io;

use tokio::time::{Instant, sleep_until};

use super::desk::{Care, Desk, firmware};
use super::image::Image;
use crate::cli::bind::{Visit, failed};
use crate::driver::http::{self, Broken};

const PATH: &str = "/ota";
/// As the page sends it.
const HEADERS: &str = "Content-Type: application/octet-stream;charset=UTF-8\r\n\
                       OTA-Type: ota_fw\r\nConnection: close\r\n";

/// What became of an upload.
struct Outcome {
    posted: Result<u16, Broken>,
    /// What the device says; `None`: nothing.
    accepted: Option<bool>,
}

/// Installs an image, and waits until the device runs it.
pub(super) async fn install(desk: &mut Desk<'_, '_>, image: &Image) -> io::Result<()> {
    desk.say(format!(
        "The file: {} bytes, calls itself {} {}",
        image.bytes.len(),
        image.project,
        image.version
    ))?;
    let question = "The device will run this firmware. It checks neither what it is for nor how \
                    old it is, and there is no way back over the network from one that is not a \
                    Panda Breath's.";
    let mut visit = desk.ready(Care::Print, Some(question)).await?;
    let before = firmware(&visit.report);
    let outcome = upload(desk, &mut visit, image).await;
    let whole = image.bytes.len();
    match (&outcome.posted, outcome.accepted) {
        (Err(Broken { sent, why }), accepted) if accepted != Some(true) => {
            return Err(failed(format!(
                "the upload broke off after {sent} of {whole} bytes: {why}. Another one may be \
                 running; the device goes on with the firmware it has"
            )));
        }
        (Ok(status), None) if *status != 200 => {
            return Err(failed(format!(
                "the device takes no uploads (HTTP {status})"
            )));
        }
        (_, Some(false)) => {
            return Err(failed(
                "the device refuses the image, and goes on with the firmware it has",
            ));
        }
        (_, Some(true)) => desk.say("The device has taken it, and restarts.")?,
        (_, None) => desk.say("The device does not say whether it has taken it.")?,
    }
    let is_known = outcome.accepted == Some(true);
    let back = desk.restarted(visit).await;
    let visit = match back {
        Ok(visit) => visit,
        Err(error) if is_known => return Err(error),
        Err(error) => return Err(failed(format!("what became of it is not known: {error}"))),
    };
    let after = firmware(&visit.report);
    if is_known || after != before {
        desk.say(format!("It runs firmware {after} now (before: {before})."))
    } else {
        Err(failed(format!(
            "it has restarted and runs firmware {after}, as before: whether that is the new one \
             is not known"
        )))
    }
}

/// Hands over the image, and listens meanwhile.
async fn upload(desk: &mut Desk<'_, '_>, visit: &mut Visit, image: &Image) -> Outcome {
    let patience = desk.world.patience;
    let place = visit.address();
    let whole = image.bytes.len();
    let person = &mut *desk.world.person;
    let sent = Cell::new(0);
    let progress = |now| {
        sent.set(now);
        person.progress(now, whole);
    };
    let posting = http::post(
        &place,
        PATH,
        HEADERS,
        &image.bytes,
        patience.stall,
        progress,
    );
    let mut posting = std::pin::pin!(posting);
    let mut posted = None;
    let mut accepted = None;
    let mut listening = true;
    let mut until = Instant::now();
    loop {
        tokio::select! {
            result = &mut posting, if posted.is_none() => {
                posted = Some(result);
                until = Instant::now() + patience.answer;
            }
            heard = visit.hear(), if listening => match heard {
                Ok(heard) => {
                    let response = heard.page.response;
                    let ours = response.filter(|r| ["ota_fw", "ota_unknown"].contains(&r.kind.as_str()));
                    // A success before the end is that of somebody else's upload.
                    let ours = ours.filter(|response| !response.ok || sent.get() == whole);
                    accepted = ours.map(|response| response.ok).or(accepted);
                }
                Err(_) => listening = false,
            },
            () = sleep_until(until), if posted.is_some() => break,
        }
        // It restarts right after it has said so: its last word may come before that of HTTP.
        if posted.is_some() && (accepted.is_some() || !listening) || accepted == Some(true) {
            break;
        }
    }
    let nothing = Broken {
        sent: 0,
        why: "no answer".to_owned(),
    };
    Outcome {
        posted: posted.unwrap_or(Err(nothing)),
        accepted,
    }
}
