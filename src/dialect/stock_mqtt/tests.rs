use super::*;
use crate::dialect::Target;

const ID: &str = "AABBCCDDEE01";
const STATE: &str = r#"{"chamber_temp":31,"work_on":"ON","mode":"power on",
"filament_drying_mode":"pla","target_temp":45,"filter_temp":30,"heater_temp":80,"custom_temp":60,
"custom_timer":12,"drying_running":"OFF","drying_remaining_min":720,"printer_sn":"","printer_bind":
"unbind","printer_ip":"","printer_name":""}"#;

fn say(
    stock: &mut StockMqtt,
    id: &str,
    leaf: &str,
    payload: &str,
    retained: bool,
) -> Result<Report, DecodeError> {
    stock.decode(Delivery {
        topic: &format!("panda_breath/{id}/{leaf}"),
        payload: payload.as_bytes(),
        retained,
    })
}

fn found() -> StockMqtt {
    let mut stock = StockMqtt::new(&Options::default());
    say(&mut stock, ID, "state", STATE, false).unwrap();
    stock
}

#[test]
fn a_state_is_read_whole() {
    let mut stock = found();
    let report = say(&mut stock, ID, "state", STATE, false).unwrap();
    assert_eq!(
        report,
        Report {
            identity: Identity::of_mac(ID),
            reading: Some(31.0),
            on: Some(true),
            mode: Some(Mode::On),
            target: Some(45.0),
            target_step: Some(1.0),
            drying: Some(false),
            remaining_seconds: Some(43_200),
            settings: Settings {
                filter_temp: Some(30),
                bed_temp: Some(80),
                custom_temp: Some(60),
                custom_hours: Some(12),
                ..Settings::default()
            },
            ..Report::default()
        }
    );
    let off = say(&mut stock, ID, "state", r#"{"work_on":"OFF"}"#, false).unwrap();
    assert_eq!((off.on, off.heating), (Some(false), Some(false)));
}

#[test]
fn fields_of_the_wrong_type_are_counted_and_the_rest_is_used() {
    let mut stock = found();
    let state = r#"{"chamber_temp":"31","work_on":true,"mode":"turbo","target_temp":-1,
        "drying_running":1,"drying_remaining_min":99999999999,"custom_timer":5}"#;
    let report = say(&mut stock, ID, "state", state, false).unwrap();
    assert_eq!(report.ignored, 6);
    assert_eq!(report.settings.custom_hours, Some(5));
    assert_eq!(
        (report.on, report.reading, report.target),
        (None, None, None)
    );
    for wrong in ["", "x", "[]", "null", "7"] {
        assert!(
            say(&mut stock, ID, "state", wrong, false).is_err(),
            "{wrong}"
        );
    }
    for c in ["-300", "500", "1e400"] {
        let state = format!(r#"{{"chamber_temp":{c}}}"#);
        let reading = say(&mut stock, ID, "state", &state, false).map(|report| report.reading);
        assert!(matches!(reading, Ok(None) | Err(_)), "R5: {c}");
    }
}

#[test]
fn commands_are_one_message_and_nothing_is_said_before_the_id_is_known() {
    let nobody = StockMqtt::new(&Options::default());
    assert!(nobody.encode(Setting::Off).is_empty());
    assert!(nobody.terms().will.is_none());
    assert!(nobody.what_is_missing().unwrap().contains("panda_breath"));
    let mut stock = found();
    assert!(stock.take_changed(), "the will can be said now");
    let said = |setting| stock.encode(setting)[0].to_string();
    assert_eq!(
        said(Setting::Off),
        r#"panda_breath/AABBCCDDEE01/command {"work_on":"OFF"}"#
    );
    assert_eq!(
        said(Setting::Heat(Target::whole(45))),
        r#"panda_breath/AABBCCDDEE01/command {"mode":"power on","target_temp":45,"work_on":"ON"}"#
    );
    assert_eq!(stock.terms().will.unwrap().to_string(), said(Setting::Off));
}

#[test]
fn r5_what_the_broker_has_kept_finds_no_device() {
    let mut stock = StockMqtt::new(&Options::default());
    let kept = say(&mut stock, ID, "state", STATE, true).unwrap();
    assert!(!kept.is_from_device());
    let online = say(&mut stock, ID, "availability", "online", true).unwrap();
    assert_eq!(online.present, Some(true));
    assert!(stock.encode(Setting::Off).is_empty());
}

#[test]
fn identity_two_devices_are_an_error_until_one_is_chosen() {
    let mut stock = found();
    let other = say(&mut stock, "AABBCCDDEE02", "state", STATE, false).unwrap();
    let names = "AABBCCDDEE01, AABBCCDDEE02";
    assert_eq!(other.broker, Some(BrokerNews::SeveralDevices(names.into())));
    assert_eq!(other.reading.filter(|_| other.broker.is_none()), None);
    // One of them leaves.
    say(&mut stock, "AABBCCDDEE02", "availability", "offline", false).unwrap();
    let ours = say(&mut stock, ID, "state", STATE, false).unwrap();
    assert_eq!(ours.broker, None);

    let options = Options {
        device_id: Some("aabbccddee02".into()),
        ..Options::default()
    };
    let mut chosen = StockMqtt::new(&options);
    let ours = say(&mut chosen, "AABBCCDDEE02", "state", STATE, false).unwrap();
    assert_eq!(ours.reading, Some(31.0));
    let other = say(&mut chosen, ID, "state", STATE, false).unwrap();
    assert_eq!(other, Report::default());
    assert!(
        chosen
            .terms()
            .subscriptions
            .iter()
            .all(|filter| !filter.contains('+'))
    );
}

#[test]
fn other_topics_mean_nothing() {
    let mut stock = found();
    for topic in [
        "panda_breath/x/state",
        "panda_breath/AABBCCDDEE01",
        "panda_breath/AABBCCDDEE01/firmware",
        "panda_breathless/AABBCCDDEE01/state",
    ] {
        let delivery = Delivery {
            topic,
            payload: STATE.as_bytes(),
            retained: false,
        };
        assert_eq!(
            stock.decode(delivery),
            Err(DecodeError::Meaningless),
            "{topic}"
        );
    }
}

#[test]
fn a_device_of_an_earlier_connection_is_not_here_any_more() {
    let mut stock = found();
    let several = |stock: &mut StockMqtt, id| {
        let report = say(stock, id, "state", STATE, false).unwrap();
        matches!(report.broker, Some(BrokerNews::SeveralDevices(_)))
    };
    assert!(several(&mut stock, "AABBCCDDEE02"));
    assert!(several(&mut stock, ID));
    stock.forget_state();
    assert!(!several(&mut stock, ID));
}

#[test]
fn modes_are_what_the_firmware_calls_them() {
    let mut stock = found();
    for (text, mode) in [
        ("auto mode", Some(Mode::Auto)),
        ("power on", Some(Mode::On)),
        ("filament drying", Some(Mode::Drying)),
        ("defrosting", None),
    ] {
        let state = format!(r#"{{"mode":"{text}"}}"#);
        let report = say(&mut stock, ID, "state", &state, false).unwrap();
        assert_eq!(report.mode, mode, "{text}");
    }
}

#[test]
fn r6_of_many_devices_eight_are_named() {
    let mut stock = found();
    let mut told = 0;
    for n in 2..20 {
        let id = format!("AABBCCDDEE{n:02}");
        let report = say(&mut stock, &id, "state", STATE, false).unwrap();
        let Some(BrokerNews::SeveralDevices(names)) = report.broker else {
            panic!("{id}");
        };
        told = names.split(", ").count();
    }
    assert_eq!(told, 8);
}

#[test]
fn drying_is_told_before_it_is_begun() {
    let dry = Setting::Dry {
        target: Target::whole(55),
        hours: 6,
    };
    let messages = found().encode(dry);
    let payloads: Vec<&str> = messages.iter().map(|one| one.payload.as_str()).collect();
    assert_eq!(
        payloads,
        [
            r#"{"custom_temp":55,"custom_timer":6}"#,
            r#"{"mode":"filament drying","filament_drying_mode":"custom","work_on":"ON","drying_running":"ON"}"#
        ]
    );
}
