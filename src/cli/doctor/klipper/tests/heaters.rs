//! Who calls our heaters, and by which name.

use super::*;

const OWN: &str = "[heater_generic enclosure]\nheater_pin: panda_breath:pwm\n\
                   sensor_type: panda_breath\n";

/// The findings, each with its remedy.
fn all(text: &str) -> Vec<(String, String)> {
    let files = Files::new("heater");
    let path = files.write("printer.cfg", text);
    let (said, _) = check(&Config::read(&path).unwrap(), &path, None);
    let bad = said.list.iter().filter(|one| one.level != Level::Ok);
    bad.map(|one| {
        let text = format!("{} {}: {}", one.level.name(), one.check, one.text);
        (text, one.remedy.clone().unwrap())
    })
    .collect()
}

#[track_caller]
fn only(text: &str) -> (String, String) {
    let found = all(text);
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    found.into_iter().next().unwrap()
}

#[test]
fn a_heater_that_is_not_there_is_found_wherever_it_is_named() {
    for place in [
        "[gcode_macro M141]\ngcode:\n  SET_HEATER_TEMPERATURE HEATER=panda_breth TARGET=45\n",
        "[gcode_macro X]\ngcode:\n  set_heater_temperature target=45 heater='panda_breth'\n",
        "[gcode_macro X]\ngcode:\n  TEMPERATURE_WAIT SENSOR=\"heater_generic panda_breth\"\n",
        "[gcode_macro X]\ngcode:\n  {% set t = printer['heater_generic panda_breth'].target %}\n",
        "[gcode_macro X]\ngcode:\n  {% set heater = \"panda_breth\" %}\n  A HEATER={heater}\n",
        "[idle_timeout]\ngcode: SET_HEATER_TEMPERATURE HEATER=panda_breth\n",
        "[heater_fan f]\npin: PA1\nheater: extruder, panda_breth\n",
        "[controller_fan f]\nheater: panda_breth\n",
        "[verify_heater panda_breth]\n",
        "[temperature_sensor s]\nsensor_type: temperature_combined\n\
         sensor_list: heater_generic panda_breth, heater_bed\n",
    ] {
        let (text, remedy) = only(&format!("{GOOD}{place}"));
        let section = place.split(']').next().unwrap();
        assert!(
            text.starts_with(&format!("problem heater: {section}]")),
            "{text}"
        );
        assert!(text.contains("printer.cfg:4"), "{text}");
        assert!(text.ends_with("there is no heater 'panda_breth'"), "{text}");
        assert_eq!(remedy, "write 'panda_breath'");
    }
}

#[test]
fn a_heater_that_is_there_is_none_of_our_business_nor_is_anybody_elses() {
    for place in [
        "[gcode_macro X]\ngcode:\n  A HEATER=panda_breath\n  B HEATER=extruder\n",
        "[gcode_macro X]\ngcode:\n  A HEATER={params.HEATER}\n  B HEATER=\"{h}\"\n  C HEATER=\n",
        "[gcode_macro X]\ngcode:\n  A HEATER=panda_{n}\n  B MY_HEATER=panda_x\n",
        "[gcode_macro X]\ngcode:\n  {% if 'heater_generic chamber' in printer %}\n",
        "[gcode_macro X]\ngcode:\n  {% set h = 'x' %}{% set h = 'panda_b' %}\n  A HEATER={h}\n",
        "[heater_generic panda_two]\nheater_pin: PA1\n[verify_heater panda_two]\n",
        "[heater_fan f]\nheater: somebodys\n",
        "[heater_fan f]\nheater: panda_breath\n",
        "[gcode_macro X]\ngcode:\n  {% if \"heater_generic panda_breath_dryer\" in printer %}\n    \
         SET_HEATER_TEMPERATURE HEATER=panda_breath_dryer\n  {% endif %}\n",
        "[gcode_macro X]\ngcode:\n  {% if printer['heater_generic panda_x'] is defined %}\n    \
         SET_HEATER_TEMPERATURE HEATER=panda_x\n  {% endif %}\n",
        // A comment calls nobody.
        "[gcode_macro X]\ngcode:\n  G28 ; HEATER=panda_breth\n",
    ] {
        assert_eq!(all(&format!("{GOOD}{place}")), []);
    }
}

