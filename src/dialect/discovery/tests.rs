use super::*;

fn climate(payload: &str) -> Result<Discovered, String> {
    read(payload.as_bytes(), Entity::Climate, Some("panda-breath"))
}

const FULL: &str = r#"{"mode_command_topic":"panda-breath/climate/chamber/mode/command",
"mode_state_topic":"panda-breath/climate/chamber/mode/state","modes":["off","heat"],
"temperature_command_topic":"panda-breath/climate/chamber/target_temperature/command",
"temperature_state_topic":"panda-breath/climate/chamber/target_temperature/state",
"min_temp":10,"max_temp":30,"temp_step":0.1,"temperature_unit":"C",
"action_topic":"panda-breath/climate/chamber/action/state","availability_topic":"panda-breath/status",
"device":{"identifiers":"aabbccddee01","connections":[["mac","aabbccddee01"]]}}"#;

const SHORT: &str = r#"{"mode_cmd_t":"panda-breath/climate/chamber/mode/command",
"mode_stat_t":"panda-breath/climate/chamber/mode/state","modes":["off","heat"],
"temp_cmd_t":"panda-breath/climate/chamber/target_temperature/command",
"temp_stat_t":"panda-breath/climate/chamber/target_temperature/state",
"min_temp":10,"max_temp":30,"temp_step":0.1,"temp_unit":"C",
"act_t":"panda-breath/climate/chamber/action/state","avty_t":"panda-breath/status",
"dev":{"ids":"aabbccddee01","cns":[["mac","aabbccddee01"]]}}"#;

#[test]
fn both_spellings_say_the_same() {
    let full = climate(FULL).unwrap();
    assert_eq!(full, climate(SHORT).unwrap());
    assert_eq!(full.max, Some(30.0));
    assert_eq!(full.is_two_point(), Some(false));
    assert_eq!(full.identity.unwrap().last4(), "ee01");
    assert_eq!(
        full.topics[&Role::ActionState],
        "panda-breath/climate/chamber/action/state"
    );
    assert_eq!(full.availability[0].says("online"), Some(true));
    assert_eq!(full.availability[0].says("offline"), Some(false));
    assert_eq!(full.availability[0].says("maybe"), None);
}

#[test]
fn the_tilde_stands_for_the_base_at_either_end() {
    let found = climate(
        r#"{"~":"panda-breath/c","mode_cmd_t":"~/mode","act_t":"panda-breath/~","stat_t":"~x",
        "avty":[{"topic":"~/there","payload_available":"yes"}],"name":"~"}"#,
    )
    .unwrap();
    assert_eq!(found.topics[&Role::ModeCommand], "panda-breath/c/mode");
    assert_eq!(
        found.topics[&Role::ActionState],
        "panda-breath/panda-breath/c"
    );
    assert_eq!(found.availability[0].topic, "panda-breath/c/there");
    assert_eq!(found.availability[0].says("yes"), Some(true));
}

#[test]
fn the_tilde_means_itself_in_what_is_no_topic() {
    let found = climate(
        r#"{"~":"panda-breath/c","avty":[{"topic":"~/there","pl_avail":"~","pl_not_avail":"x~"}]}"#,
    )
    .unwrap();
    assert_eq!(found.availability[0].says("~"), Some(true));
    assert_eq!(found.availability[0].says("x~"), Some(false));
    assert_eq!(found.availability[0].says("panda-breath/c"), None);
}

#[test]
fn identity_is_the_mac_among_the_connections_and_no_other_address() {
    let found = climate(
        r#"{"dev":{"cns":[["bluetooth","aabbccddee99"],["mac","aabbccddee01"],["x"],[]]}}"#,
    )
    .unwrap();
    assert_eq!(found.identity.unwrap().last4(), "ee01");
}

#[test]
fn two_targets_are_seen() {
    let found = climate(
        r#"{"temp_lo_cmd_t":"panda-breath/l","temp_lo_stat_t":"panda-breath/ls",
        "temp_hi_cmd_t":"panda-breath/h","temp_hi_stat_t":"panda-breath/hs"}"#,
    )
    .unwrap();
    assert_eq!(found.is_two_point(), Some(true));
    assert_eq!(found.topics[&Role::HighCommand], "panda-breath/h");
}

