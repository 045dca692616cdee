//! What users have in their files, and do to them.

use super::*;

#[test]
fn what_was_edited_meanwhile_stays() {
    let home = Home::new();
    home.run("install");
    let printer_cfg = "pi/printer_data/config/printer.cfg";
    let edited = home
        .get(printer_cfg)
        .replace("max_velocity: 300", "max_velocity: 250");
    home.put(printer_cfg, &format!("[new]\n{edited}#*# more = 1\n"));
    let section = "pi/printer_data/config/panda_breath.cfg";
    let mine = home.get(section) + "max_target: 55\n";
    home.put(section, &mine);
    let again = home.run("install --host 192.168.1.50");
    assert!(
        again.contains("stays as it is") && again.contains("nothing to do"),
        "{again}"
    );
    let said = home.run("uninstall");
    let wanted = PRINTER_CFG.replace("max_velocity: 300", "max_velocity: 250");
    assert_eq!(
        home.get(printer_cfg),
        format!("[new]\n{wanted}#*# more = 1\n")
    );
    assert!(said.contains("printer.cfg was edited since"), "{said}");
    assert_eq!(
        home.get("pi/printer_data/config/.panda_breath.cfg.saved"),
        mine
    );
    assert!(!home.path(section).exists());
}

#[test]
fn a_second_run_with_other_options_changes_what_nobody_has_edited() {
    let home = Home::new();
    let before = home.tree();
    home.run("install --host 192.168.1.50 --no-macros");
    home.run("install --mqtt-broker 192.168.1.10 --mqtt-username me --macros");
    let section = home.get("pi/printer_data/config/panda_breath.cfg");
    let wanted = "\n[panda_breath]\nmqtt_broker: 192.168.1.10\nmqtt_username: me\n";
    assert!(section.ends_with(wanted), "{section}");
    let backup = home.get("pi/printer_data/config/.printer.cfg.before-panda-breath");
    assert_eq!(backup, PRINTER_CFG, "copied once");
    home.run("uninstall");
    assert_same(&before, &home.tree());
}

#[test]
fn a_section_of_the_users_own_is_used_as_it_is() {
    let home = Home::new();
    let printer_cfg = format!("[panda_breath]\nhost: a\n{PRINTER_CFG}");
    home.put("pi/printer_data/config/printer.cfg", &printer_cfg);
    let said = home.run("install --host b --no-macros");
    assert!(
        said.contains("[panda_breath] in ") && said.contains("not used"),
        "{said}"
    );
    assert_eq!(home.get("pi/printer_data/config/printer.cfg"), printer_cfg);
    assert!(
        !home
            .path("pi/printer_data/config/panda_breath.cfg")
            .exists()
    );
    let said = home.run("uninstall");
    assert!(
        said.contains("was not written by 'install': delete it"),
        "{said}"
    );
}

#[test]
fn the_include_is_above_whatever_needs_it() {
    let home = Home::new();
    let own = "[heater_generic chamber]\nheater_pin: panda_breath:pwm\n\
               sensor_type: panda_breath\n[include panda_breath.cfg]\n";
    home.put("pi/printer_data/config/printer.cfg", own);
    home.put(
        "pi/printer_data/config/panda_breath.cfg",
        "[panda_breath]\nhost: a\n",
    );
    home.there_and_back("", "");
    home.run("install");
    let printer_cfg = home.get("pi/printer_data/config/printer.cfg");
    assert_eq!(printer_cfg, format!("{INCLUDE}{INCLUDE_MACROS}{own}"));
    let macros = home.get("pi/printer_data/config/panda_breath_macros.cfg");
    assert!(macros.contains("set heater = \"chamber\""), "{macros}");
}

#[test]
fn macros_of_the_users_own_are_not_replaced() {
    let home = Home::new();
    let own = format!("{PRINTER_CFG}[gcode_macro m141]\ngcode:\n    M117 own\n");
    home.put("pi/printer_data/config/printer.cfg", &own);
    let said = home.there_and_back("--macros", "");
    assert!(
        said.contains("[gcode_macro m141]") && said.contains("no macros were added"),
        "{said}"
    );
    home.run("install");
    assert_eq!(
        home.get("pi/printer_data/config/printer.cfg"),
        format!("{INCLUDE}{own}")
    );
}