#[test]
fn the_dryers_heater_is_there_only_with_the_option() {
    let drying = include_str!("../../../../../examples/drying.cfg");
    let text = format!("{GOOD}{drying}");
    let found = all(&text);
    assert_eq!(found.len(), 2, "{found:?}");
    for (text, remedy) in &found {
        assert!(
            text.contains("there is no heater 'panda_breath_dryer'"),
            "{text}"
        );
        assert_eq!(remedy, "add 'dryer: True' to [panda_breath]");
    }
    let text = text.replace("[pause", "dryer: True\n[pause");
    assert_eq!(all(&text), []);
    // That of a named section has that name.
    let named = text.replace("[panda_breath]", "[panda_breath left]");
    let found = all(&named);
    assert_eq!(found.len(), 2, "{found:?}");
    let (_, remedy) = &found[0];
    assert_eq!(remedy, "write 'left_dryer'");
}

#[test]
fn the_dryer_is_called_after_its_device() {
    let call = |name: &str| {
        format!("[gcode_macro X]\ngcode: SET_HEATER_TEMPERATURE HEATER={name} TARGET=0\n")
    };
    let with = GOOD.replace("[pause", "dryer: True\n[pause");
    for (config, name, wanted) in [
        (
            GOOD.to_owned(),
            "panda_breath_drier",
            "add 'dryer: True' to [panda_breath], and write 'panda_breath_dryer'",
        ),
        (
            with.clone(),
            "panda_breath_drier",
            "write 'panda_breath_dryer'",
        ),
        (with.clone(), "panda_dryer", "write 'panda_breath_dryer'"),
        (
            with.clone() + OWN,
            "enclosure_dryer",
            "write 'panda_breath_dryer'",
        ),
        (
            GOOD.to_owned() + OWN,
            "enclosure_dryer",
            "add 'dryer: True' to [panda_breath], and write 'panda_breath_dryer'",
        ),
    ] {
        let (text, remedy) = only(&format!("{config}{}", call(name)));
        assert!(
            text.starts_with("problem heater: [gcode_macro X]"),
            "{text}"
        );
        assert_eq!(remedy, wanted);
    }
    assert_eq!(
        all(&format!("{with}{}", call("filament_dryer"))),
        [],
        "somebody else's"
    );
}

#[test]
fn the_heater_has_the_name_of_its_own_section() {
    let call = "[gcode_macro M141]\ngcode: SET_HEATER_TEMPERATURE HEATER=panda_breath\n";
    let (text, remedy) = only(&format!("{GOOD}{OWN}{call}"));
    assert!(text.contains("there is no heater 'panda_breath'"), "{text}");
    assert_eq!(remedy, "write 'enclosure'");
    let renamed = call.replace("panda_breath", "enclosure");
    assert_eq!(all(&format!("{GOOD}{OWN}{renamed}")), []);
    // What the community module's page says to write.
    let verify = "[verify_heater panda_breath]\n";
    let (text, _) = only(&format!("{GOOD}{OWN}{verify}"));
    assert!(
        text.starts_with("problem heater: [verify_heater panda_breath]"),
        "{text}"
    );
}

#[test]
fn a_macro_for_another_chamber_heater_may_be_meant_for_ours() {
    let call = "[gcode_macro M141]\ngcode: SET_HEATER_TEMPERATURE HEATER=chamber_heater\n";
    let (text, remedy) = only(&format!("{GOOD}{call}"));
    assert!(
        text.starts_with("warning heater: [gcode_macro M141]"),
        "{text}"
    );
    assert_eq!(remedy, "if the Panda Breath is meant, write 'panda_breath'");
    let theirs = "[heater_generic chamber_heater]\nheater_pin: PA1\n";
    assert_eq!(all(&format!("{GOOD}{theirs}{call}")), []);
}

#[test]
fn a_fan_that_names_the_heaters_section_shuts_klipper_down() {
    for (section, option) in [("heater_fan f", "heater"), ("controller_fan f", "heater")] {
        let text = format!("{GOOD}[{section}]\n{option}: heater_generic panda_breath\n");
        let (text, remedy) = only(&text);
        assert!(
            text.starts_with(&format!("problem heater: [{section}]")),
            "{text}"
        );
        assert!(
            text.contains(&format!("'{option}: heater_generic panda_breath'")),
            "{text}"
        );
        assert!(remedy.starts_with("write 'panda_breath'"), "{remedy}");
    }
    let call = "[gcode_macro X]\ngcode: A HEATER=\"heater_generic panda_breath\"\n";
    let (text, _) = only(&format!("{GOOD}{call}"));
    assert!(text.contains("not its name"), "{text}");
}

