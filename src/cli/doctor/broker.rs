//! A device behind a broker: whether we get in, hear the device, and may write to it.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Plan;
use super::finding::{Findings, Level};
use super::firmware;
use crate::cli::bind::visit;
use crate::cli::discover::{doing, merge, printable};
use crate::cli::plain::plain;
use crate::dialect::mqtt::{Delivery, Mqtt, Options};
use crate::dialect::{BrokerNews, Dialect, Identity, Report, Setting};
use crate::driver::mqtt::Broker;
use crate::driver::stay::Stay;

/// As long as the driver is.
const OPEN: Duration = Duration::from_secs(10);
/// Until what we write has come back.
const ECHO: Duration = Duration::from_secs(3);
/// Each time more is learnt of where the device is, its topics are subscribed to anew.
const MOST_STAYS: usize = 4;
/// Klipper calls an older reading stale.
const STALE: Duration = Duration::from_secs(7);

/// What was heard.
#[derive(Default)]
struct Heard {
    live: Report,
    voices: usize,
    news: Vec<BrokerNews>,
    last_reading: Option<Instant>,
    longest_gap: Duration,
}

pub(super) async fn check(
    broker: &Broker,
    options: &Options,
    max_target: f64,
    plan: &Plan,
    said: &mut Findings,
) -> Option<Identity> {
    if let Err(why) = visit::addresses(&broker.host).await {
        said.problem("resolves", why, "use the broker's address in mqtt_broker");
        return None;
    }
    let mut mqtt = Mqtt::new(options);
    let mut heard = Heard::default();
    let end = Instant::now() + plan.time;
    let mut stay = None;
    for turn in 0..MOST_STAYS {
        mqtt.take_changed();
        let opened = Stay::at(broker, mqtt.terms().subscriptions, OPEN).await;
        let mut open = match opened {
            Ok(open) => open,
            Err(why) => {
                refused(broker, &why, said);
                return None;
            }
        };
        if turn == 0 {
            let port = broker.port;
            said.ok(
                "broker",
                format!("connected to {} port {port}, and let in", broker.host),
            );
        }
        if let Some(question) = mqtt.question() {
            open.publish(&question.topic, &question.payload);
        }
        if let Err(why) = listen(&mut open, &mut mqtt, &mut heard, end).await {
            said.problem(
                "broker",
                format!("the broker ended the connection: {why}"),
                "look into the broker's log",
            );
            return None;
        }
        let is_over = Instant::now() >= end;
        if is_over || turn + 1 == MOST_STAYS {
            stay = Some(open);
            break;
        }
        open.leave();
    }
    judge_news(&heard.news, said);
    let is_there = judge_voice(&mqtt, options, &heard, said);
    if is_there {
        judge_device(&mqtt, &heard, max_target, said);
    }
    if let Some(mut stay) = stay {
        if is_there {
            rights(&mut stay, &mqtt, &heard.live, said).await;
        }
        stay.leave();
    }
    heard.live.identity
}

/// Until the time is over, or more is known of where the device is.
async fn listen(
    stay: &mut Stay,
    mqtt: &mut Mqtt,
    heard: &mut Heard,
    end: Instant,
) -> Result<(), String> {
    while let Ok(next) = timeout_at(end, stay.next()).await {
        let Some(arrival) = next? else { continue };
        let delivery = Delivery {
            topic: &arrival.topic,
            payload: &arrival.payload,
            retained: arrival.retained,
        };
        if let Ok(report) = mqtt.decode(delivery) {
            heard.take(report, arrival.retained);
        }
        if mqtt.take_changed() {
            return Ok(());
        }
    }
    Ok(())
}

impl Heard {
    fn take(&mut self, mut report: Report, retained: bool) {
        if let Some(news) = report.broker.take() {
            self.news.retain(|known| *known != news);
            match news {
                BrokerNews::CommandCleared(topic) => self
                    .news
                    .retain(|known| *known != BrokerNews::RetainedCommand(topic.clone())),
                BrokerNews::SeveralDevices(_) => {
                    self.news
                        .retain(|known| !matches!(known, BrokerNews::SeveralDevices(_)));
                    self.news.push(news);
                }
                BrokerNews::RetainedCommand(_) | BrokerNews::Refused(_) => self.news.push(news),
            }
        }
        if !retained && report.is_from_device() && report.present != Some(false) {
            self.voices += 1;
        }
        if report.reading.is_some() {
            let now = Instant::now();
            if let Some(last) = self.last_reading.replace(now) {
                self.longest_gap = self.longest_gap.max(now - last);
            }
        }
        merge(&mut self.live, &report);
    }
}

