//! Hand-written frames, per firmware version.

use super::*;
use crate::dialect::Target;

fn decode(text: &str) -> Report {
    Stock::default().decode(text.as_bytes()).expect("readable")
}

fn snapshot_1_0_3() -> &'static str {
    "{\n\t\"wifi\":\t{\n\t\t\"ssid\":\t\"Net\",\n\t\t\"password\":\t\"hunter2\",\n\t\t\"scan\":\t0\n\t},
     \"sta\":{\"hostname\":\"PandaBreath\",\"ip\":\"192.0.2.10\",\"state\":3,\"auth_err_reason\":0},
     \"ap\":{\"ssid\":\"Panda_Breath_AABBCCDDEEFF\",\"password\":\"987654321\",\"ip\":\"192.168.254.1\",\"on\":0},
     \"settings\":{\"fw_version\":\"V1.0.3\",\"language\":\"en\",\"printer_type\":2,\"work_on\":1,\"work_mode\":2,
      \"set_temp\":50,\"filtertemp\":30,\"hotbedtemp\":80,\"custom_temp\":60,\"custom_timer\":12,\"isrunning\":0,
      \"remaining_seconds\":43200},
     \"printer\":{\"name\":\"voron\",\"host\":\"192.0.2.20\",\"port\":80,\"state\":3,\"scan\":0}}"
}

#[test]
fn snapshot_of_1_0_3_is_read_whole() {
    let mut stock = Stock::default();
    let report = stock.decode(snapshot_1_0_3().as_bytes()).unwrap();
    assert_eq!(stock.generation(), Generation::One);
    assert_eq!(
        report,
        Report {
            firmware: Some(Firmware::new("V1.0.3")),
            identity: Some(Identity::of("Panda_Breath_AABBCCDDEEFF")),
            reading: None,
            on: Some(true),
            mode: Some(Mode::On),
            target: Some(50.0),
            drying: Some(false),
            remaining_seconds: Some(43200),
            settings: Settings {
                filter_temp: Some(30),
                bed_temp: Some(80),
                custom_temp: Some(60),
                custom_hours: Some(12),
                printer_type: Some(2),
                language: Some(Language::English),
            },
            fault: None,
            ignored: 0,
            ..Report::default()
        }
    );
}

#[test]
fn snapshot_of_1_0_1_has_no_printer_type_and_the_same_modes() {
    for version in ["V1.0.1", "V1.0.2"] {
        let mut stock = Stock::default();
        let text = format!(
            r#"{{"printer":{{"name":"","sn":"","access_code":"","ip":"","state":0,"scan":0}},
            "settings":{{"fw_version":"{version}","language":"zh","work_on":1,"work_mode":3,"set_temp":60,
            "filtertemp":30,"hotbedtemp":80,"custom_temp":60,"custom_timer":12,"isrunning":1,"remaining_seconds":10}}}}"#
        );
        let report = stock.decode(text.as_bytes()).unwrap();
        assert_eq!(report.mode, Some(Mode::Drying));
        assert_eq!(report.drying, Some(true));
        assert_eq!(report.settings.printer_type, None);
        assert_eq!(report.settings.language, Some(Language::Chinese));
        assert_eq!(
            stock.encode(Setting::Heat(Target::whole(45))),
            r#"{"settings":{"work_mode":2,"set_temp":45,"work_on":true}}"#
        );
    }
}

#[test]
fn version_0_0_0_swaps_modes_and_calls_the_target_temp() {
    let snapshot = |mode: u8| {
        format!(
            r#"{{"settings":{{"fw_version":"V1.0.0","language":"en","work_on":1,"work_mode":{mode},
            "temp":60,"hotbedtemp":100,"custom_temp":60,"custom_timer":12}}}}"#
        )
    };
    for (number, mode) in [(1, Mode::Drying), (2, Mode::On), (3, Mode::Auto)] {
        let mut stock = Stock::default();
        let report = stock.decode(snapshot(number).as_bytes()).unwrap();
        assert_eq!(stock.generation(), Generation::Pre);
        assert_eq!((report.mode, report.target), (Some(mode), Some(60.0)));
        // A later push has no version in it: the connection remembers.
        let push = stock
            .decode(br#"{"settings":{"work_mode":3,"temp":41}}"#)
            .unwrap();
        assert_eq!((push.mode, push.target), (Some(Mode::Auto), Some(41.0)));
        assert_eq!(
            stock.encode(Setting::Heat(Target::whole(45))),
            r#"{"settings":{"work_mode":2,"temp":45,"work_on":true}}"#
        );
    }
}

