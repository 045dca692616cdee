//! Where Klipper may be.

use super::*;

#[test]
fn mainsailos_and_kiauh_are_found_by_their_service() {
    let home = Home::new();
    home.service("klipper", "printer_data");
    let said = home.there_and_back("--host 192.168.1.50", "");
    assert!(said.contains("sudo systemctl restart klipper\n"), "{said}");
    assert!(
        said.contains("RESTART in the console is not enough"),
        "{said}"
    );
    home.run("install --host 192.168.1.50");
    let printer_cfg = home.get("pi/printer_data/config/printer.cfg");
    assert_eq!(
        printer_cfg,
        format!("{INCLUDE}{INCLUDE_MACROS}{PRINTER_CFG}")
    );
    let section = home.get("pi/printer_data/config/panda_breath.cfg");
    assert!(
        section.ends_with("\n[panda_breath]\nhost: 192.168.1.50\n"),
        "{section}"
    );
    let backup = home.get("pi/printer_data/config/.printer.cfg.before-panda-breath");
    assert_eq!(backup, PRINTER_CFG);
    let exclude = home.get("pi/klipper/.git/info/exclude");
    assert!(
        exclude.contains("\n/klippy/extras/panda_breath.py\n"),
        "{exclude}"
    );
    let moonraker = home.get("pi/printer_data/config/moonraker.conf");
    assert!(
        moonraker.contains("[update_manager panda-breath]\ntype: python\n"),
        "{moonraker}"
    );
    let virtualenv = format!("\nvirtualenv: {}\n", home.path("pi/klippy-env").display());
    assert!(moonraker.contains(&virtualenv), "{moonraker}");
    assert!(
        moonraker.contains("\nmanaged_services: klipper\n"),
        "{moonraker}"
    );
}

#[test]
fn a_klipper_without_a_service_is_found_by_its_folders() {
    let home = Home::new();
    let said = home.there_and_back("", "");
    assert!(
        said.contains("restart the Klipper service, or the computer"),
        "{said}"
    );
}

#[test]
fn older_homes_have_klipper_config() {
    let home = Home::new();
    let (old, new) = (
        home.path("pi/printer_data/config"),
        home.path("pi/klipper_config"),
    );
    fs::rename(old, new).unwrap();
    home.remove("pi/printer_data");
    home.there_and_back("--macros", "");
}

#[test]
fn kalico_gets_it_among_its_plugins() {
    let home = Home::new();
    fs::rename(home.path("pi/klipper"), home.path("pi/kalico")).unwrap();
    home.put("pi/kalico/klippy/plugins/__init__.py", "");
    home.put(
        "pi/kalico/.gitignore",
        "klippy/plugins/*\n!klippy/plugins/__init__.py\n",
    );
    home.there_and_back("", "");
    let exclude = home.get("pi/kalico/.git/info/exclude");
    home.run("install");
    assert_eq!(home.get("pi/kalico/klippy/plugins/panda_breath.py"), SHIM);
    assert!(
        !home
            .path("pi/kalico/klippy/extras/panda_breath.py")
            .exists()
    );
    assert_eq!(
        home.get("pi/kalico/.git/info/exclude"),
        exclude,
        "its .gitignore is enough"
    );
    // The same name in both folders is an error in Kalico.
    home.run("uninstall");
    home.put("pi/kalico/klippy/extras/panda_breath.py", COMMUNITY);
    home.there_and_back("", "");
    home.run("install");
    assert!(
        !home
            .path("pi/kalico/klippy/extras/panda_breath.py")
            .exists()
    );
}

#[test]
fn the_snapmaker_u1_has_neither_git_nor_systemd_nor_an_environment() {
    let home = Home::new();
    fs::rename(home.path("pi"), home.path("lava")).unwrap();
    home.remove("lava/klipper/.git");
    home.remove("lava/klippy-env");
    home.remove("systemd");
    home.put("usr/bin/python3", "");
    let root = home.root.display();
    home.put(
        "proc/812/cmdline",
        &format!(
            "{root}/usr/bin/python3\0{root}/lava/klipper/klippy/klippy.py\0\
             {root}/lava/printer_data/config/printer.cfg\0-u\0lava\0"
        ),
    );
    let mut here = home.here();
    here.home = home.path("lava");
    here.python.as_mut().unwrap().prefix = home.path("usr");
    let before = home.tree();
    let (result, said) = home.run_as(&here, "install --host 192.168.1.50", None);
    result.unwrap();
    assert!(said.contains("moonraker.conf was left alone"), "{said}");
    assert!(!said.contains("guard service"), "{said}");
    assert_eq!(home.get("lava/klipper/klippy/extras/panda_breath.py"), SHIM);
    home.run_as(&here, "uninstall", None).0.unwrap();
    assert_same(&before, &home.tree());
}