#[test]
fn line_ends_of_windows_stay() {
    let home = Home::new();
    home.put(
        "pi/printer_data/config/printer.cfg",
        &PRINTER_CFG.replace('\n', "\r\n"),
    );
    home.there_and_back("", "");
    home.run("install");
    let printer_cfg = home.get("pi/printer_data/config/printer.cfg");
    assert_eq!(
        printer_cfg.matches('\n').count(),
        printer_cfg.matches("\r\n").count()
    );
}

#[test]
fn a_link_to_a_file_stays_one() {
    let home = Home::new();
    let printer_cfg = home.path("pi/printer_data/config/printer.cfg");
    fs::rename(&printer_cfg, home.path("pi/printer_data/config/real.cfg")).unwrap();
    symlink("real.cfg", &printer_cfg).unwrap();
    home.there_and_back("", "");
}

#[test]
fn mode_and_owner_stay_and_root_leaves_nothing_of_roots() {
    let home = Home::new();
    let root = rustix::process::geteuid().is_root();
    let everything: Vec<PathBuf> = home.tree().into_keys().collect();
    for path in everything.iter().filter(|_| root) {
        std::os::unix::fs::lchown(path, Some(1234), Some(1234)).unwrap();
    }
    let printer_cfg = home.path("pi/printer_data/config/printer.cfg");
    fs::set_permissions(&printer_cfg, fs::Permissions::from_mode(0o660)).unwrap();
    home.there_and_back("", "");
    home.run("install");
    assert_eq!(fs::metadata(&printer_cfg).unwrap().mode() & 0o777, 0o660);
    let owner = fs::metadata(&printer_cfg).unwrap().uid();
    for path in home.tree().keys() {
        assert_eq!(
            fs::symlink_metadata(path).unwrap().uid(),
            owner,
            "{}",
            path.display()
        );
    }
}

#[test]
fn each_edited_section_is_kept() {
    let home = Home::new();
    for host in ["a", "b"] {
        home.run("install");
        let section = "pi/printer_data/config/panda_breath.cfg";
        home.put(
            section,
            &home.get(section).replace("PandaBreath.local", host),
        );
        home.run("uninstall");
    }
    let saved = |name: &str| home.get(&format!("pi/printer_data/config/.panda_breath.cfg.{name}"));
    assert!(saved("saved").ends_with("host: a\n"));
    assert!(saved("saved.2").ends_with("host: b\n"));
}

#[test]
fn what_klipper_saves_while_the_question_stands_is_not_lost() {
    let home = Home::new();
    let file = home.path("pi/printer_data/config/printer.cfg");
    let mut plan = Plan::default();
    plan.edit(&file, format!("[include a]\n{PRINTER_CFG}"), "")
        .unwrap();
    plan.check().unwrap();
    fs::write(&file, format!("{PRINTER_CFG}#*# max_power = 1\n")).unwrap();
    let error = plan.check().unwrap_err().to_string();
    assert!(
        error.contains("somebody else has changed it meanwhile"),
        "{error}"
    );
}

#[test]
fn what_python_has_compiled_from_it_goes_as_well() {
    let home = Home::new();
    home.put(
        "pi/klipper/klippy/extras/__pycache__/heaters.cpython-311.pyc",
        "",
    );
    let before = home.tree();
    home.run("install");
    home.put(
        "pi/klipper/klippy/extras/__pycache__/panda_breath.cpython-311.pyc",
        "",
    );
    home.run("uninstall");
    assert_same(&before, &home.tree());
}

#[test]
fn an_include_that_the_user_wrote_is_named_when_its_file_goes() {
    let home = Home::new();
    home.run("install --no-macros");
    let printer_cfg = "pi/printer_data/config/printer.cfg";
    let own = format!("{PRINTER_CFG}[include panda_breath.cfg]\n");
    home.put(printer_cfg, &own);
    let said = home.run("uninstall");
    assert!(
        said.contains("printer.cfg, line 16, includes what is going away"),
        "{said}"
    );
    assert!(
        said.contains("delete it, or Klipper will not start"),
        "{said}"
    );
    assert_eq!(home.get(printer_cfg), own);
}

