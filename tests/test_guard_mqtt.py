"""The guard behind a broker (R8): it makes sure that the broker's will has done its work."""

from __future__ import annotations

import os
import signal

import pytest
from broker import Access
from killing import guard_of, is_alive
from printers import Printer
from simulator import wait_for
from test_guard import guard_log, kill
from test_shim_mqtt import MakePlace, Place, Start, heated, place, place_at, start

__all__ = ["place", "place_at", "start"]  # fixtures


def guarded(start: Start, place: Place) -> tuple[Printer, int]:
    printer = heated(start, place)
    return printer, guard_of(printer)


def test_r8_killed_the_guard_confirms_what_the_will_has_done(start: Start, place: Place) -> None:
    printer, _ = guarded(start, place)
    mark = place.device.mark()
    kill(printer)
    place.wait_off(mark)
    wait_for(lambda: "has confirmed off" in guard_log(printer))


@pytest.mark.parametrize(
    ("dialect", "access"),
    [
        ("stock_mqtt", Access.PASSWORD),
        ("esphome", Access.TLS),
        ("stock_mqtt", Access.CERTIFICATE),
    ],
)
def test_r8_the_guard_gets_in_as_klipper_does(
    start: Start, place_at: MakePlace, dialect: str, access: Access
) -> None:
    place = place_at(dialect, access)
    printer, _ = guarded(start, place)
    kill(printer)
    wait_for(lambda: "has confirmed off" in guard_log(printer))
    log = guard_log(printer)
    assert "may still be on" not in log


def test_r8_a_device_that_comes_back_into_heat_after_the_will_is_turned_off(
    start: Start, place: Place
) -> None:
    printer, _ = guarded(start, place)
    place.device.inject("powercut 3")  # so that the will reaches nobody
    kill(printer)
    mark = place.device.mark()
    place.device.wait_for("up", mark)
    place.wait_off(mark)
    wait_for(lambda: "has confirmed off" in guard_log(printer))


def test_r8_an_esphome_device_is_watched_after_it_was_turned_off(
    start: Start, place_at: MakePlace
) -> None:
    """It saves its mode once per minute. That this ends after 70 s is tested without waiting."""
    place = place_at("esphome")
    printer, guard = guarded(start, place)
    kill(printer)
    wait_for(lambda: "has confirmed off" in guard_log(printer))
    mark = place.device.mark()
    place.device.inject("button on")
    place.wait_on(mark, 45)
    place.wait_off(mark)
    assert is_alive(guard)
    os.kill(guard, signal.SIGTERM)
    wait_for(lambda: not is_alive(guard), "the guard's end")


def test_r8_a_stock_device_behind_a_broker_is_let_go_when_off_is_known(
    start: Start, place_at: MakePlace
) -> None:
    place = place_at("stock_mqtt")
    printer, guard = guarded(start, place)
    kill(printer)
    wait_for(lambda: not is_alive(guard), "the guard's end")
    assert "has confirmed off" in guard_log(printer)
