use serde_json::{Value, json};

use super::*;

/// A node that is on, says so every 5 s, and leaves; whoever recorded it asked it nothing.
fn node() -> String {
    let header = json!({"panda_breath_recording": 1, "program": "0", "started": "then",
        "mqtt": {"firmware": "esphome", "chosen": false}});
    let mut lines = vec![header, json!({"ms": 10, "event": "opened"})];
    let mut deliver = |ms: u64, topic: &str, payload: Value, retained: bool| {
        lines.push(
            json!({"ms": ms, "event": "delivered", "topic": topic, "payload": payload,
            "retained": retained}),
        );
    };
    let card = json!({"name": "panda-breath", "mac": "000000000001", "version": "2026.6.5"});
    deliver(20, "esphome/discover/panda-breath", card, true);
    deliver(20, "panda-breath/status", "online".into(), true);
    for ms in [5_200, 10_700, 15_200] {
        let climate = "panda-breath/climate/chamber";
        deliver(ms, &format!("{climate}/mode/state"), "heat".into(), false);
        let target = format!("{climate}/target_temperature/state");
        deliver(ms, &target, "45.0".into(), false);
        deliver(ms, &format!("{climate}/action/state"), "idle".into(), false);
        let chamber = "panda-breath/sensor/chamber_temperature/state";
        deliver(ms, chamber, "46.0".into(), false);
    }
    deliver(20_000, "panda-breath/status", "offline".into(), false);
    lines.push(json!({"ms": 30_000, "event": "ended"}));
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    lines.join("\n")
}

fn conclude(recording: &str, wanted: Wanted) -> Vec<At> {
    let recording = Recording::read(recording.as_bytes()).unwrap();
    let mut observer = Observer::new(wanted, recording.header.options());
    let lines = recording.map(Result::unwrap);
    lines
        .flat_map(|line| observer.play(&line).collect::<Vec<_>>())
        .collect()
}

fn said(recording: &str, wanted: Wanted) -> Vec<String> {
    let concluded = conclude(recording, wanted);
    let said = concluded.iter().filter_map(|(ms, one)| match one {
        Conclusion::Says(text) => Some(format!("{} {text}", clock(*ms))),
        Conclusion::WouldSend(text) => Some(format!("{} > {text}", clock(*ms))),
        Conclusion::State(_) => None,
    });
    said.collect()
}

#[test]
fn a_node_that_is_heard_answers_the_questions_that_were_not_recorded() {
    let recording = node();
    assert_eq!(
        said(&recording, Wanted::WhatItDoes),
        [
            // Its second word would have come at 10.7 s.
            "0:00:06.2 connected to panda-breath, esphome, firmware 2026.6.5, device 0001",
            "0:00:20.0 connection to panda-breath lost: the broker says that the device is \
             offline; waiting for it",
        ]
    );
    let states = conclude(&recording, Wanted::WhatItDoes);
    let known = states.iter().any(|(_, one)| {
        matches!(one, Conclusion::State(state) if state.link == "connected"
            && state.device_on == Some(true)
            && state.device_target == Some(45.0)
            && state.temperature == Some(46.0))
    });
    assert!(known, "{states:?}");
}

#[test]
fn a_wish_that_is_tried_out_is_said_and_so_is_its_end() {
    let said = said(&node(), Wanted::Always(40.0));
    let command = "panda-breath/climate/chamber";
    assert_eq!(
        said[1],
        format!("0:00:06.2 > {command}/target_temperature/command 40")
    );
    let end = said
        .iter()
        .position(|line| line.contains("Klipper's target becomes 0: "));
    let end = end.unwrap_or_else(|| panic!("{said:?}"));
    assert!(said[end].contains("45 C instead of 40 C"), "{said:?}");
    let off = format!("> {command}/mode/command off");
    assert!(said.iter().any(|line| line.ends_with(&off)), "{said:?}");
}

