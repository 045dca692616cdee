"""[verify_heater NAME]: a heater has to do as it is told (klippy/extras/verify_heater.py).

Looks once a second. On the way to a new target the temperature has to gain `heating_gain` degrees
every `check_gain_time` seconds; once there, or once that fails, degrees below target minus
`hysteresis` are summed up, and more than `max_error` of them shut the printer down.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)

HINT = """
See the 'verify_heater' section in docs/Config_Reference.md
for the parameters that control this check.
"""


class HeaterCheck:
    """Watches one heater."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.printer.register_event_handler("klippy:connect", self.handle_connect)
        self.printer.register_event_handler("klippy:shutdown", self.handle_shutdown)
        self.heater_name = config.get_name().split()[1]
        self.heater: Any = None
        self.hysteresis = config.getfloat("hysteresis", 5.0, minval=0.0)
        self.max_error = config.getfloat("max_error", 120.0, minval=0.0)
        self.heating_gain = config.getfloat("heating_gain", 2.0, above=0.0)
        self.check_gain_time = config.getfloat(
            "check_gain_time", 60.0 if self.heater_name == "heater_bed" else 20.0, minval=1.0
        )
        self.approaching_target = self.starting_approach = False
        self.last_target = self.goal_temp = self.error = 0.0
        self.goal_systime = self.reactor.NEVER
        self.check_timer: Any = None

    def handle_connect(self) -> None:
        """Start watching, except in batch mode."""
        if self.printer.get_start_args().get("debugoutput") is not None:
            return
        self.heater = self.printer.lookup_object("heaters").lookup_heater(self.heater_name)
        logger.info("Starting heater checks for %s", self.heater_name)
        self.check_timer = self.reactor.register_timer(self.check_event, self.reactor.NOW)

    def handle_shutdown(self) -> None:
        """Stop watching."""
        if self.check_timer is not None:
            self.reactor.update_timer(self.check_timer, self.reactor.NEVER)

    def check_event(self, eventtime: float) -> float:
        """Look once."""
        temp, target = self.heater.get_temp(eventtime)
        if target <= 0.0 or temp >= target - self.hysteresis:
            if self.approaching_target and target:
                logger.info("Heater %s within range of %.3f", self.heater_name, target)
            self.approaching_target = self.starting_approach = False
            if temp <= target + self.hysteresis:
                self.error = 0.0
            self.last_target = target
            return eventtime + 1.0
        self.error += target - self.hysteresis - temp
        if not self.approaching_target:
            if target != self.last_target:
                logger.info("Heater %s approaching new target of %.3f", self.heater_name, target)
                self.approaching_target = self.starting_approach = True
                self._set_goal(eventtime, temp)
            elif self.error >= self.max_error:
                return self.heater_fault()
        elif temp >= self.goal_temp:
            self.starting_approach = False
            self.error = 0.0
            self._set_goal(eventtime, temp)
        elif eventtime >= self.goal_systime:
            self.approaching_target = False
            logger.info("Heater %s no longer approaching target %.3f", self.heater_name, target)
        elif self.starting_approach:
            # It may cool further before the heat arrives
            self.goal_temp = min(self.goal_temp, temp + self.heating_gain)
        self.last_target = target
        return eventtime + 1.0

    def _set_goal(self, eventtime: float, temp: float) -> None:
        self.goal_temp = temp + self.heating_gain
        self.goal_systime = eventtime + self.check_gain_time

    def heater_fault(self) -> float:
        """Shut down."""
        msg = f"Heater {self.heater_name} not heating at expected rate"
        logger.error(msg)
        self.printer.invoke_shutdown(msg + HINT)
        return float(self.reactor.NEVER)


def load_config_prefix(config: Any) -> HeaterCheck:
    """Watch the heater that the section names."""
    return HeaterCheck(config)