#[test]
fn a_checkout_may_be_a_work_tree_of_another() {
    let home = Home::new();
    fs::rename(home.path("pi/klipper/.git"), home.path("pi/main.git")).unwrap();
    home.put("pi/klipper/.git", "gitdir: ../main.git/worktrees/klipper\n");
    home.put("pi/main.git/worktrees/klipper/commondir", "../..\n");
    home.there_and_back("", "");
    home.run("install");
    assert!(
        home.get("pi/main.git/info/exclude")
            .contains("/klippy/extras/panda_breath.py")
    );
}

#[test]
fn of_several_klippers_one_has_to_be_named() {
    let home = Home::new();
    home.service("klipper-1", "printer_1_data");
    home.service("klipper-2", "printer_2_data");
    home.remove("pi/printer_data");
    for data in ["printer_1_data", "printer_2_data"] {
        home.put(
            &format!("pi/{data}/config/printer.cfg"),
            "[mcu]\nserial: a\n",
        );
    }
    for line in ["install", "uninstall"] {
        let error = home.refusal(line);
        assert!(
            error.contains("several Klippers here; say which one:"),
            "{error}"
        );
        assert!(error.contains("--instance klipper-1 ") && error.contains("--instance klipper-2 "));
    }
    let error = home.refusal("install --instance klipper-3");
    assert!(error.contains("no Klipper 'klipper-3'"), "{error}");
    let said = home.there_and_back("", "--instance klipper-2");
    assert!(said.contains("systemctl restart klipper-2\n"), "{said}");
    home.there_and_back("", "--instance printer_1");
    let file = home.path("pi/printer_1_data/config/printer.cfg");
    home.there_and_back("", &format!("--printer-cfg {}", file.display()));

    // The module is there for both, until neither needs it.
    home.run("install --instance klipper-1");
    home.run("install --instance klipper-2");
    let said = home.run("uninstall --instance klipper-1");
    assert!(said.contains("the module stays"), "{said}");
    assert!(
        home.path("pi/klipper/klippy/extras/panda_breath.py")
            .exists()
    );
    home.run("uninstall --instance klipper-2");
    assert!(
        !home
            .path("pi/klipper/klippy/extras/panda_breath.py")
            .exists()
    );
}

#[test]
fn every_place_can_be_named() {
    let home = Home::new();
    let other = Home::new();
    let mut here = home.here();
    here.home = other.path("nobody");
    here.homes = other.path("nobody");
    let root = home.root.display();
    let line = format!(
        "install --klipper-dir {root}/pi/klipper --printer-cfg {root}/pi/printer_data/config/\
         printer.cfg --klippy-env {root}/pi/klippy-env --moonraker-conf \
         {root}/pi/printer_data/config/moonraker.conf"
    );
    home.run_as(&here, &line, None).0.unwrap();
    assert!(
        home.path("pi/klipper/klippy/extras/panda_breath.py")
            .exists()
    );
    let (result, _) = home.run_as(&here, "install", None);
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("no Klipper was found") && error.contains("--klipper-dir"),
        "{error}"
    );
    let line = format!("install --klipper-dir {root}/pi --printer-cfg {root}/passwd");
    let error = home.run_as(&here, &line, None).0.unwrap_err().to_string();
    assert!(error.contains("no Klipper and no Kalico"), "{error}");
    let line = format!("install --klipper-dir {root}/pi/klipper --printer-cfg {root}/none.cfg");
    let error = home.run_as(&here, &line, None).0.unwrap_err().to_string();
    assert!(error.contains("none.cfg: there is no such file"), "{error}");
}

#[test]
fn a_list_of_what_git_does_not_see_may_have_to_be_made() {
    let home = Home::new();
    fs::remove_file(home.path("pi/klipper/.git/info/exclude")).unwrap();
    home.there_and_back("", "");
    home.run("install");
    assert!(
        home.get("pi/klipper/.git/info/exclude")
            .contains("/klippy/extras/panda_breath.py")
    );
}