#[test]
fn at_no_moment_is_something_included_that_is_not_there() {
    let home = Home::new();
    let said = home.run("install --macros");
    let at = |said: &str, words: &str| {
        said.find(words)
            .unwrap_or_else(|| panic!("{words}: {said}"))
    };
    let include = at(&said, "/printer.cfg: [include");
    assert!(at(&said, "/panda_breath.cfg: ") < include);
    assert!(at(&said, "/panda_breath_macros.cfg: ") < include);
    assert!(at(&said, "/extras/panda_breath.py: ") < include);
    let said = home.run("uninstall");
    let include = at(&said, "/printer.cfg: without");
    assert!(include < at(&said, "/panda_breath.cfg\n"));
    assert!(include < at(&said, "/panda_breath_macros.cfg\n"));
    assert!(include < at(&said, "/extras/panda_breath.py\n"));
}

#[test]
fn options_that_are_not_given_again_stay() {
    let home = Home::new();
    let section = "pi/printer_data/config/panda_breath.cfg";
    for (line, wanted) in [
        (
            "--host 192.168.1.50 --port 8080",
            "host: 192.168.1.50\nport: 8080\n",
        ),
        (
            "--device-id 306d",
            "host: 192.168.1.50\nport: 8080\ndevice_id: 306d\n",
        ),
        (
            "--host 192.168.1.50 --firmware stock",
            "port: 8080\ndevice_id: 306d\nfirmware: stock\nhost: 192.168.1.50\n",
        ),
        // Neither the port nor the firmware need be the other one's.
        (
            "--host 192.168.1.60",
            "device_id: 306d\nhost: 192.168.1.60\n",
        ),
        (
            "--mqtt-broker b --mqtt-port 99 --firmware esphome",
            "device_id: 306d\nfirmware: esphome\nmqtt_broker: b\nmqtt_port: 99\n",
        ),
        (
            "--mqtt-broker b --mqtt-username me",
            "device_id: 306d\nfirmware: esphome\nmqtt_port: 99\nmqtt_broker: b\nmqtt_username: me\n",
        ),
        (
            "--firmware stock",
            "host: PandaBreath.local\ndevice_id: 306d\nfirmware: stock\n",
        ),
    ] {
        home.run(&format!("install {line}"));
        let text = home.get(section);
        assert!(
            text.ends_with(&format!("\n[panda_breath]\n{wanted}")),
            "{line}: {text}"
        );
    }
}

#[test]
fn a_device_that_stays_pinned_at_another_place_is_told() {
    let home = Home::new();
    let told = "device_id: 306d stays: any other device there is refused";
    for (line, is_told) in [
        ("--host 192.168.1.50 --device-id 306d", false),
        ("--host 192.168.1.50 --port 8080", false),
        ("--host 192.168.1.60", true),
        ("--host 192.168.1.70 --device-id 1234", false),
    ] {
        let said = home.run(&format!("install {line}"));
        assert_eq!(said.contains(told), is_told, "{line}: {said}");
    }
    home.run("install --mqtt-broker a --device-id 306d");
    let said = home.run("install --mqtt-broker b");
    assert!(said.contains(told), "{said}");
}

/// An output that is closed after some lines, as `| head -3` does it.
struct Head(usize);

impl io::Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let lines = String::from_utf8_lossy(bytes).matches('\n').count();
        self.0 = self.0.saturating_sub(lines);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_output_stops_it_before_anything_is_done_or_not_at_all() {
    let home = Home::new();
    let before = home.tree();
    home.run("install --macros");
    let after = home.tree();
    home.run("uninstall");
    let units = home.path("systemd").display().to_string();
    let go = |command: &str, lines: usize| {
        let words = ["panda-breath", command, "--systemd-dir", &units];
        let mut out = Head(lines);
        let mut talk = Talk::with(None, &mut out);
        match Command::try_parse_from(words).unwrap() {
            Command::Install(arguments) => install(&arguments, &home.here(), &mut talk),
            Command::Uninstall(arguments) => uninstall(&arguments, &home.here(), &mut talk),
        }
    };
    for lines in 0..14 {
        let done = go("install", lines).is_ok();
        assert_eq!(done, lines >= 3, "{lines}");
        assert_same(if done { &after } else { &before }, &home.tree());
        let done = go("uninstall", lines).is_ok();
        assert!(done || lines == 0, "{lines}");
        assert_same(&before, &home.tree());
    }
}