/// Why we do not get in, with what to do.
fn refused(broker: &Broker, why: &str, said: &mut Findings) {
    let port = broker.port;
    let has = |part: &str| why.contains(part);
    let (check, remedy) = if has("does not allow to read") {
        (
            "rights",
            "let this user read and write the device's topics: docs/mqtt.md has an access list",
        )
    } else if has("user name") {
        (
            "login",
            "mqtt_username, and the only line of the file in mqtt_password_file",
        )
    } else if has("certificate") || has("TLS") {
        ("tls", "docs/mqtt.md; also check this computer's clock")
    } else if has("refused") {
        (
            "broker",
            "does it run? mosquitto listens only on its own computer until it has a 'listener'",
        )
    } else if has("no answer") || has("unreachable") {
        (
            "broker",
            "is mqtt_broker its address, and no firewall in between?",
        )
    } else {
        ("broker", "is a broker there, and is mqtt_port right?")
    };
    said.problem(check, format!("{} port {port}: {why}", broker.host), remedy);
}

fn judge_news(news: &[BrokerNews], said: &mut Findings) {
    for one in news {
        match one {
            BrokerNews::RetainedCommand(topic) => said.problem(
                "retained",
                format!("the broker keeps a command on {}", printable(topic)),
                format!(
                    "it is repeated whenever the device connects. Clear it: mosquitto_pub -r -n -t \
                     {}; and find out who publishes with retain",
                    printable(topic)
                ),
            ),
            BrokerNews::SeveralDevices(names) => said.problem(
                "one_device",
                format!("several devices answer: {}", printable(names)),
                "choose one with mqtt_device_id",
            ),
            // Words of ours, and a long sentence; what it quotes was looked at.
            BrokerNews::Refused(why) => said.problem("discovery", plain(why), "docs/mqtt.md"),
            BrokerNews::CommandCleared(_) => {}
        }
    }
}

/// Whether the device itself is there.
fn judge_voice(mqtt: &Mqtt, options: &Options, heard: &Heard, said: &mut Findings) -> bool {
    if heard.voices > 0 && heard.live.present != Some(false) {
        let dialect = mqtt.dialect().map_or("?", Dialect::name);
        said.ok("heard", format!("the device speaks, dialect {dialect}"));
        return true;
    }
    let place = options.place(mqtt.dialect());
    if heard.live.present == Some(false) {
        said.problem(
            "heard",
            format!("the broker says that the device below {place} is offline"),
            "is it switched on, and on Wi-Fi? Bound to this broker?",
        );
    } else {
        said.problem(
            "heard",
            format!("nothing is heard below {place}"),
            "is the device connected to this broker? mqtt_topic_prefix as in its configuration; \
             may this user read those topics (the broker's access list)? 'panda-breath discover \
             --broker' shows who is there",
        );
    }
    false
}

fn judge_device(mqtt: &Mqtt, heard: &Heard, max_target: f64, said: &mut Findings) {
    let report = &heard.live;
    match (mqtt.dialect(), &report.firmware) {
        (Some(Dialect::StockMqtt), _) => firmware::over_mqtt(said),
        (_, Some(version)) => {
            said.ok("firmware", format!("ESPHome {}", version.as_str()));
        }
        (_, None) => {
            said.ok(
                "firmware",
                "ESPHome, older than 2024.8: it does not say who it is",
            );
        }
    }
    if let Some(missing) = mqtt.what_is_missing() {
        said.problem(
            "topics",
            missing,
            "docs/mqtt.md names the options for other topics",
        );
        return;
    }
    if report.reading.is_none() {
        said.problem(
            "state",
            format!("{}: it tells no temperature", doing(report)),
            "the sensor's plug and cable; behind ESPHome also mqtt_sensor, its object id",
        );
    } else {
        said.ok("state", doing(report));
    }
    if heard.longest_gap >= STALE {
        said.warning(
            "reports",
            format!(
                "{:.1} s between two readings",
                heard.longest_gap.as_secs_f32()
            ),
            "Klipper calls a reading stale after 7 s: 'update_interval: 5s' or less for the \
             sensor; or the device's Wi-Fi is weak",
        );
    }
    if let Some(limit) = report.target_limit.filter(|limit| *limit < max_target) {
        said.warning(
            "limit",
            format!("the device takes targets up to {limit} C; max_target is {max_target} C"),
            mqtt.limit_remedy(),
        );
    }
}