#[test]
fn a_klipper_outside_of_all_homes_is_found_where_it_runs() {
    let home = Home::new();
    let root = home.root.display();
    let line = format!("{root}/pi/klippy-env/bin/python\0-u\0{root}/pi/klipper/klippy/klippy.py\0");
    let file = format!("{root}/pi/printer_data/config/printer.cfg\0");
    home.put("proc/812/cmdline", &format!("{line}{file}"));
    let mut here = home.here();
    (here.home, here.homes) = (home.path("root"), home.path("homes"));
    let before = home.tree();
    home.run_as(&here, "install", None).0.unwrap();
    assert_eq!(home.get("pi/klipper/klippy/extras/panda_breath.py"), SHIM);
    home.run_as(&here, "uninstall", None).0.unwrap();
    assert_same(&before, &home.tree());
    // Not if a home was named: what runs elsewhere is not meant then.
    let nobody = home.path("root").display().to_string();
    let (result, _) = home.run_as(&here, &format!("install --home {nobody}"), None);
    assert!(
        result
            .unwrap_err()
            .to_string()
            .contains("no Klipper was found")
    );
}

const SHIM_FILE: &str = "pi/klipper/klippy/extras/panda_breath.py";

/// Two printers of one checkout, with nothing of ours yet.
fn two_printers() -> Home {
    let home = Home::new();
    home.remove("pi/printer_data");
    for data in ["printer_1_data", "printer_2_data"] {
        home.put(
            &format!("pi/{data}/config/printer.cfg"),
            "[mcu]\nserial: a\n",
        );
    }
    home
}

#[test]
fn who_else_needs_the_module_is_looked_for_where_klippers_are() {
    let home = two_printers();
    let root = home.root.display();
    let mut here = home.here();
    (here.home, here.homes) = (home.path("root"), home.path("nobody"));
    for number in [1, 2] {
        home.run(&format!("install --instance printer_{number}"));
    }
    // Beside the checkout, where only that and the configuration are named.
    let line = format!(
        "uninstall --klipper-dir {root}/pi/klipper --printer-cfg \
         {root}/pi/printer_1_data/config/printer.cfg"
    );
    let (result, said) = home.run_as(&here, &line, None);
    result.unwrap();
    assert!(said.contains("the module stays"), "{said}");
    assert!(!said.contains("pip uninstall"), "{said}");
    assert!(home.path(SHIM_FILE).exists());
    if rustix::process::geteuid().is_root() {
        home.run("install --instance printer_1");
        here.homes = home.path("");
        let (result, said) = home.run_as(&here, "uninstall --instance printer_1", None);
        result.unwrap();
        assert!(said.contains("the module stays"), "{said}");
        assert!(home.path(SHIM_FILE).exists());
    }
    let said = home.run("uninstall --instance printer_2");
    assert!(said.contains("pip uninstall"), "{said}");
    assert!(!home.path(SHIM_FILE).exists());
}

#[test]
fn a_printer_of_another_checkout_does_not_keep_the_module_in_this_one() {
    let home = two_printers();
    home.service("klipper-1", "printer_1_data");
    home.service("klipper-2", "printer_2_data");
    let env = "pi/printer_2_data/systemd/klipper.env";
    home.put(env, &home.get(env).replace("/pi/klipper/", "/pi/second/"));
    home.put("pi/second/klippy/klippy.py", "");
    home.put("pi/second/klippy/extras/heaters.py", "");
    home.run("install --instance klipper-2");
    let before = home.tree();
    home.run("install --instance klipper-1");
    let said = home.run("uninstall --instance klipper-1");
    assert_same(&before, &home.tree());
    // But it is of the same Python, which it needs the wheel in.
    assert!(!said.contains("pip uninstall"), "{said}");
    let said = home.run("uninstall --instance klipper-2");
    assert!(said.contains("pip uninstall"), "{said}");
}

#[test]
fn the_community_module_comes_back_after_the_last_of_several_printers() {
    let home = two_printers();
    home.put(SHIM_FILE, COMMUNITY);
    for number in [1, 2] {
        home.put(
            &format!("pi/printer_{number}_data/config/printer.cfg"),
            "[panda_breath]\nfirmware: stock\nhost: a\n[mcu]\nserial: a\n",
        );
    }
    let before = home.tree();
    for number in [1, 2] {
        home.run(&format!("install --instance printer_{number}"));
        let text = home.get(&format!("pi/printer_{number}_data/config/printer.cfg"));
        assert!(
            text.starts_with(INCLUDE) && text.contains("#panda-breath# [panda_breath]\n"),
            "{text}"
        );
    }
    home.run("uninstall --instance printer_1");
    assert_eq!(home.get(SHIM_FILE), SHIM, "the other one is on ours");
    home.run("uninstall --instance printer_2");
    assert_same(&before, &home.tree());
}
