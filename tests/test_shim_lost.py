"""A target dropped against Klipper's wish: what Klipper does, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SECTION, Make
from fake_native import Driver, Session

HEATER = "heater_generic panda_breath"
WAIT = f'TEMPERATURE_WAIT SENSOR="{HEATER}" MINIMUM=59'
AGAIN = "to set it again: SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45"


@pytest.fixture
def session(driver: Driver) -> Session:
    return driver.session()


class Setup:
    """A printer at 45 C, that may be printing a file."""

    def __init__(self, make: Make, session: Session, folder: Path, options: str = "") -> None:
        self.session = session
        self.folder = folder
        has_pause = "no pause_resume" not in options
        options = options.replace("no pause_resume", "")
        pause = "[pause_resume]\n" if has_pause else ""
        sdcard = f"[virtual_sdcard]\npath: {folder}\n"
        self.host = make(SECTION + options + "\n" + pause + sdcard)
        assert self.host.state == "ready", self.host.message
        session.read(25.0)
        self.host.advance(2.0)
        self.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
        self.host.advance(5.0)
        assert self.host.status("idle_timeout")["state"] == "Ready"

    def print(self, lines: str) -> None:
        (self.folder / "part.gcode").write_text(lines)
        self.host.gcode("SDCARD_PRINT_FILE FILENAME=part.gcode")
        self.host.advance(2.0)
        assert self.host.status("idle_timeout")["state"] == "Printing"

    def console(self) -> str:
        return "\n".join(self.host.responses)

    @property
    def target(self) -> float:
        return float(self.host.status(HEATER)["target"])

    @property
    def is_paused(self) -> bool:
        return bool(self.host.status("pause_resume")["is_paused"])


LONG_PRINT = "G4 P400\n" * 2000
WAITING_PRINT = WAIT + "\n" + LONG_PRINT


# Not printing: target 0 and words, whatever was chosen


@pytest.mark.parametrize("on_lost", ["pause", "shutdown", "warn"])
@pytest.mark.parametrize("pause", ["", "no pause_resume"])
def test_not_printing_lost_is_target_zero_and_words(
    make: Make, session: Session, tmp_path: Path, on_lost: str, pause: str
) -> None:
    setup = Setup(make, session, tmp_path, f"on_lost: {on_lost}\n{pause}")
    session.lose("no reading from 192.168.1.50 for 120 s")
    setup.host.advance(1.0)
    assert setup.target == 0.0
    assert (
        "// panda_breath: no reading from 192.168.1.50 for 120 s. "
        f"Its target of 45.0 C was dropped; {AGAIN}" in setup.host.responses
    )
    setup.host.advance(300.0)
    assert setup.host.state == "ready"
    assert "action:paused" not in setup.console()


def test_the_words_name_the_users_heater(make: Make, driver: Driver) -> None:
    host = make(
        SECTION + "[heater_generic chamber]\nheater_pin: panda_breath:pwm\n"
        "sensor_type: panda_breath\ncontrol: watermark\nmin_temp: 0\nmax_temp: 65\n"
    )
    session = driver.session()
    session.read(25.0)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=42.5")
    session.force_off("the device was turned off by a button", failure=False)
    host.advance(1.0)
    assert "SET_HEATER_TEMPERATURE HEATER=chamber TARGET=42.5" in "\n".join(host.responses)


# R9: somebody's choice


def test_r9_a_button_drops_the_target_and_the_print_goes_on(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: shutdown")
    setup.print(LONG_PRINT)
    session.force_off("the device was turned off by a button or another client", failure=False)
    setup.host.advance(1.0)
    assert setup.target == 0.0
    assert f"by a button or another client. Its target of 45.0 C was dropped; {AGAIN}" in (
        setup.console()
    )
    setup.host.advance(200.0)
    assert setup.host.state == "ready"
    assert setup.host.status("virtual_sdcard")["is_active"]
    assert not setup.is_paused


def test_r9_heat_is_not_set_again_by_itself(make: Make, session: Session, tmp_path: Path) -> None:
    setup = Setup(make, session, tmp_path)
    session.force_off("a button", failure=False)
    setup.host.advance(30.0)
    assert {wish.target for wish in session.wishes[-25:]} == {0.0}


def test_r9_an_off_by_hand_in_a_wait_is_said_again_because_the_wait_never_ends(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "pause_timeout: 30")
    setup.print(WAITING_PRINT)
    session.force_off("the device was turned off by a button", failure=False)
    setup.host.advance(29.0)
    assert "M112" not in setup.console()
    setup.host.advance(300.0)
    assert setup.console().count("still in the same command after 30 s; if it waits for") == 1
    assert setup.host.state == "ready"
    assert setup.host.status("virtual_sdcard")["is_active"]


@pytest.mark.parametrize("lines", [LONG_PRINT, "G4 P20000\n" * 10, ""])
def test_r9_an_off_by_hand_without_a_wait_is_said_once(
    make: Make, session: Session, tmp_path: Path, lines: str
) -> None:
    setup = Setup(make, session, tmp_path, "pause_timeout: 30")
    if lines:
        setup.print(lines)
    session.force_off("the device was turned off by a button", failure=False)
    setup.host.advance(100.0)
    assert "same command" not in setup.console()


# R3: a wish counts only if it knows what was dropped


def test_r3_the_wish_that_was_dropped_never_heats_again(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path)
    assert session.heat == 45.0
    heated: list[float] = []
    session.before_drain = lambda: heated.append(session.heat)
    session.force_off("a button", failure=False)
    assert session.heat == 0.0
    setup.host.advance(10.0)
    assert set(heated) == {0.0}
    assert session.wish.ack == 1
    told = session.wants()[-1]
    assert (told.target, told.ack) == (0.0, 1)
    assert told.at == next(wish.at for wish in session.wishes if wish.ack == 1)


def test_r3_a_target_set_after_the_drop_was_told_heats(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path)
    session.force_off("a button", failure=False)
    setup.host.advance(1.0)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=40")
    assert session.heat == 40.0
    assert (session.wish.ack, session.wish.target) == (1, 40.0)
    setup.host.advance(10.0)
    assert session.heat == 40.0


def test_r3_a_target_set_before_the_drop_was_told_does_not_heat(
    make: Make, session: Session, tmp_path: Path
) -> None:
    """Whoever set it did not know; they are told, and can set it again."""
    setup = Setup(make, session, tmp_path)
    session.force_off("a button", failure=False)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=40")
    assert session.heat == 0.0
    setup.host.advance(1.0)
    assert session.heat == 0.0
    assert setup.target == 0.0
    assert "Its target of 40.0 C was dropped" in setup.console()


def test_r3_a_second_drop_right_after_the_first_is_obeyed_too(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path)
    for target in (40, 41, 42):
        session.force_off("a button", failure=False)
        setup.host.advance(1.0)
        assert setup.target == 0.0
        setup.host.gcode(f"SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET={target}")
        assert session.heat == target


def test_r3_alter_target_after_a_drop_counts_as_a_new_wish_only_once_obeyed(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path)
    session.force_off("a button", failure=False)
    setup.host.heater("panda_breath").alter_target(44.0)
    setup.host.advance(1.0)
    assert (setup.target, session.heat) == (0.0, 0.0)


# Printing


def test_pause_pauses_the_print(make: Make, session: Session, tmp_path: Path) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: pause")
    setup.print(LONG_PRINT)
    session.lose()
    setup.host.advance(1.0)
    assert setup.target == 0.0
    setup.host.advance(2.0)
    assert setup.is_paused
    assert not setup.host.status("virtual_sdcard")["is_active"]
    setup.host.advance(300.0)
    assert setup.host.state == "ready", "the deadline is for the beginning of PAUSE"


def test_pause_is_the_default(make: Make, session: Session, tmp_path: Path) -> None:
    setup = Setup(make, session, tmp_path)
    setup.print(LONG_PRINT)
    session.lose()
    setup.host.advance(3.0)
    assert setup.is_paused


def test_pause_stops_a_print_that_comes_over_the_console(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path)
    run = setup.host.launch("G4 P5000")
    setup.host.advance(1.0)
    session.lose()
    setup.host.advance(1.0)
    assert "// action:paused" in setup.host.responses
    assert not setup.is_paused
    setup.host.advance(10.0)
    assert run.done and setup.is_paused


def test_pause_without_pause_resume_shuts_down(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: pause\nno pause_resume")
    setup.print(LONG_PRINT)
    session.lose("no reading from 192.168.1.50 for 120 s")
    setup.host.advance(1.0)
    assert setup.host.state == "shutdown"
    assert setup.host.reason == "panda_breath: no reading from 192.168.1.50 for 120 s"
    assert session.wish.armed is False


@pytest.mark.parametrize("pause", ["", "no pause_resume"])
def test_shutdown_shuts_down(make: Make, session: Session, tmp_path: Path, pause: str) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: shutdown\n" + pause)
    setup.print(LONG_PRINT)
    session.lose("no reading from 192.168.1.50 for 120 s")
    setup.host.advance(1.0)
    assert setup.host.state == "shutdown"
    assert setup.host.reason == "panda_breath: no reading from 192.168.1.50 for 120 s"


@pytest.mark.parametrize("pause", ["", "no pause_resume"])
def test_warn_says_so_and_verify_heater_ends_it(
    make: Make, session: Session, tmp_path: Path, pause: str
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: warn\nlost_after: 20\n" + pause)
    session.read(45.0)
    setup.print(LONG_PRINT)
    session.lose()
    setup.host.advance(1.0)
    assert setup.target == 45.0
    assert "verify_heater will end the print" in setup.console()
    assert session.heat == 0.0, "the target stays without effect"
    setup.host.advance(10.0)
    assert setup.host.state == "ready"
    assert session.heat == 0.0
    assert setup.console().count("verify_heater will end the print") == 1
    setup.host.advance(600.0)
    assert setup.host.state == "shutdown"
    assert "Heater panda_breath not heating at expected rate" in setup.host.reason


def test_warn_a_new_target_after_the_warning_heats(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: warn")
    setup.print(LONG_PRINT)
    session.force_off("the device reports: a protective stop")
    setup.host.advance(1.0)
    assert session.heat == 0.0
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45", limit=2.0)
    assert session.heat == 45.0


def test_warn_says_off_only_where_it_is(make: Make, session: Session, tmp_path: Path) -> None:
    """Nobody knows what a driver that does not turn has done, so its target goes."""
    setup = Setup(make, session, tmp_path, "on_lost: warn")
    setup.print(LONG_PRINT)
    session.stuck = True
    setup.host.advance(3.0)
    session.stuck = False
    setup.host.advance(3.0)
    assert (setup.target, session.heat) == (0.0, 0.0)
    assert f"service. Its target of 45.0 C was dropped; {AGAIN}" in setup.console()
    assert "verify_heater" not in setup.console()
    assert setup.host.state == "ready"
    assert setup.host.status("virtual_sdcard")["is_active"]


@pytest.mark.parametrize("stuck", [True, False])
def test_warn_without_a_target_ends_no_print(
    make: Make, session: Session, tmp_path: Path, stuck: bool
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: warn")
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
    setup.print(LONG_PRINT)
    if stuck:
        session.stuck = True
    else:
        session.lose("no reading")
    setup.host.advance(3.0)
    words = "does not answer" if stuck else "no reading"
    assert setup.console().count(words) == 1
    assert "verify_heater" not in setup.console()


def test_warn_ends_with_the_print(make: Make, session: Session, tmp_path: Path) -> None:
    """Or verify_heater would shut a printer down that has nothing to do."""
    setup = Setup(make, session, tmp_path, "on_lost: warn")
    setup.print("G4 P400\n" * 30)
    session.force_off("the device reports: a protective stop")
    setup.host.advance(2.0)
    assert setup.target == 45.0
    setup.host.advance(30.0)
    assert not setup.host.status("virtual_sdcard")["is_active"]
    assert (setup.target, session.wish.ack) == (0.0, 1)
    assert f"nothing prints any more. Its target of 45.0 C was dropped; {AGAIN}" in setup.console()
    setup.host.advance(1800.0)
    assert setup.host.state == "ready"
    assert setup.console().count("nothing prints any more") == 1


def test_warn_that_was_answered_with_a_target_does_not_end_with_the_print(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: warn")
    setup.print("G4 P400\n" * 30)
    session.force_off("the device reports: a protective stop")
    setup.host.advance(2.0)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45", limit=2.0)
    setup.host.advance(60.0)
    assert setup.host.status("idle_timeout")["state"] != "Printing"
    assert (setup.target, session.heat) == (45.0, 45.0)


def test_pause_that_cannot_begin_shuts_down_after_pause_timeout_and_not_before(
    make: Make, session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    setup = Setup(make, session, tmp_path, "pause_timeout: 30")
    run = setup.host.launch(WAIT)
    setup.host.advance(2.0)
    session.lose("no reading")
    session.wishes.clear()
    setup.host.advance(30.5)
    assert setup.target == 0.0
    assert (setup.host.state, run.done) == ("ready", False)
    assert len(session.wishes) >= 30, "the look ticks on while PAUSE waits"
    setup.host.advance(1.0)
    assert setup.host.state == "shutdown"
    assert setup.host.reason == "panda_breath: PAUSE could not begin within 30 s"
    setup.host.advance(5.0)
    assert run.done
    assert not setup.is_paused, "the wait has ended, but PAUSE comes too late"
    assert "PAUSE failed" not in caplog.text


def test_pause_that_waits_for_a_file_shuts_down_after_pause_timeout(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "pause_timeout: 30")
    setup.print(WAITING_PRINT)
    session.lose()
    setup.host.advance(30.0)
    assert setup.host.state == "ready"
    setup.host.advance(2.0)
    assert setup.host.state == "shutdown"
    assert "PAUSE could not begin within 30 s" in setup.host.reason


def test_pause_that_begins_in_time_is_no_shutdown(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "pause_timeout: 30")
    run = setup.host.launch(WAIT)
    setup.host.advance(2.0)
    session.lose()
    setup.host.advance(20.0)
    session.read(60.0)
    setup.host.advance(5.0)
    assert run.done and setup.is_paused
    setup.host.advance(60.0)
    assert setup.host.state == "ready"


def test_a_second_loss_does_not_give_pause_more_time(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "pause_timeout: 30")
    setup.host.launch(WAIT)
    setup.host.advance(2.0)
    session.lose()
    for _ in range(8):
        setup.host.advance(4.0)
        setup.host.heater("panda_breath").alter_target(45.0)
        session.force_off("again")
    assert setup.host.state == "shutdown"
    assert setup.console().count("action:paused") == 1


def test_a_pause_macro_that_fails_shuts_down(make: Make, session: Session, tmp_path: Path) -> None:
    setup = Setup(
        make,
        session,
        tmp_path,
        "[gcode_macro PAUSE]\nrename_existing: BASE_PAUSE\n"
        "gcode:\n  {action_raise_error('no room to park')}\n",
    )
    setup.print(LONG_PRINT)
    session.lose()
    setup.host.advance(3.0)
    assert setup.host.state == "shutdown"
    assert "PAUSE failed" in setup.host.reason
    assert "no room to park" in setup.host.reason


def test_the_users_own_pause_macro_is_what_runs(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(
        make,
        session,
        tmp_path,
        "[gcode_macro PAUSE]\nrename_existing: BASE_PAUSE\n"
        "gcode:\n  RESPOND MSG=parking\n  BASE_PAUSE\n[respond]\n",
    )
    setup.print(LONG_PRINT)
    session.lose()
    setup.host.advance(3.0)
    assert "echo: parking" in setup.console()
    assert setup.is_paused


PARKING = (
    "[gcode_macro PAUSE]\nrename_existing: BASE_PAUSE\n"
    "gcode:\n  RESPOND MSG=parking\n  BASE_PAUSE\n[respond]\n"
)


def parked(setup: Setup) -> int:
    return setup.console().count("echo: parking")


@pytest.mark.parametrize("on_lost", ["pause", "shutdown", "warn"])
def test_a_paused_print_is_not_paused_again(
    make: Make, session: Session, tmp_path: Path, on_lost: str
) -> None:
    """Somebody has their hands in the printer, and every G-code makes that "Printing"."""
    setup = Setup(make, session, tmp_path, f"on_lost: {on_lost}\npause_timeout: 30\n{PARKING}")
    setup.print(LONG_PRINT)
    setup.host.gcode("PAUSE", limit=5.0)
    setup.host.advance(5.0)
    setup.host.launch(WAIT)
    setup.host.advance(1.0)
    assert setup.host.status("idle_timeout")["state"] == "Printing"
    session.lose()
    setup.host.advance(60.0)
    assert setup.target == 0.0
    assert f"Its target of 45.0 C was dropped; {AGAIN}" in setup.console()
    assert parked(setup) == 1
    assert setup.host.state == "ready"
    assert setup.is_paused


@pytest.mark.parametrize("waits", [False, True])
def test_a_print_that_was_paused_meanwhile_is_not_paused_again(
    make: Make, session: Session, tmp_path: Path, waits: bool
) -> None:
    setup = Setup(make, session, tmp_path, f"pause_timeout: 30\n{PARKING}")
    setup.print("G4 P5000\n" * 100)
    paused = setup.host.launch(f"PAUSE\n{WAIT}" if waits else "PAUSE")  # waits for its turn
    session.lose()
    setup.host.advance(60.0)
    assert parked(setup) == 1
    assert setup.host.state == "ready"
    assert setup.is_paused
    assert paused.done is not waits


def test_two_devices_that_are_lost_at_once_pause_once(
    make: Make, driver: Driver, session: Session, tmp_path: Path
) -> None:
    second = "[panda_breath left]\nhost: 192.168.1.51\n"
    setup = Setup(make, session, tmp_path, PARKING + second)
    other = driver.session("192.168.1.51:80")
    other.read(25.0)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=left TARGET=45")
    setup.print(LONG_PRINT)
    session.lose()
    other.lose()
    setup.host.advance(5.0)
    assert setup.host.status("heater_generic left")["target"] == setup.target == 0.0
    assert parked(setup) == 1
    assert setup.is_paused


def test_a_print_that_has_ended_meanwhile_is_not_paused(
    make: Make, session: Session, tmp_path: Path
) -> None:
    """Lost in its last command: what parks the head then is the end G-code, or somebody."""
    setup = Setup(make, session, tmp_path, PARKING)
    setup.print("G4 P5000\n")
    session.lose()
    setup.host.advance(20.0)
    assert setup.target == 0.0
    assert (parked(setup), setup.is_paused) == (0, False)
    assert setup.host.status("print_stats")["state"] == "complete"
    assert setup.host.state == "ready"
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
    session.read(25.0)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    setup.print(LONG_PRINT)  # the next one can be paused
    session.lose()
    setup.host.advance(5.0)
    assert parked(setup) == 1
    assert not setup.host.status("virtual_sdcard")["is_active"]


def test_a_print_that_was_cancelled_meanwhile_is_not_paused(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, PARKING)
    setup.print("G4 P5000\n" * 100)
    setup.host.launch("CANCEL_PRINT")  # waits for its turn
    session.lose()
    setup.host.advance(20.0)
    assert (parked(setup), setup.is_paused) == (0, False)
    assert setup.host.status("print_stats")["state"] == "cancelled"
    assert setup.host.state == "ready"


def test_a_failure_hidden_by_a_later_choice_still_counts(
    make: Make, session: Session, tmp_path: Path
) -> None:
    """Two drops between two looks: the words are the last one's, on_lost is for both."""
    setup = Setup(make, session, tmp_path, "on_lost: shutdown")
    setup.print(LONG_PRINT)
    session.force_off("the device reports: a protective stop", failure=True)
    session.force_off("a button", failure=False)
    setup.host.advance(1.0)
    assert setup.host.state == "shutdown"