#[test]
fn what_is_not_understood_is_refused() {
    for (payload, word) in [
        (r#"{"mode_cmd_tpl":"{{ value }}"}"#, "mode_command_template"),
        (
            r#"{"mode_state_template":"{{ value_json.mode }}"}"#,
            "mode_state_template",
        ),
        (
            r#"{"temp_cmd_tpl":"{{ value*2 }}"}"#,
            "temperature_command_template",
        ),
        (
            r#"{"avty":[{"t":"a","val_tpl":"{{ value_json.x }}"}]}"#,
            "value_template",
        ),
        (r#"{"temp_unit":"F"}"#, "Fahrenheit"),
        (r#"{"modes":["auto","cool"]}"#, "'off' and 'heat'"),
        (r#"{"mode_cmd_t":"oven/mode"}"#, "mqtt_foreign_topics"),
        (
            r#"{"temp_cmd_t":"panda-breathless/t"}"#,
            "outside of 'panda-breath'",
        ),
        ("[1]", "not a JSON object"),
        ("\u{0}", "not a JSON object"),
    ] {
        let error = climate(payload).unwrap_err();
        assert!(error.contains(word), "{payload}: {error}");
    }
    let allowed = read(br#"{"mode_cmd_t":"oven/mode"}"#, Entity::Climate, None).unwrap();
    assert_eq!(allowed.topics[&Role::ModeCommand], "oven/mode");
    // Only commands are bound to the prefix.
    assert!(climate(r#"{"mode_stat_t":"oven/mode"}"#).is_ok());
}

#[test]
fn an_empty_message_forgets_everything() {
    assert_eq!(climate("").unwrap(), Discovered::default());
}

#[test]
fn r6_absurd_messages_are_bounded() {
    let list = vec![r#"{"t":"a"}"#; 1_000].join(",");
    let found = climate(&format!(r#"{{"avty":[{list}]}}"#)).unwrap();
    assert_eq!(found.availability.len(), MOST_AVAILABILITY);
    let long = format!(r#"{{"mode_stat_t":"{}"}}"#, "x".repeat(10_000));
    assert!(climate(&long).unwrap().topics.is_empty());
    for wildcard in ["a/#", "a/+/b", ""] {
        let found = climate(&format!(r#"{{"mode_stat_t":"{wildcard}"}}"#)).unwrap();
        assert!(found.topics.is_empty(), "{wildcard}");
    }
    for payload in [
        r#"{"mode_cmd_t":1,"avty":{},"dev":[],"modes":"heat","max_temp":"x","~":5}"#,
        r#"{"avty":[1,null,{"t":[]}],"dev":{"ids":[1,"x"],"cns":[1,[],["mac"],["mac",2]]}}"#,
    ] {
        let found = climate(payload).unwrap();
        assert!(found.topics.is_empty() && found.identity.is_none());
    }
}

#[test]
fn a_sensor_has_one_topic() {
    let payload = br#"{"stat_t":"panda-breath/sensor/x/state","unit_of_meas":"C"}"#;
    let found = read(payload, Entity::Sensor, Some("panda-breath")).unwrap();
    assert_eq!(
        found.topics[&Role::Temperature],
        "panda-breath/sensor/x/state"
    );
}

#[test]
fn r6_a_long_base_is_not_repeated_and_a_long_name_is_not_told() {
    let long = "x".repeat(30_000);
    let many = vec![r#"{"t":"~"}"#; 3_000].join(",");
    let raw = format!(r#"{{"~":"{long}","stat_t":"~/s","avty":[{many}]}}"#);
    let Ok(Value::Object(raw)) = serde_json::from_str(&raw) else {
        panic!("JSON");
    };
    let expanded = Value::Object(expand(&raw)).to_string();
    assert!(expanded.len() < 100_000, "{} bytes", expanded.len());
    // A topic as long as it may be is one.
    let base = "b".repeat(LONGEST_TOPIC - 2);
    assert_eq!(with_base("~/s", &base), "");
    assert_eq!(with_base("~s", &base).len(), LONGEST_TOPIC - 1);

    let error = climate(&format!(r#"{{"{long}_template":"x"}}"#)).unwrap_err();
    assert!(error.len() < 200, "{} bytes", error.len());
    assert!(!climate("{\"\\n_template\":1}").unwrap_err().contains('\n'));
}

#[test]
fn a_climate_entity_must_know_both_off_and_heat() {
    let with = |modes: &str| {
        climate(&format!(
            r#"{{"mode_cmd_t":"panda-breath/m","mode_stat_t":"panda-breath/s","modes":{modes}}}"#
        ))
    };
    assert!(with(r#"["off","heat","cool"]"#).is_ok());
    for modes in [r#"["off"]"#, r#"["heat"]"#, "[]"] {
        assert!(with(modes).unwrap_err().contains("modes"), "{modes}");
    }
}
