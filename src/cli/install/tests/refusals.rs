//! What is refused; nothing has changed then.

use super::*;

#[test]
fn another_python_than_klippys_is_refused_with_the_commands_for_the_right_one() {
    let home = Home::new();
    home.put("other/bin/python", "");
    let mut here = home.here();
    here.python.as_mut().unwrap().prefix = home.path("other");
    let (result, _) = home.run_as(&here, "install", None);
    let error = result.unwrap_err().to_string();
    let python = home.path("pi/klippy-env/bin/python");
    let wanted = format!("\n  {} -m pip install panda-breath\n", python.display());
    assert!(error.contains(&wanted), "{error}");
    let wanted = home.path("pi/klippy-env/bin/panda-breath");
    assert!(
        error.contains(&format!("\n  {} install\n", wanted.display())),
        "{error}"
    );
    // What came from a file is installed from it once more.
    let site = "pi/klippy-env/lib/python3/site-packages/panda_breath-0.1.0.dist-info";
    home.put(
        &format!("{site}/direct_url.json"),
        r#"{"url":"file:///tmp/a.whl","archive_info":{}}"#,
    );
    let error = home
        .run_as(&here, "install", None)
        .0
        .unwrap_err()
        .to_string();
    assert!(error.contains("-m pip install /tmp/a.whl\n"), "{error}");
    home.remove("pi/klippy-env");
    let error = home.refusal("install");
    assert!(error.contains("--klippy-env"), "{error}");
    here.python = None;
    let error = home
        .run_as(&here, "install", None)
        .0
        .unwrap_err()
        .to_string();
    assert!(error.contains("Klipper's Python environment"), "{error}");
}

#[test]
fn an_unknown_module_of_that_name_is_not_touched() {
    let home = Home::new();
    home.put("pi/klipper/klippy/extras/panda_breath.py", "import this\n");
    let error = home.refusal("install");
    assert!(
        error.contains("neither this module nor the known community module"),
        "{error}"
    );
    home.put("pi/klipper/klippy/extras/panda_breath.py", COMMUNITY);
    home.put(
        "pi/klipper/klippy/extras/panda_breath.py.before-panda-breath",
        "older\n",
    );
    let error = home.refusal("install");
    assert!(error.contains("is in the way"), "{error}");
    let home = Home::new();
    home.put("pi/klipper/klippy/extras/panda_breath/__init__.py", "");
    let error = home.refusal("install");
    assert!(error.contains("move it away"), "{error}");
}

#[test]
fn a_printer_cfg_that_is_a_link_into_git_is_refused() {
    let home = Home::new();
    let printer_cfg = home.path("pi/printer_data/config/printer.cfg");
    home.put("pi/dotfiles/.git/HEAD", "");
    fs::rename(&printer_cfg, home.path("pi/dotfiles/printer.cfg")).unwrap();
    symlink("../../dotfiles/printer.cfg", &printer_cfg).unwrap();
    let error = home.refusal("install");
    assert!(
        error.contains("is a link to") && error.contains("dotfiles"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_not_text_and_an_include_of_itself_are_refused() {
    let home = Home::new();
    let printer_cfg = home.path("pi/printer_data/config/printer.cfg");
    fs::write(&printer_cfg, b"# \xff\n").unwrap();
    let (result, _) = home.run_as(&home.here(), "install", None);
    assert!(result.unwrap_err().to_string().contains("it is not UTF-8"));
    fs::write(&printer_cfg, "[include *.cfg]\n").unwrap();
    let error = home.refusal("install");
    assert!(error.contains("it includes itself"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_to_is_refused_before_anything_is_changed() {
    if rustix::process::geteuid().is_root() {
        return; // may write everywhere; tests/test_install.py has a read-only file system
    }
    let home = Home::new();
    let folder = home.path("pi/printer_data/config");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let error = home.refusal("install");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(error.contains("may not write there") && error.contains("Nothing was changed"));
}

#[test]
fn a_step_that_fails_takes_all_others_back() {
    let home = Home::new();
    // A folder in the place of the file that is written beside printer.cfg.
    let way = "pi/printer_data/config/.printer.cfg.panda-breath-new";
    home.put(&format!("{way}/file"), "");
    home.put("pi/klipper/klippy/extras/panda_breath.py", COMMUNITY);
    let error = home.refusal("install");
    assert!(
        error.contains("everything was put back as it was"),
        "{error}"
    );
}

#[test]
fn a_block_that_has_lost_its_end_is_left_to_the_user() {
    let home = Home::new();
    home.run("install");
    let conf = "pi/printer_data/config/moonraker.conf";
    home.put(conf, &home.get(conf).replace("# panda-breath: end\n", ""));
    let error = home.refusal("uninstall");
    assert!(
        error.contains("moonraker.conf") && error.contains("by hand"),
        "{error}"
    );
}