def test_a_failure_of_before_does_not_count_again(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: shutdown")
    session.force_off("the device reports: a protective stop", failure=True)
    setup.host.advance(2.0)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    setup.print(LONG_PRINT)
    session.force_off("a button", failure=False)
    setup.host.advance(5.0)
    assert setup.host.state == "ready"
    assert setup.target == 0.0


def test_lost_with_target_zero_does_nothing_to_a_print(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: shutdown")
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
    setup.host.advance(5.0)
    setup.print(LONG_PRINT)
    session.lose("no reading")
    setup.host.advance(10.0)
    assert setup.host.state == "ready"
    assert "dropped" not in setup.console()
    assert setup.console().count("// panda_breath: no reading") == 1


def test_a_drop_after_a_shutdown_runs_nothing(
    make: Make, session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    setup = Setup(make, session, tmp_path, "pause_timeout: 5")
    setup.print(LONG_PRINT)
    setup.host.printer.invoke_shutdown("Shutdown due to webhooks request")
    reason = setup.host.reason
    session.lose()
    setup.host.advance(20.0)
    assert setup.host.reason == reason
    assert "action:paused" not in setup.console()
    assert "PAUSE failed" not in caplog.text


# A driver that stops (R7)


def test_r7_a_stuck_driver_is_treated_as_lost(make: Make, session: Session, tmp_path: Path) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: shutdown")
    setup.print(LONG_PRINT)
    session.stuck = True
    setup.host.advance(1.0)
    assert setup.host.state == "shutdown"
    assert "its background thread does not answer" in setup.host.reason


def test_r7_a_stuck_driver_is_said_once_and_again_when_it_happens_again(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path)
    session.stuck = True
    setup.host.advance(20.0)
    assert setup.console().count("does not answer") == 1
    assert setup.target == 0.0
    session.stuck = False
    setup.host.advance(5.0)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    assert session.heat == 45.0
    session.stuck = True
    setup.host.advance(5.0)
    assert setup.console().count("does not answer") == 2
    assert setup.target == 0.0


# RESTART


def test_r3_what_was_dropped_before_a_restart_is_not_the_new_printers(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: shutdown")
    session.force_off("a button", failure=False)
    setup.host.advance(1.0)
    session.force_off("lease", failure=True)  # on the way out, seen by no look
    setup.host.restart()
    session.read(30.0)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    assert (session.heat, session.wish.ack) == (45.0, 2)
    run = setup.host.launch("G4 P5000")
    setup.host.advance(10.0)
    assert run.done and setup.host.state == "ready"
    assert "dropped" not in setup.console()
    assert "lease" not in setup.console()
    assert setup.target == 45.0


# The drivers' lines


def test_each_line_is_printed_once_and_in_order(make: Make, driver: Driver) -> None:
    host = make(SECTION)
    driver.session().lines += ["connected to 192.168.1.50", "the device is on; turning it off"]
    host.advance(5.0)
    ours = [line for line in host.responses if "panda_breath" in line]
    assert ours == [
        "// panda_breath: connected to 192.168.1.50",
        "// panda_breath: the device is on; turning it off",
    ]


def test_the_lines_of_a_named_section_carry_its_name(make: Make, driver: Driver) -> None:
    host = make("[panda_breath left]\nhost: left.local\n")
    driver.session("left.local:80").lines.append("connected")
    host.advance(1.0)
    assert "// panda_breath left: connected" in host.responses