#[test]
fn a_recording_of_others_cannot_write_on_the_terminal() {
    let name = format!(
        "panda-breath-hostile-\u{1b}[2J-{}.jsonl",
        std::process::id()
    );
    let path = std::env::temp_dir().join(name);
    let evil = "\u{1b}[2J\u{9b}31m\u{7f}\r\n0:00:00.1 all is well";
    let header = json!({"panda_breath_recording": 1, "program": evil, "started": evil});
    let said = json!({"says": evil});
    let state = json!({"state": {"link": evil, "lost": false, "fault": evil}});
    let lines = [
        header,
        json!({"ms": 0, "event": "opened"}),
        json!({"ms": 9, "event": "closed", "why": evil}),
        json!({"ms": 9, "event": "concluded", "conclusion": said}),
        json!({"ms": 9, "event": "concluded", "conclusion": state}),
        json!({"ms": 20_000, "event": "ended"}),
    ];
    let mut text = lines.map(|line| line.to_string()).join("\n");
    for bad in [false, true] {
        if bad {
            text = format!("{text}\n{evil}\n");
        }
        std::fs::write(&path, &text).unwrap();
        for (json, target) in [(false, None), (true, None), (false, Some(45))] {
            let mut out = Vec::new();
            let result = replay(&path, Options { target, json }, &mut out);
            let out = String::from_utf8(out).unwrap();
            assert!(out.contains("all is well"), "{out:?}");
            for line in out.lines() {
                assert!(!line.contains(char::is_control), "{line:?}");
                assert!(!line.starts_with("0:00:00.1 all"), "{line:?}");
            }
            assert_eq!(result.is_err(), bad || target.is_none());
            let error = result.map_err(|error| error.to_string());
            let error = error.err().unwrap_or_default();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_device_that_dries_or_obeys_a_printer_for_minutes_is_let_alone() {
    let mut lines = vec![
        json!({"panda_breath_recording": 1, "program": "0", "started": "then"}),
        json!({"ms": 0, "event": "opened"}),
    ];
    for half in 0..1_200_u64 {
        let ms = half * 500;
        // Auto, then a cycle of drying that ends, then auto again, off and on.
        let (mode, running, on) = match half / 120 {
            1..=4 => (3, u64::from(half < 500), 1),
            7 => (1, 0, 0),
            _ => (1, 0, 1),
        };
        if half % 20 == 0 {
            let settings = json!({"fw_version": "V1.0.3", "work_on": on, "work_mode": mode,
                "set_temp": 60, "filtertemp": 30, "hotbedtemp": 80, "isrunning": running,
                "remaining_seconds": running * 600_u64.saturating_sub(half)});
            lines.push(json!({"ms": ms, "event": "refreshed"}));
            lines.push(json!({"ms": ms, "event": "opened"}));
            let message = json!({"ap": {"ssid": "unit 1"}, "settings": settings});
            lines.push(json!({"ms": ms, "event": "message", "message": message}));
        }
        let message = json!({"settings": {"warehouse_temper": 20 + half / 30}});
        lines.push(json!({"ms": ms + 1, "event": "message", "message": message}));
    }
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    let text = lines.join("\n");
    assert_eq!(
        said(&text, Wanted::WhatItDoes),
        ["0:00:00.0 connected to the device, firmware V1.0.3, device 905a"]
    );
    let all = format!("{:?}", conclude(&text, Wanted::WhatItDoes));
    assert!(all.contains("drying: Some(true)") && all.contains("fault: None"));
    assert!(
        !all.contains("fault: Some") && !all.contains("lost: true"),
        "{all}"
    );
    // With a heater of Klipper's that is off it would have been turned off.
    let said = said(&text, Wanted::Always(0.0));
    assert!(said[1].contains("turning it off"), "{said:?}");
}

#[test]
fn what_time_had_brought_to_a_recorder_that_was_killed_is_no_difference() {
    let header = json!({"panda_breath_recording": 1, "program": "0", "started": "then"});
    let settings = json!({"fw_version": "V1.0.3", "work_on": 0, "work_mode": 2, "set_temp": 50});
    let message = json!({"ap": {"ssid": "unit 1"}, "settings": settings});
    let mut lines = vec![
        json!({"ms": 0, "event": "opened"}),
        json!({"ms": 5, "event": "message", "message": message}),
    ];
    let mut observer = Observer::new(Wanted::WhatItDoes, None);
    for line in lines.clone() {
        let line: Line = serde_json::from_value(line).unwrap();
        observer.happened(line.ms, &line.what);
    }
    observer.advance(20_000);
    let concluded: Vec<_> = observer.concluded().collect();
    assert!(concluded.last().unwrap().0 > 5, "{concluded:?}");
    lines.extend(
        concluded
            .into_iter()
            .map(|(ms, one)| json!({"ms": ms, "event": "concluded", "conclusion": one})),
    );
    lines.sort_by_key(|line| line["ms"].as_u64());
    lines.insert(0, header);
    let name = format!("panda-breath-killed-{}.jsonl", std::process::id());
    let path = std::env::temp_dir().join(name);
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let mut out = Vec::new();
    let result = replay(&path, Options::default(), &mut out);
    std::fs::remove_file(&path).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(result.is_ok(), "{out}");
}
