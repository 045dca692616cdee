//! Moonraker, the guard service, and questions.

use super::*;

#[test]
fn moonraker_gets_no_section_for_what_it_cannot_update() {
    let home = Home::new();
    let conf = "pi/printer_data/config/moonraker.conf";
    let before = home.get(conf);
    let info = "pi/klippy-env/lib/python3/site-packages/panda_breath-0.1.0.dist-info";
    let info = format!("{info}/direct_url.json");
    home.put(
        &info,
        r#"{"url": "file:///tmp/panda_breath.whl", "archive_info": {}}"#,
    );
    let said = home.run("install");
    assert!(said.contains("came from /tmp/panda_breath.whl"), "{said}");
    assert_eq!(home.get(conf), before);
    home.run("install --update-manager");
    assert!(home.get(conf).contains(extras::UPDATE_MANAGER));
    home.run("uninstall");
    home.put(
        &info,
        r#"{"url": "https://github.com/a/b", "vcs_info": {"vcs": "git"}}"#,
    );
    home.run("install --no-update-manager");
    assert_eq!(home.get(conf), before);
    home.run("install");
    assert!(home.get(conf).contains(extras::UPDATE_MANAGER));
}

#[test]
fn the_guard_services_unit_fits_this_klipper() {
    let home = Home::new();
    home.service("klipper-1", "printer_data");
    let unit = home.run("install --print-guard-unit");
    assert!(unit.contains("\nUser=pi\n") && unit.contains("\nBefore=klipper-1.service\n"));
    let command = home.path("pi/klippy-env/bin/panda-breath");
    let line = format!("\nExecStart={} guard-service\n", command.display());
    assert!(unit.contains(&line), "{unit}");
    assert!(!unit.contains("/home/pi/"), "{unit}");
    let said = home.run("install");
    assert!(
        said.contains("install --print-guard-unit | sudo tee"),
        "{said}"
    );
    let said = home.run("uninstall");
    assert!(!said.contains("disable --now"), "{said}");
    home.put("systemd/panda-breath-guard.service", &unit);
    let said = home.run("uninstall");
    assert!(
        said.contains("sudo systemctl disable --now panda-breath-guard && sudo rm"),
        "{said}"
    );
    let said = home.run("install --no-guard-service");
    assert!(!said.contains("tee"), "{said}");
}

#[test]
fn root_writes_the_unit_if_asked_to() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    home.service("klipper", "printer_data");
    let said = home.run("install --guard-service");
    assert!(said.contains("enable --now panda-breath-guard"), "{said}");
    assert!(
        home.get("systemd/panda-breath-guard.service")
            .contains("\nUser=pi\n")
    );
    home.remove("systemd");
    let error = home.refusal("install --guard-service");
    assert!(error.contains("no systemd"), "{error}");
}

#[test]
fn on_a_terminal_it_asks_and_no_changes_nothing() {
    let home = Home::new();
    let before = home.tree();
    let no = "http://x\n192.168.1.60\nmaybe\nn\nn\nn\n";
    let (result, said) = home.run_as(&home.here(), "install", Some(no));
    result.unwrap();
    assert!(
        said.contains("without http://") && said.contains("Please answer y or n."),
        "{said}"
    );
    assert!(said.ends_with("Nothing was changed.\n"), "{said}");
    assert_same(&before, &home.tree());
    let (result, said) = home.run_as(&home.here(), "install", Some("192.168.1.60\n"));
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("no answer; nothing was changed"),
        "{error}: {said}"
    );
    assert_same(&before, &home.tree());
    let yes = "192.168.1.60\nn\n\n\n";
    let (result, said) = home.run_as(&home.here(), "install", Some(yes));
    result.unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(
        home.get("pi/printer_data/config/panda_breath.cfg")
            .ends_with("host: 192.168.1.60\n")
    );
    assert!(
        !home
            .path("pi/printer_data/config/panda_breath_macros.cfg")
            .exists()
    );
    home.run_as(&home.here(), "uninstall", Some("y\n"))
        .0
        .unwrap();
    assert_same(&before, &home.tree());
}

#[test]
fn options_that_make_no_configuration_are_wrong_arguments() {
    for line in [
        "--host http://a",
        "--host a:80",
        "--host a/b",
        "--host x --mqtt-broker b",
        "--port 80",
        "--host a --port 0",
        "--device-id 12",
        "--firmware other",
        "--mqtt-username me",
        "--mqtt-broker b --mqtt-password-file f",
        "--mqtt-broker b --mqtt-username a#b",
    ] {
        let words = ["panda-breath", "install"]
            .into_iter()
            .chain(line.split(' '));
        assert!(Command::try_parse_from(words).is_err(), "{line}");
    }
    let home = Home::new();
    for line in [
        "install --firmware esphome",
        "install --firmware stock --mqtt-broker b",
    ] {
        let (result, _) = home.run_as(&home.here(), line, None);
        assert_eq!(
            result.unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "{line}"
        );
    }
    let ipv6 = ["panda-breath", "install", "--host", "fe80::1%eth0"];
    assert!(Command::try_parse_from(ipv6).is_ok());
}
