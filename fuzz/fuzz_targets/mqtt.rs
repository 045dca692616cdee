//! What a broker delivers: topics and payloads of an ESPHome node, of firmware 1.0.4, of either,
//! and discovery messages for Home Assistant.

#![no_main]

use libfuzzer_sys::fuzz_target;
use panda_breath_fuzz::dialect::mqtt::{Delivery, Mqtt};
use panda_breath_fuzz::dialect::{BrokerNews, Setting, Target};
use panda_breath_fuzz::script::Script;
use panda_breath_fuzz::words::{LONGEST_LINE, TOPICS, mqtt_options};

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let Some(kind) = script.byte() else { return };
    let options = mqtt_options(kind);
    let foreign = options.foreign_topics;
    let mut mqtt = Mqtt::new(&options);
    let prefixes = [
        options.prefix_for(panda_breath_fuzz::dialect::Dialect::Esphome) + "/",
        options.prefix_for(panda_breath_fuzz::dialect::Dialect::StockMqtt) + "/",
    ];
    while let Some(how) = script.byte() {
        // Half of the topics are known ones, else a fuzzer looks for them for ever.
        let topic = if how & 1 == 0 {
            let Some(topic) = script.pick(&TOPICS) else {
                return;
            };
            topic
        } else {
            std::str::from_utf8(script.text()).unwrap_or("panda-breath/status")
        };
        let delivery = Delivery {
            topic,
            payload: script.text(),
            retained: how & 2 != 0,
        };
        if let Ok(report) = mqtt.decode(delivery) {
            assert!(
                report.reading.is_none_or(|c| (-40.0..=150.0).contains(&c)),
                "R5"
            );
            assert!(
                report.target.is_none_or(|c| (-40.0..=255.0).contains(&c)),
                "{report:?}"
            );
            if delivery.retained {
                assert_eq!(
                    (report.reading, report.on, report.heating),
                    (None, None, None),
                    "R5"
                );
                assert!(!report.heard, "R5: history");
            }
            match report.broker {
                Some(BrokerNews::Refused(text) | BrokerNews::SeveralDevices(text)) => {
                    assert!(text.len() <= LONGEST_LINE, "R6: {} bytes", text.len());
                }
                Some(BrokerNews::RetainedCommand(_)) => assert!(delivery.retained),
                Some(BrokerNews::CommandCleared(_)) | None => {}
            }
        }
        let terms = mqtt.terms();
        assert!(
            terms.subscriptions.len() < 64,
            "R6: {}",
            terms.subscriptions.len()
        );
        assert!(
            terms.subscriptions.iter().all(|filter| filter.len() <= 300),
            "R6"
        );
        if let Some(will) = &terms.will {
            assert!(
                matches!(&*will.payload, "off" | r#"{"work_on":"OFF"}"#),
                "R8: {will}"
            );
        }
        let target = Target::whole(45);
        let settings = [Setting::Heat(target), Setting::Dry { target, hours: 6 }];
        for (setting, on) in settings.into_iter().flat_map(|s| [(s, true), (s, false)]) {
            for message in mqtt.encode(setting, on) {
                let inside = prefixes
                    .iter()
                    .any(|prefix| message.topic.starts_with(prefix));
                assert!(foreign || inside, "a command to somebody else: {message}");
                let most = message.payload.parse().unwrap_or(45.0_f64);
                assert!(most <= 45.5, "{message}");
            }
        }
        assert!(mqtt.encode(Setting::Off, true).len() <= 1, "R10");
        if script.0.len() > 4 && how & 4 != 0 {
            mqtt.forget_state();
        }
        let _ = (
            mqtt.take_changed(),
            mqtt.what_is_missing(),
            mqtt.question(),
            mqtt.dialect(),
        );
    }
});