#[test]
fn homing_heaters_leaves_ours_out() {
    let homing = "[homing_heaters]\n";
    let (text, remedy) = only(&format!("{GOOD}{homing}steppers: stepper_z\n"));
    assert!(
        text.contains("has no 'heaters', so it means all, 'heater_generic panda_breath' too"),
        "{text}"
    );
    assert!(
        remedy.contains("'heaters: extruder, heater_bed'"),
        "{remedy}"
    );
    for name in [
        "panda_breath",
        "heater_generic panda_breath",
        "panda_breth",
        "panda_breath_dryer",
    ] {
        let (text, remedy) = only(&format!("{GOOD}{homing}heaters: extruder, {name}\n"));
        let whole = format!("has 'heaters: extruder, {name}', with '{name}'");
        assert!(
            text.starts_with("problem heater: [homing_heaters]") && text.ends_with(&whole),
            "{text}"
        );
        assert!(
            remedy.starts_with(&format!("leave '{name}' out")),
            "{remedy}"
        );
    }
    let others = "heaters: extruder, heater_bed, heater_generic chamber\n";
    assert_eq!(all(&format!("{GOOD}{homing}{others}")), []);
}

#[test]
fn each_heater_has_a_watch_of_its_own() {
    let text = GOOD.replace(
        "[pause",
        "dryer: True\nchamber_sensor: temperature_sensor x\n[pause",
    );
    let watch = "[verify_heater panda_breath_dryer]\nmax_error: 7200\nhysteresis: ";
    assert_eq!(all(&format!("{text}{watch}5\n")), []);
    let (text, _) = only(&format!("{text}{watch}4\n"));
    assert!(
        text.starts_with("warning verify: [verify_heater panda_breath_dryer]"),
        "{text}"
    );
}

#[test]
fn the_dryers_name_is_told() {
    let files = Files::new("dryer-told");
    let text = GOOD.replace("[pause", "dryer: True\ndrying_hours: 4\n[pause");
    let path = files.write("printer.cfg", &text);
    let (said, _) = check(&Config::read(&path).unwrap(), &path, None);
    let told = said.list.iter().find(|one| one.check == "dryer").unwrap();
    assert_eq!(told.level, Level::Ok);
    assert_eq!(
        told.text,
        "a target of 'panda_breath_dryer' dries filament for 4 h"
    );
}

#[test]
fn a_sensor_or_a_pin_of_a_device_that_is_not_there_is_found() {
    let two = "[panda_breath left]\nhost: 192.0.2.8\n";
    for (place, remedy_part) in [
        (
            "[temperature_fan f]\nsensor_type: panda_breth\n",
            "write 'panda_breath'",
        ),
        (
            "[heater_generic h]\nheater_pin: panda_breth:pwm\n",
            "write 'panda_breath'",
        ),
        (
            "[temperature_sensor s]\nsensor_type: panda_breath left\n",
            "write 'panda_breath'",
        ),
    ] {
        let text = format!("{GOOD}{place}");
        let (text, remedy) = only(&text);
        let (section, option) = place.trim().split_once("]\n").unwrap();
        assert!(
            text.starts_with(&format!("problem heater: {section}]")),
            "{text}"
        );
        assert!(
            text.contains(&format!("has '{option}', but there is no [panda")),
            "{text}"
        );
        assert!(remedy.starts_with(remedy_part), "{remedy}");
        assert!(
            remedy.ends_with("; Klipper does not start with it"),
            "{remedy}"
        );
    }
    let (_, remedy) = only(&format!(
        "{GOOD}{two}[temperature_fan f]\nsensor_type: panda_breath l\n"
    ));
    assert!(
        remedy.starts_with("write 'panda_breath' or 'panda_breath left'"),
        "{remedy}"
    );
    for good in [
        "panda_breath",
        "panda_breath left",
        "temperature_host",
        "Generic 3950",
    ] {
        let fan = format!("[temperature_fan f]\nsensor_type: {good}\n");
        assert_eq!(all(&format!("{GOOD}{two}{fan}")), []);
    }
}

#[test]
fn what_dried_in_the_community_module_is_the_dryers_heater_now() {
    let call = |command: &str| {
        let (text, remedy) = only(&format!("{GOOD}[gcode_macro X]\ngcode: {command}\n"));
        assert!(
            text.starts_with("problem community: [gcode_macro X]"),
            "{text}"
        );
        remedy
    };
    let dries = "with 'dryer: True', SET_HEATER_TEMPERATURE HEATER=NAME_dryer dries";
    let warms = "SET_HEATER_TEMPERATURE HEATER=NAME warms";
    let remedy = call("PANDA_BREATH_DRY_START TEMP=55");
    assert!(
        remedy.contains(dries) && !remedy.contains(warms),
        "{remedy}"
    );
    let remedy = call("PANDA_BREATH_AUTO ENABLE=0");
    assert!(
        remedy.contains(warms) && !remedy.contains(dries),
        "{remedy}"
    );
    let remedy = call("PANDA_BREATH_AUTO ENABLE=0\n  PANDA_BREATH_DRY_STOP");
    assert!(remedy.contains(warms) && remedy.contains(dries), "{remedy}");
}