#[test]
fn a_target_called_temp_alone_means_0_0_0_whatever_the_version_says() {
    let mut stock = Stock::default();
    stock
        .decode(br#"{"settings":{"fw_version":"V0.9","work_on":0,"work_mode":3,"temp":60}}"#)
        .unwrap();
    assert_eq!(stock.generation(), Generation::Pre);
}

#[test]
fn off_is_a_json_boolean_in_every_generation() {
    for generation in [Generation::Pre, Generation::One] {
        let stock = Stock { generation };
        assert_eq!(
            stock.encode(Setting::Off),
            r#"{"settings":{"work_on":false}}"#
        );
    }
}

#[test]
fn the_best_temperature_wins() {
    let all = r#"{"settings":{"warehouse_temper":41,"chamber_temp":42,"cal_warehouse_temp":43.5}}"#;
    assert_eq!(decode(all).reading, Some(43.5));
    let two = r#"{"settings":{"warehouse_temper":41,"chamber_temp":42}}"#;
    assert_eq!(decode(two).reading, Some(42.0));
    let one = r#"{"settings":{"warehouse_temper":41}}"#;
    assert_eq!(decode(one).reading, Some(41.0));
    let broken = r#"{"settings":{"cal_warehouse_temp":null,"warehouse_temper":41}}"#;
    assert_eq!(
        (decode(broken).reading, decode(broken).ignored),
        (Some(41.0), 1)
    );
}

#[test]
fn r5_a_number_that_is_no_temperature_is_no_reading() {
    for bad in [
        "-300",
        "500",
        "-40.1",
        "150.1",
        "1e300",
        "null",
        "true",
        "false",
        "\"41\"",
        "\"NaN\"",
        "[[30]]",
        "[]",
        "{}",
        "{\"a\":1}",
    ] {
        let report = decode(&format!(
            r#"{{"settings":{{"warehouse_temper":{bad},"work_on":1}}}}"#
        ));
        assert_eq!(report.reading, None, "{bad}");
        assert_eq!(report.ignored, 1, "{bad}");
        assert_eq!(
            report.on,
            Some(true),
            "the rest of the message is used: {bad}"
        );
    }
    for (good, c) in [("-40", -40.0), ("150", 150.0), ("0", 0.0), ("21.5", 21.5)] {
        assert_eq!(
            decode(&format!(r#"{{"settings":{{"warehouse_temper":{good}}}}}"#)).reading,
            Some(c)
        );
    }
}

#[test]
fn messages_that_are_not_json_objects_are_errors() {
    let nested = "[".repeat(100_000);
    let integer = "9".repeat(400);
    for (bad, object) in [
        ("", false),
        ("garbage", false),
        ("{", false),
        (nested.as_str(), false),
        ("NaN", false),
        (r#"{"settings":{"warehouse_temper":NaN}}"#, false),
        (r#"{"settings":{"warehouse_temper":Infinity}}"#, false),
        (r#"{"settings":{"warehouse_temper":1e400}}"#, false),
        (r#"{"settings":{}} trailing"#, false),
        (integer.as_str(), false),
        ("null", true),
        ("42", true),
        ("[1,2]", true),
        ("\"text\"", true),
    ] {
        let error = Stock::default().decode(bad.as_bytes()).unwrap_err();
        assert_eq!(
            error == DecodeError::NotAnObject,
            object,
            "{bad:.40}: {error}"
        );
    }
    assert!(
        Stock::default()
            .decode(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}'])
            .is_err()
    );
    let large = " ".repeat(MAX_MESSAGE + 1);
    assert_eq!(
        Stock::default().decode(large.as_bytes()),
        Err(DecodeError::TooLarge(MAX_MESSAGE + 1))
    );
    let mut just = r#"{"settings":{"work_on":1}}"#.to_owned();
    just.push_str(&" ".repeat(65_536 - just.len()));
    assert_eq!(decode(&just).on, Some(true), "64 KiB are fine");
}

#[test]
fn decode_errors_say_where() {
    let error = Stock::default()
        .decode(b"{\"settings\":\n{\"a\":?}}")
        .unwrap_err();
    assert_eq!(error.to_string(), "message is not JSON (at byte 19)");
}

#[test]
fn odd_shapes_of_known_roots_are_counted_and_left_out() {
    for bad in [
        r#"{"settings":null}"#,
        r#"{"settings":[1]}"#,
        r#"{"settings":7}"#,
    ] {
        assert_eq!(
            decode(bad),
            Report {
                ignored: 1,
                ..Report::default()
            },
            "{bad}"
        );
    }
    for odd in [
        r#"{"ap":null}"#,
        r#"{"ap":[1]}"#,
        r#"{"ap":{"ssid":7}}"#,
        r#"{"ap":{"ssid":""}}"#,
        "{}",
    ] {
        assert_eq!(decode(odd), Report::default(), "{odd}");
    }
}

#[test]
fn switches_read_as_numbers_and_booleans_and_nothing_else() {
    for (text, on) in [
        ("0", Some(false)),
        ("1", Some(true)),
        ("false", Some(false)),
        ("true", Some(true)),
    ] {
        assert_eq!(
            decode(&format!(r#"{{"settings":{{"work_on":{text}}}}}"#)).on,
            on
        );
    }
    for text in ["2", "-1", "0.5", "\"1\"", "null", "[1]"] {
        assert_eq!(
            decode(&format!(r#"{{"settings":{{"work_on":{text}}}}}"#)).on,
            None,
            "{text}"
        );
    }
}

#[test]
fn every_fault_has_its_name() {
    for (field, value, fault) in [
        ("ptc_sensor_status", 1, Some(Fault::ElementSensorShort)),
        ("ptc_sensor_status", 2, Some(Fault::ElementSensorOpen)),
        ("ptc_sensor_status", 0, None),
        (
            "warehouse_sensor_status",
            1,
            Some(Fault::ChamberSensorShort),
        ),
        ("warehouse_sensor_status", 2, Some(Fault::ChamberSensorOpen)),
        ("warehouse_sensor_status", 0, None),
        ("ptc_heater_status", 1, Some(Fault::Heater)),
        ("ptc_heater_status", 0, Some(Fault::Heater)), // the page shows its dialog whatever the value
    ] {
        let report = decode(&format!(r#"{{"settings":{{"{field}":{value}}}}}"#));
        assert_eq!(report.fault, fault, "{field}:{value}");
    }
}

#[test]
fn r11_nothing_of_the_other_roots_is_kept() {
    let report = format!("{:?}", decode(snapshot_1_0_3()));
    for secret in [
        "hunter2",
        "987654321",
        "AABBCCDDEEFF",
        "voron",
        "192.0.2",
        "Net",
    ] {
        assert!(!report.contains(secret), "{secret} in {report}");
    }
}

#[test]
fn unknown_fields_roots_and_modes_are_no_concern() {
    let report =
        decode(r#"{"ws_theme":{"preview":1},"settings":{"new_field":[1,{"a":2}],"work_mode":9}}"#);
    assert_eq!(report, Report::default());
}

#[test]
fn a_version_without_its_target_says_what_it_is() {
    for (rest, generation) in [
        (r#""work_on":0"#, Generation::One),
        (r#""temp":60,"set_temp":50"#, Generation::One),
        (r#""temp":60"#, Generation::Pre),
    ] {
        let mut stock = Stock::default();
        let text = format!(r#"{{"settings":{{"fw_version":"V1.0.3",{rest}}}}}"#);
        stock.decode(text.as_bytes()).unwrap();
        assert_eq!(stock.generation(), generation, "{rest}");
    }
}

#[test]
fn drying_is_a_programme_of_our_own_in_every_generation() {
    let dry = Setting::Dry {
        target: Target::whole(55),
        hours: 6,
    };
    for (generation, text) in [
        (
            Generation::Pre,
            r#"{"settings":{"work_mode":1,"filament_temp":55,"filament_timer":6,"isrunning":1,"work_on":true}}"#,
        ),
        (
            Generation::One,
            r#"{"settings":{"work_mode":3,"filament_temp":55,"filament_timer":6,"filament_drying_mode":3,"isrunning":1,"work_on":true}}"#,
        ),
    ] {
        assert_eq!(Stock { generation }.encode(dry), text);
    }
}