/// Whether what we publish on a command topic gets there: a word that no firmware takes for a
/// command, and only while the device is off.
async fn rights(stay: &mut Stay, mqtt: &Mqtt, report: &Report, said: &mut Findings) {
    if report.on != Some(false) {
        said.ok(
            "rights",
            "may read; writing not tried, because the device is not off",
        );
        return;
    }
    let Some(topic) = mqtt.encode(Setting::Off, true).pop().map(|off| off.topic) else {
        return;
    };
    let word = match mqtt.dialect() {
        Some(Dialect::StockMqtt) => "{}",
        _ => "doctor",
    };
    let start = Instant::now();
    stay.publish(&topic, word);
    let came_back = async {
        loop {
            match stay.next().await {
                Err(why) => return Err(why),
                Ok(Some(back)) if back.topic == topic && back.payload == word => return Ok(()),
                Ok(_) => {}
            }
        }
    };
    let came_back = timeout_at(start + ECHO, came_back).await;
    let trip = start.elapsed();
    if let Ok(Ok(())) = came_back {
        said.add(
            Level::Ok,
            "rights",
            format!(
                "may read and write ({} ms there and back)",
                trip.as_millis()
            ),
        );
    } else {
        said.problem(
            "rights",
            format!("what is written to {} gets nowhere", printable(&topic)),
            "the broker's access list: this user must read and write the device's topics \
             (docs/mqtt.md)",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_we_do_not_get_in_says_what_to_do() {
        let broker = Broker {
            host: "b".into(),
            port: 1883,
            login: None,
            tls: None,
        };
        for (why, check, part) in [
            ("connection refused", "broker", "does it run"),
            ("no answer", "broker", "firewall"),
            (
                "the broker wants a user name and password (mqtt_username, mqtt_password_file)",
                "login",
                "mqtt_username",
            ),
            (
                "the broker does not allow to read x/state; check its access rules",
                "rights",
                "read and write",
            ),
            (
                "the broker wants TLS on this port (mqtt_tls: True)",
                "tls",
                "docs/mqtt.md",
            ),
            (
                "the broker's certificate is not for 'b'",
                "tls",
                "docs/mqtt.md",
            ),
            (
                "it answers, but not as an MQTT broker does",
                "broker",
                "mqtt_port",
            ),
        ] {
            let mut said = Findings::default();
            refused(&broker, why, &mut said);
            let finding = &said.list[0];
            assert_eq!((finding.check, finding.level), (check, Level::Problem));
            assert!(finding.text.contains(why));
            assert!(
                finding
                    .remedy
                    .as_ref()
                    .is_some_and(|remedy| remedy.contains(part)),
                "{why}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_discovery_message_is_said_to_the_end() {
        let why = "its discovery message has a mode_state_template, which is not supported; \
                   set mqtt_discovery_prefix to nothing and name the topics yourself";
        let news = [
            BrokerNews::Refused(why.into()),
            BrokerNews::SeveralDevices("0001, 0002".into()),
        ];
        let mut said = Findings::default();
        judge_news(&news, &mut said);
        assert_eq!(said.list[0].text, why);
        assert_eq!(said.list[1].text, "several devices answer: 0001, 0002");
    }

    #[test]
    fn a_command_that_was_cleared_is_no_news() {
        let mut heard = Heard::default();
        let news = |news| Report {
            broker: Some(news),
            ..Report::default()
        };
        heard.take(news(BrokerNews::RetainedCommand("t".into())), true);
        heard.take(news(BrokerNews::RetainedCommand("t".into())), true);
        assert_eq!(heard.news.len(), 1);
        heard.take(news(BrokerNews::CommandCleared("t".into())), false);
        assert_eq!(heard.news, []);
    }

    #[test]
    fn a_device_that_speaks_and_leaves_is_gone() {
        let mut heard = Heard::default();
        let said = |reading, present| Report {
            reading,
            present,
            ..Report::default()
        };
        let is_there = |heard: &Heard| {
            let mqtt = Mqtt::new(&Options::default());
            judge_voice(&mqtt, &Options::default(), heard, &mut Findings::default())
        };
        heard.take(said(Some(22.0), None), false);
        assert!(is_there(&heard));
        heard.take(said(None, Some(false)), false);
        assert!(!is_there(&heard));
    }

    #[test]
    fn readings_that_come_too_seldom_are_a_warning() {
        let mut heard = Heard {
            longest_gap: STALE,
            ..Heard::default()
        };
        heard.live.reading = Some(22.0);
        let stock = Options {
            dialect: Some(Dialect::StockMqtt),
            device_id: Some("025042000001".into()),
            ..Options::default()
        };
        let mut said = Findings::default();
        judge_device(&Mqtt::new(&stock), &heard, 60.0, &mut said);
        let found: Vec<_> = said.list.iter().map(|one| (one.check, one.level)).collect();
        assert!(found.contains(&("reports", Level::Warning)), "{found:?}");
        heard.longest_gap = STALE / 2;
        let mut said = Findings::default();
        judge_device(&Mqtt::new(&stock), &heard, 60.0, &mut said);
        assert!(said.list.iter().all(|one| one.level == Level::Ok));
    }
}
