use super::*;

/// Everything in it that names somebody is `geheim`, an address or a MAC address.
const SECRETS: [&str; 6] = ["geheim", "192.0.2", "aabbcc", "AABBCC", "shop", "01S00"];

fn named(dialect: Option<Dialect>) -> Deliveries {
    Deliveries::new(&Options {
        dialect,
        prefix: Some("shop/geheim".to_owned()),
        ..Options::default()
    })
}

#[track_caller]
fn clean(deliveries: &mut Deliveries, topic: &str, payload: &str) -> Option<Clean> {
    let clean = deliveries.clean(&Arrival {
        topic: topic.to_owned(),
        payload: payload.to_owned().into(),
        retained: false,
    });
    let all = format!("{clean:?}");
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    clean
}

#[test]
fn r11_topics_are_those_of_a_device_without_names_and_values_are_known_ones() {
    let mut node = named(Some(Dialect::Esphome));
    for (topic, payload, usual, kept) in [
        ("status", "online", "status", "online"),
        ("status", "geheim", "status", "..."),
        (
            "sensor/chamber_temperature/state",
            "24.50",
            "sensor/chamber_temperature/state",
            "24.50",
        ),
        (
            "sensor/chamber_temperature/state",
            "nan",
            "sensor/chamber_temperature/state",
            "nan",
        ),
        (
            "sensor/chamber_temperature/state",
            "geheim",
            "sensor/chamber_temperature/state",
            "...",
        ),
        (
            "climate/chamber/mode/state",
            "heat",
            "climate/chamber/mode/state",
            "heat",
        ),
        (
            "climate/chamber/mode/command",
            "geheim",
            "climate/chamber/mode/command",
            "...",
        ),
        (
            "climate/chamber/action/state",
            "heating",
            "climate/chamber/action/state",
            "heating",
        ),
        (
            "climate/chamber/target_temperature_low/state",
            "44.5",
            "climate/chamber/target_temperature_low/state",
            "44.5",
        ),
        (
            "climate/chamber/target_temperature/command",
            "",
            "climate/chamber/target_temperature/command",
            "",
        ),
    ] {
        let clean = clean(&mut node, &format!("shop/geheim/{topic}"), payload).unwrap();
        assert_eq!(clean.topic, format!("panda-breath/{usual}"));
        assert_eq!(clean.payload, kept, "{topic}");
    }
    assert_eq!(clean(&mut node, "shop/geheim/other", "24"), None);
    assert_eq!(clean(&mut node, "panda-breath/status", "online"), None);
}

#[test]
fn r11_a_card_and_a_discovery_message_name_nobody_and_still_tell_units_apart() {
    let mut node = named(Some(Dialect::Esphome));
    let card = |mac: &str| {
        format!(
            r#"{{"ip":"192.0.2.7","name":"shop/geheim","friendly_name":"geheim","mac":"{mac}",
            "version":"2026.6.5","board":"geheim","network":"geheim"}}"#
        )
    };
    let topic = "esphome/discover/shop/geheim";
    for (mac, unit) in [
        ("aabbccddee01", "000000000001"),
        ("aabbccddee02", "000000000002"),
        ("aabbccddee01", "000000000001"),
    ] {
        let clean = clean(&mut node, topic, &card(mac)).unwrap();
        assert_eq!(clean.topic, "esphome/discover/panda-breath");
        assert_eq!(
            clean.payload,
            json!({"mac": unit, "name": "panda-breath", "version": "2026.6.5"})
        );
    }
    let other = card("aabbccddee03").replace("shop/geheim", "geheim");
    let clean_card = clean(&mut node, topic, &other).unwrap();
    assert_eq!(clean_card.payload, json!({"version": "2026.6.5"}));
    let config = r#"{"mode_cmd_t":"shop/geheim/x","mode_stat_t":"shop/geheim/y","max_temp":60,
        "avty":[{"t":"shop/a"},{"t":"shop/b","pl_avail":"geheim","pl_not_avail":"gone geheim"}],
        "avty_mode":"all","dev":{"ids":"aabbccddee01","name":"geheim"}}"#;
    let topic = "homeassistant/climate/shop/geheim/chamber/config";
    let clean_config = clean(&mut node, topic, config).unwrap();
    assert_eq!(
        clean_config.payload["mode_command_topic"],
        "panda-breath/climate/chamber/mode/command"
    );
    assert_eq!(
        clean_config.payload["device"]["identifiers"],
        "000000000001"
    );
    // From now on its topics are there, and say the same.
    let mode = clean(&mut node, "shop/geheim/y", "heat").unwrap();
    assert_eq!(mode.topic, "panda-breath/climate/chamber/mode/state");
    let second = clean(&mut node, "shop/b", "gone geheim").unwrap();
    assert_eq!(
        (second.topic, second.payload),
        ("panda-breath/status/1".to_owned(), "offline".into())
    );
}