#[test]
fn copies_are_not_what_a_pattern_of_the_users_includes() {
    let home = Home::new();
    home.put("pi/klipper/klippy/extras/panda_breath.py", COMMUNITY);
    let config = "pi/printer_data/config";
    let theirs = "[panda_breath]\nhost: a\n[gcode_macro M141]\ngcode:\n  PANDA_BREATH_AUTO \
                  ENABLE=0\n";
    home.put(&format!("{config}/macros/m.cfg"), theirs);
    let printer_cfg = format!("[include panda_breath*]\n[include macros/*]\n{PRINTER_CFG}");
    home.put(&format!("{config}/printer.cfg"), &printer_cfg);
    home.there_and_back("", "");
    home.run("install");
    let file = fs::canonicalize(home.path(&format!("{config}/printer.cfg"))).unwrap();
    let read = || config::Config::read(&file, &Plan::default()).unwrap();
    let macros = read();
    let ours: Vec<_> = macros.named("gcode_macro M141").collect();
    assert!(!ours.is_empty() && ours.iter().all(|one| one.file.ends_with(MACROS)));
    let section = format!("{config}/panda_breath.cfg");
    home.put(&section, &(home.get(&section) + "max_target: 55\n"));
    home.run("uninstall");
    assert_eq!(
        read().device().unwrap().file,
        home.path(&format!("{config}/macros/m.cfg"))
    );
}

#[test]
fn a_copy_that_is_not_hidden_yet_goes_as_well() {
    let home = Home::new();
    let before = home.tree();
    home.run("install");
    for (folder, name) in [
        ("pi/printer_data/config", "printer.cfg"),
        ("pi/printer_data/config", "moonraker.conf"),
        ("pi/klipper/.git/info", "exclude"),
    ] {
        fs::rename(
            home.path(&format!("{folder}/.{name}.before-panda-breath")),
            home.path(&format!("{folder}/{name}.before-panda-breath")),
        )
        .unwrap();
    }
    let after = home.tree();
    home.run("install --host a");
    home.run("install --host PandaBreath.local");
    assert_same(&after, &home.tree());
    home.run("uninstall");
    assert_same(&before, &home.tree());
}

#[test]
fn who_needs_the_heater_is_named_when_it_goes() {
    let home = Home::new();
    let own = "[verify_heater panda_breath]\nhysteresis: 9\n\
               [heater_fan f]\npin: PA1\nheater: extruder, panda_breath\n\
               [heater_fan g]\npin: PA2\nheater: extruder\n\
               [verify_heater left]\n[verify_heater panda_breath_dryer]\n\
               [heater_generic chamber]\nheater_pin: panda_breath left:pwm\n\
               [controller_fan h]\nheater: bed, chamber\n\
               [heater_generic left]\nheater_pin: PB1\n\
               [temperature_sensor t]\nsensor_type: panda_breath left\n";
    let saved = "\n#*# [heater_generic panda_breath]\n#*# control = pid\n";
    let printer_cfg = "pi/printer_data/config/printer.cfg";
    home.put(printer_cfg, &format!("{own}{PRINTER_CFG}{saved}"));
    home.run("install --no-macros");
    let section = "pi/printer_data/config/panda_breath.cfg";
    let two = home.get(section) + "[panda_breath left]\nhost: b\n";
    home.put(section, &two);
    let said = home.run("uninstall");
    let notes: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("Klipper will not start"))
        .collect();
    let file = home.path(printer_cfg).display().to_string();
    // As they are before: with the line that includes ours.
    let wanted = [
        ("verify_heater panda_breath", 1),
        ("heater_fan f", 3),
        ("verify_heater panda_breath_dryer", 10),
        ("heater_generic chamber", 11),
        ("controller_fan h", 13),
        ("temperature_sensor t", 17),
    ];
    let mut wanted: Vec<String> = wanted
        .iter()
        .map(|(name, line)| {
            format!(
                "note: [{name}] in {file}, line {line} needs the heater that goes: delete or \
                 change it, or Klipper will not start"
            )
        })
        .collect();
    wanted.push(format!(
        "note: {file}, line 35: SAVE_CONFIG has kept [heater_generic panda_breath]: delete its \
         lines, or Klipper will not start"
    ));
    assert_eq!(notes, wanted);
}
