"""What `panda-breath install` writes, loaded by a klippy; the rest of it is tested in Rust."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from printers import KlippyPrinter, Printer, StubPrinter

BASE = "[idle_timeout]\ntimeout: 600\n"


class ConfigError(Exception):
    pass


class Section:
    """As much of klippy's section as a module needs that cannot be loaded."""

    error = ConfigError

    def get_name(self) -> str:
        return "panda_breath left"


class Home:
    """A home folder: the Klipper of KLIPPER_DIR in it, or an empty one for the stub."""

    def __init__(self, path: Path, real: bool = False) -> None:
        self.path = path
        self.klipper = path / "klipper"
        self.config = path / "printer_data" / "config"
        self.config.mkdir(parents=True)
        (self.config / "printer.cfg").write_text(BASE)
        self.python = Path(os.environ.get("KLIPPY_PYTHON") or sys.executable).expanduser()
        source = os.environ.get("KLIPPER_DIR")
        if source and real:
            self._copy(Path(source).expanduser().resolve())
        else:
            extras = self.klipper / "klippy" / "extras"
            extras.mkdir(parents=True)
            (extras / "__init__.py").write_text("")
            (self.klipper / "klippy" / "klippy.py").write_text("")
            run("git", "init", "--quiet", str(self.klipper))
            self.git("add", ".")
        plugins = self.klipper / "klippy" / "plugins"
        self.extras = plugins if plugins.is_dir() else self.klipper / "klippy" / "extras"
        self.module = self.extras / "panda_breath.py"

    def _copy(self, source: Path) -> None:
        """The checkout, with what git tracks and what was built. Not by git alone: in a partial
        clone it lacks files that are not there either.
        """
        run("git", "clone", "--quiet", "--shared", "--no-checkout", str(source), str(self.klipper))
        files = run("git", "-C", str(source), "ls-files", "-z").split("\0")
        for name in (*files, "out/klipper.elf", "klippy/chelper/c_helper.so"):
            if name and (source / name).is_file():
                (self.klipper / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, self.klipper / name, follow_symlinks=False)
        self.git("reset", "--quiet")

    def git(self, *words: str) -> str:
        return run("git", "-C", str(self.klipper), *words)

    def printer(self) -> Printer:
        """A printer whose printer.cfg is the home's, with nothing installed by the tests."""
        if os.environ.get("KLIPPER_DIR"):
            return KlippyPrinter(BASE, self.config, self.klipper, self.python, extras=())
        return StubPrinter(BASE, self.config, extras=(self.module,))

    def command(self, *words: str) -> str:
        places = ["--home", str(self.path), "--klippy-env", str(self.python.parent.parent)]
        places += ["--systemd-dir", str(self.path / "systemd")]
        return run(str(self.python.parent / "panda-breath"), *words, *places)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_klippy_has_the_heater_and_git_sees_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "pi", real=True)
    printer = home.printer()
    before = (home.config / "printer.cfg").read_bytes()
    status = home.git("status", "--porcelain")
    said = home.command("install", "--host", "127.0.0.1", "--port", "1")
    assert "nothing to do" in home.command("install")
    with printer:
        assert {"panda_breath", "heater_generic panda_breath"} <= set(printer.objects())
        heaters: dict[str, Any] = printer.query({"heaters": None})["heaters"]
        assert heaters["available_heaters"] == ["heater_generic panda_breath"]
        assert {"gcode_macro M141", "gcode_macro M191"} <= set(printer.objects())
    assert home.git("status", "--porcelain") == status, said
    home.command("uninstall")
    assert (home.config / "printer.cfg").read_bytes() == before
    assert not home.module.exists()
    assert home.git("status", "--porcelain") == status
    assert [path.name for path in home.config.glob("*panda*") if path.suffix != ".log"] == []


def test_klippy_has_a_device_with_a_name_of_its_own(tmp_path: Path) -> None:
    home = Home(tmp_path / "pi", real=True)
    printer = home.printer()
    printer.write_config(BASE + "[panda_breath left]\nhost: 127.0.0.1\nport: 1\n")
    assert "is used as it is" in home.command("install")
    with printer:
        assert "heater_generic left" in printer.objects()


def test_a_wheel_that_has_gone_is_a_config_error_with_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Klipper's environment is sometimes built anew, and this file stays."""
    home = Home(tmp_path / "pi")
    home.command("install")
    module: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "panda_breath", None)
    exec(home.module.read_text(), module)
    for load in (module["load_config"], module["load_config_prefix"]):
        with pytest.raises(ConfigError, match="panda_breath left.*-m pip install panda-breath'"):
            load(Section())


def test_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "pi")
    script = 'mount -o bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(home.config)]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.xfail("this computer lets nobody mount anything")
    command = [str(home.python.parent / "panda-breath"), "install", "--home", str(home.path)]
    command += ["--klippy-env", str(home.python.parent.parent)]
    done = subprocess.run([*mount, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "on a read-only file system" in done.stderr
    assert "Nothing was changed" in done.stderr
    assert not home.module.exists()