#[test]
fn r11_of_a_stock_state_only_what_is_harmless_is_kept() {
    let mut stock = named(Some(Dialect::StockMqtt));
    let state = r#"{"chamber_temp":30,"work_on":"ON","mode":"geheim","target_temp":"geheim",
        "drying_running":"OFF","printer_sn":"01S00A","printer_ip":"192.0.2.9","geheim":"geheim"}"#;
    let first = clean(&mut stock, "shop/geheim/AABBCCDDEE01/state", state).unwrap();
    assert_eq!(first.topic, "panda_breath/000000000001/state");
    assert_eq!(
        first.payload,
        json!({"chamber_temp": 30, "work_on": "ON", "mode": "...", "target_temp": "...",
            "drying_running": "OFF"})
    );
    assert_eq!(first.removed, ["printer", "1 unknown"]);
    let second = clean(
        &mut stock,
        "shop/geheim/AABBCCDDEE02/availability",
        "online",
    )
    .unwrap();
    assert_eq!(second.topic, "panda_breath/000000000002/availability");
    for (payload, kept) in [
        ("geheim", json!("...")),
        ("[\"geheim\"]", json!([])),
        ("", json!("")),
    ] {
        let command = clean(&mut stock, "shop/geheim/AABBCCDDEE01/command", payload);
        assert_eq!(command.unwrap().payload, kept);
    }
    assert_eq!(
        clean(&mut stock, "shop/geheim/geheim/state", state),
        None,
        "no device has such an id"
    );
}

#[test]
fn whoever_reads_a_recording_listens_to_the_topics_in_it() {
    for dialect in [None, Some(Dialect::Esphome), Some(Dialect::StockMqtt)] {
        for device_id in [None, Some("AABBCCDDEE01".to_owned())] {
            let options = Options {
                dialect,
                device_id,
                prefix: Some("shop".to_owned()),
                ..Options::default()
            };
            let mut deliveries = Deliveries::new(&options);
            let mut reader = Mqtt::new(&Behind::of(&options).options());
            let node = options.device_id.as_deref().unwrap_or("shop");
            let card = format!(r#"{{"name":"{node}","mac":"aabbccddee01","version":"2026.6.5"}}"#);
            let state = r#"{"chamber_temp":30,"work_on":"OFF"}"#;
            let messages = [
                (format!("esphome/discover/{node}"), card.as_str()),
                ("shop/climate/chamber/mode/state".to_owned(), "heat"),
                ("shop/AABBCCDDEE01/state".to_owned(), state),
            ];
            let stock = dialect == Some(Dialect::StockMqtt);
            let node = dialect == Some(Dialect::Esphome);
            for (n, (topic, payload)) in messages.iter().enumerate() {
                let is_its = if n == 2 { !node } else { !stock };
                if dialect.is_none() && n > 0 {
                    break; // it has been found out by then
                }
                let Some(clean) = clean(&mut deliveries, topic, payload) else {
                    assert!(!is_its, "{topic}");
                    continue;
                };
                let text = clean.payload.as_str().map(str::to_owned);
                let text = text.unwrap_or_else(|| clean.payload.to_string());
                let report = reader.decode(Delivery {
                    topic: &clean.topic,
                    payload: text.as_bytes(),
                    retained: false,
                });
                assert!(report.unwrap().is_from_device(), "{topic}: {clean:?}");
            }
        }
    }
}
