"""BIQU Panda Breath chamber heater, as a Klipper heater.

This file is the thin half: it reads Klipper and obeys. Networking, the firmware's language and
every safety rule are in the wheel `panda-breath`, which runs on a thread of its own; no call from
here to there ever waits. Works in Klipper and Kalico, and imports nothing from either.

Copyright (C) 2026  Panda Breath for Klipper contributors
This file may be distributed under the terms of the GNU GPLv3 license or, at your option, any
later version.
"""

import logging
import os
import re
import stat
import sys

INTERFACE = 4  # the wheel's must be the same
GUARD_LOG = "panda_breath_guard.log"
REPORT_TIME = 1.0  # s between two looks at what the driver has brought
DEFAULTS = {"min_temp": "0", "max_temp": "80", "control": "watermark"}
MAX_DELTA = "1"  # C; the device knows whole degrees
# Heater options that may be written in [panda_breath] and are passed on to the heater's section.
HEATER_OPTIONS = (
    "control, gcode_id, lost_update_tolerance, max_delta, max_power, max_temp, min_extrude_temp, "
    "min_temp, pid_kd, pid_ki, pid_kp, pwm_cycle_time, smooth_time"
).split(", ")
DRYER = "dry"  # the pin of the heater that dries filament
DRYING = (40.0, 60.0)  # C
# A chamber warms slowly, and on_lost must act before verify_heater does.
VERIFY = {"check_gain_time": "360", "hysteresis": "5", "heating_gain": "1"}
# A chamber that is regulated by a sensor of its own is that much cooler until the boost is found.
CHAMBER_HYSTERESIS = "15"
ERROR_PER_LOST_SECOND = 60.0  # C: a reading of 0 counts as much each second, or max_target if more
# The firmwares behind an MQTT broker, and where their topics begin by default.
PREFIXES = {"esphome": "panda-breath", "stock_mqtt": "panda_breath"}
# The existing community module has these; its configurations give them to every firmware.
COMMUNITY_OPTIONS = ("host", "port", "mqtt_broker", "mqtt_port", "mqtt_topic_prefix")
# What a topic may be for: option mqtt_ROLE_topic, with the names of the wheel.
TOPIC_ROLES = (
    "action_state, availability, mode_command, mode_state, target_command, target_high_command, "
    "target_high_state, target_low_command, target_low_state, target_state, temperature_state"
).split(", ")
TOPIC_OPTIONS = tuple("mqtt_%s_topic" % (role,) for role in TOPIC_ROLES)
ESPHOME_OPTIONS = (
    "mqtt_climate",
    "mqtt_sensor",
    "mqtt_discovery_prefix",
    "mqtt_foreign_topics",
    *TOPIC_OPTIONS,
)
MQTT_OPTIONS = (
    "mqtt_broker",
    "mqtt_port",
    "mqtt_topic_prefix",
    "mqtt_device_id",
    "mqtt_username",
    "mqtt_password_file",
    "mqtt_tls",
    "mqtt_ca_file",
    "mqtt_cert_file",
    "mqtt_key_file",
    *ESPHOME_OPTIONS,
)
MAX_TABLE = 20
MAX_PREFIX = 64
MAX_TOPIC = 256
MAX_PASSWORD = 65535  # bytes; MQTT has no room for more
# What Klipper's getint and the like want, in words.
KINDS = {"boolean": "True or False", "float": "a number", "int": "a whole number"}
SLOWEST_SENSOR = 5.0  # s between readings; after 7 Klipper calls one stale, after 10 it is silent
PLAUSIBLE = (-40.0, 150.0)  # C; anything else is no reading
STUCK = "its background thread does not answer; if that lasts, restart the Klipper service"


def load_native(config):
    """The compiled half; a missing or unfit one is the user's to mend, and the error says how."""
    pip = "%s -m pip install --upgrade panda-breath" % (sys.executable,)
    try:
        import panda_breath_native as native
    except ImportError as e:
        raise config.error(
            "[%s]: the compiled part of panda_breath is not installed for this Klipper (%s). "
            "Run '%s', then restart the Klipper service." % (config.get_name(), e, pip)
        ) from None
    if native.INTERFACE == INTERFACE:
        return native
    # Where 'panda-breath install' was used, this file is the wheel's own.
    site = os.path.dirname(os.path.dirname(os.path.abspath(getattr(native, "__file__", ""))))
    if site == os.path.dirname(os.path.abspath(__file__)):
        remedy = "Run '%s -m pip install --force-reinstall panda-breath'" % (sys.executable,)
    elif native.INTERFACE < INTERFACE:
        remedy = "Run '%s'" % (pip,)
    else:
        remedy = "Run '%s install', or copy panda_breath.py of version %s into klippy/extras" % (
            os.path.join(os.path.dirname(sys.executable), "panda-breath"),
            native.__version__,
        )
    raise config.error(
        "[%s]: panda_breath.py has interface %d, but the installed panda-breath %s has interface "
        "%d. %s, then restart the Klipper service (RESTART is not enough)."
        % (config.get_name(), INTERFACE, native.__version__, native.INTERFACE, remedy)
    )


def guard_log(config):
    """Where the guard says what it did: beside klippy.log."""
    log = config.get_printer().get_start_args().get("log_file")
    return os.path.join(os.path.dirname(os.path.abspath(log)), GUARD_LOG) if log else None


class Reader:
    """Reads options and says in one way what is wrong with them."""

    def __init__(self, config):
        self.config = config

    def _fail(self, option, value, remedy):
        raise self.config.error(
            "Option '%s' in section '%s' is not valid: '%s'; %s"
            % (option, self.config.get_name(), value, remedy)
        )

    def _read(self, option, kind, default, **limits):
        """Klipper's own getint and the like; their errors do not show the value."""
        try:
            return getattr(self.config, "get" + kind)(option, default, **limits)
        except self.config.error as e:
            why = str(e)
        raise self.config.error("%s: '%s'; give %s" % (why, self.config.get(option), KINDS[kind]))

    def _choice(self, option, choices):
        value = self.config.get(option, choices[0]).strip()
        if value not in choices:
            self._fail(option, value, "choose one of: " + ", ".join(choices))
        return value

    def _seconds(self, option, default, maxval=86400.0, **limits):
        value = self._read(option, "float", default, maxval=maxval, **limits)
        if value != value:  # nan is neither too small nor too large
            self._fail(option, value, "give a number of seconds")
        return value

    def _address(self, option, example, port_option):
        host = self.config.get(option).strip()
        remedy = "give a name such as %s.local or an address such as 192.168.1.50" % (example,)
        if "://" in host or "/" in host:
            self._fail(option, host, "without %s:// and without slashes: %s"
                       % ("http" if option == "host" else "mqtt", remedy))  # fmt: skip
        if re.match(r"^[^:\[\]]+:\d+$", host):
            self._fail(option, host, "the port has an option of its own: " + port_option)
        if not re.match(r"^[0-9A-Za-z._:%\[\]-]{1,253}$", host):
            self._fail(option, host, remedy)
        return host

    def _name(self, option, default):
        value = self.config.get(option, default).strip()
        if not re.match(r"^[0-9A-Za-z_-]{1,128}$", value):
            self._fail(option, value, "it has letters, digits, - and _ only")
        return value

    def _topic(self, option, default=None, longest=MAX_TOPIC):
        value = self.config.get(option, default)
        if value is None:
            return None
        value = value.strip()
        if not value:
            self._fail(option, value, "give a topic or remove the option")
        if re.search(r"[+#\x00-\x1f\x7f]", value):
            self._fail(option, value, "the wildcards + and # and line breaks are not allowed")
        if value.startswith("/") or value.endswith("/"):
            self._fail(option, value, "without a slash at its beginning and end")
        if len(value) > longest:
            self._fail(option, value, "it is longer than %d characters" % (longest,))
        return value

    def _path(self, option):
        value = self.config.get(option, None)
        if value is None:
            return None
        if not value.strip():
            self._fail(option, value, "name a file or remove the option")
        return os.path.expanduser(value.strip())


class Options(Reader):
    """The section's options, checked; `native` are those that the driver wants."""

    def __init__(self, config):
        super().__init__(config)
        self.warnings: list[str] = []
        firmware = self._choice("firmware", ("auto", "stock", "stock_mqtt", "esphome"))
        if self._is_behind_broker(firmware):
            mqtt = Mqtt(config, firmware, self.warnings)
            self.place, self.places, self.place_option = mqtt.place, mqtt.places, mqtt.place_option
            self.dialect = None if firmware == "auto" else firmware
            where = {"host": mqtt.host, "port": mqtt.port, "mqtt": mqtt.native}
        else:
            host = self._address("host", "PandaBreath", "port")
            port = self._read("port", "int", 80, minval=1, maxval=65535)
            self.place, self.place_option = host, "host"
            self.places = {("stock", host.lower().rstrip("."), port, "", None)}
            self.dialect = "stock"
            where = {"host": host, "port": port}
        device_id = config.get("device_id", None)
        if device_id is not None:
            device_id = device_id.strip().lower()
            if not re.match(r"^[0-9a-f]{4}$", device_id):
                self._fail("device_id", device_id, "it is the 4 digits shown when it connects")
        self.stale_after = self._seconds("stale_after", 7.0, minval=2.0)
        self.lost_after = self._seconds("lost_after", 120.0, above=self.stale_after)
        self.pause_timeout = self._seconds("pause_timeout", 120.0, minval=0.0)
        self.on_lost = self._choice("on_lost", ("pause", "shutdown", "warn"))
        self.max_target = self._read("max_target", "int", 60, minval=1, maxval=80)
        self.native = {
            "device_id": device_id,
            "max_target": self.max_target,
            "stale_after": self.stale_after,
            "lost_after": self.lost_after,
            "lease": self._seconds("lease", 10.0, minval=3.0, maxval=60.0),
            "on_external_off": self._choice("on_external_off", ("accept", "reassert")),
            "on_external_on": self._choice("on_external_on", ("off", "allow")),
        }
        self.native.update(where)
        guard_retry = self._seconds("guard_retry", 1800.0, minval=10.0)
        if self._read("guard", "boolean", True):
            self.native["guard"] = {"log": guard_log(config), "retry": guard_retry}
        else:
            self.warnings.append(
                "without a guard (guard: False) the device stays on when Klipper is killed, "
                "crashes or is stopped while it heats"
            )
        self.chamber_sensor = self._sensor("chamber_sensor", "max_boost")
        if self.chamber_sensor is not None:
            max_boost = self._read("max_boost", "int", 15, minval=0, maxval=40)
            self.native["chamber"] = (self.chamber_sensor, max_boost)
        self.cutoff_sensor = self._sensor("cutoff_sensor", "cutoff_temp")
        if self.cutoff_sensor is not None:
            cutoff_temp = self._read("cutoff_temp", "float", None, above=0.0, maxval=PLAUSIBLE[1])
            if cutoff_temp is None or cutoff_temp != cutoff_temp:
                self._fail("cutoff_sensor", self.cutoff_sensor, "give cutoff_temp as well, in C")
            self.native["cutoff"] = (self.cutoff_sensor, cutoff_temp)
        self.drying_hours = None
        if self._read("dryer", "boolean", False):
            self.drying_hours = self._read("drying_hours", "int", 6, minval=1, maxval=99)
            self.native["drying_hours"] = self.drying_hours
            if self.max_target < DRYING[0]:
                self._fail("dryer", "True", "drying needs at least %d C, and max_target is %d C"
                           % (DRYING[0], self.max_target))  # fmt: skip
        elif config.get("drying_hours", None) is not None:
            self._fail("drying_hours", config.get("drying_hours"), "it needs dryer: True as well")
        self.follow_bed = self._table("follow_bed")
        if self.follow_bed:
            self.native["follow"] = self.follow_bed

    def _table(self, option):
        """Targets of the bed, rising, each with one of the chamber."""
        value = self.config.get(option, None)
        table: list[tuple[float, float]] = []
        for pair in [] if value is None else value.split(","):
            match = re.match(r"^\s*(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)\s*$", pair)
            if match is None:
                self._fail(option, value, "give targets of the bed and of the chamber in C, such "
                           "as 80:45, 100:60")  # fmt: skip
            bed, chamber = float(match[1]), float(match[2])
            if bed <= (table[-1][0] if table else 0.0):
                self._fail(option, value, "the bed's targets must be above 0 and rise")
            if chamber > self.max_target:
                self._fail(option, value, "a chamber of %g C is above max_target, which is %d C"
                           % (chamber, self.max_target))  # fmt: skip
            table.append((bed, chamber))
        if len(table) > MAX_TABLE:
            self._fail(option, value, "at most %d pairs" % (MAX_TABLE,))
        return table

    def _sensor(self, option, needs_it):
        name = self.config.get(option, None)
        if name is None:
            value = self.config.get(needs_it, None)
            if value is not None:
                self._fail(needs_it, value, "it needs %s as well" % (option,))
            return None
        if not name.strip():
            self._fail(option, name, "name a sensor, such as 'temperature_sensor cavity', or "
                       "remove the option")  # fmt: skip
        return " ".join(name.split())

    def max_error(self):
        """What verify_heater has to put up with before on_lost acts."""
        return max(ERROR_PER_LOST_SECOND, self.max_target) * self.lost_after

    def _is_behind_broker(self, firmware):
        """Which of the two ways leads to the device; what belongs to the other is a mistake."""
        if self.config.get("mqtt_password", None) is not None:
            # Its value is a secret (R11).
            raise self.config.error(
                "Option 'mqtt_password' in section '%s' is not accepted, because klippy.log shows "
                "all options; write the password into a file of its own and name that in "
                "mqtt_password_file" % (self.config.get_name(),)
            )
        host, broker = self.config.get("host", None), self.config.get("mqtt_broker", None)
        if firmware == "auto":
            if host is not None and broker is not None:
                remedy = "'host' is given as well: remove one, or set firmware: to what it is"
                self._fail("mqtt_broker", broker, remedy)
            behind = broker is not None
            need = "'host', or 'mqtt_broker' for a device behind an MQTT broker"
        else:
            behind = firmware != "stock"
            need = "'mqtt_broker'" if behind else "'host'"
        if (broker if behind else host) is None:
            raise self.config.error(
                "Option %s in section '%s' must be specified (firmware: %s)"
                % (need, self.config.get_name(), firmware)
            )
        for option in ("host", "port") if behind else MQTT_OPTIONS:
            value = self.config.get(option, None)
            if value is not None:
                self._useless(option, value, firmware, behind)
        return behind

    def _useless(self, option, value, firmware, behind):
        if behind:
            why = "the device is reached through mqtt_broker and mqtt_port"
        else:
            why = "it is for a device behind an MQTT broker (mqtt_broker, without host)"
        if firmware == "auto" or option not in COMMUNITY_OPTIONS:
            self._fail(option, value, why + "; remove it")
        self.warnings.append(
            "option '%s: %s' has no effect with firmware: %s; %s" % (option, value, firmware, why)
        )


class Mqtt(Reader):
    """The options for a device behind an MQTT broker; `native` are those that the driver wants."""

    place_option = "mqtt_topic_prefix"

    def __init__(self, config, firmware, warnings):
        super().__init__(config)
        self.warnings = warnings
        self.host = self._address("mqtt_broker", "broker", "mqtt_port")
        tls = self._read("mqtt_tls", "boolean", False)
        self.port = self._read("mqtt_port", "int", 8883 if tls else 1883, minval=1, maxval=65535)
        prefix = self._topic("mqtt_topic_prefix", longest=MAX_PREFIX)
        device_id = self._device_id(firmware)
        if prefix is not None:
            prefixes = [prefix]
        elif firmware == "auto":
            prefixes = sorted(PREFIXES.values())
        else:
            prefixes = [PREFIXES[firmware]]
        broker = self.host.lower().rstrip(".")
        self.place = "%s on broker %s" % (" or ".join(prefixes), self.host)
        self.places = {("mqtt", broker, self.port, each, device_id) for each in prefixes}
        self.native = {"dialect": firmware, "prefix": prefix, "device_id": device_id, "tls": tls}
        self._read_login()
        self._read_tls_files(tls)
        self._read_topics(firmware)

    def _device_id(self, firmware):
        value = self.config.get("mqtt_device_id", None)
        if value is None:
            return None
        digits = re.sub("[:-]", "", value.strip()).upper()
        if firmware != "esphome" and re.match(r"^[0-9A-F]{12}$", digits):
            return digits
        if firmware == "stock_mqtt":
            self._fail("mqtt_device_id", value, "give its 12 hexadecimal digits, as in its topics")
        return self._name("mqtt_device_id", None)

    def _read_login(self):
        username = self.config.get("mqtt_username", None)
        if username is not None and not username.strip():
            self._fail("mqtt_username", username, "give a user name or remove the option")
        path = self._path("mqtt_password_file")
        if path is not None and username is None:
            self._fail("mqtt_password_file", path, "a password needs mqtt_username as well")
        self.native["username"] = None if username is None else username.strip()
        self.native["password"] = None if path is None else self._password(path)

    def _password(self, path):
        """Reads the file; no text in here ever shows what is in it (R11)."""
        option = "mqtt_password_file"
        try:
            # Before it is opened: opening a pipe waits for whoever writes to it (R1).
            mode = os.stat(path).st_mode
            data = b""
            if stat.S_ISREG(mode):
                with open(path, "rb") as f:
                    data = f.read(MAX_PASSWORD + 3)
        except (OSError, ValueError) as e:
            self._fail(option, path, "the file cannot be read: %s; it holds the password and "
                       "nothing else" % (getattr(e, "strerror", None) or e,))  # fmt: skip
        if not stat.S_ISREG(mode):
            self._fail(option, path, "it is not a file; write the password into one")
        try:
            password = data.decode("utf-8")
        except UnicodeDecodeError:
            password = None  # raised from in here, the error would show a part of it
        if password is None:
            self._fail(option, path, "the file is not UTF-8 text; write the password into it anew")
        if password.endswith("\n"):
            password = password[: -2 if password.endswith("\r\n") else -1]
        if not password:
            self._fail(option, path, "the file is empty; write the password into it")
        if len(password.encode()) > MAX_PASSWORD:
            self._fail(option, path, "the file is too large; it holds only the password")
        if mode & 0o077:
            self.warnings.append(
                "others may read the password in '%s' (%s): run 'chmod 600 %s'"
                % (path, option, path)
            )
        return password

    def _read_tls_files(self, tls):
        files = {
            "ca_file": self._path("mqtt_ca_file"),
            "cert_file": self._path("mqtt_cert_file"),
            "key_file": self._path("mqtt_key_file"),
        }
        for name, path in files.items():
            if path is not None and not tls:
                self._fail("mqtt_" + name, path, "it is for encryption only: add mqtt_tls: True")
        for name, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
            if files[name] is not None and files[other] is None:
                self._fail("mqtt_" + name, files[name], "give mqtt_%s as well" % (other,))
        self.native.update(files)

    def _read_topics(self, firmware):
        if firmware == "stock_mqtt":
            for option in ESPHOME_OPTIONS:
                value = self.config.get(option, None)
                if value is not None:
                    self._fail(option, value, "it is for firmware: esphome; remove it")
        topics = {}
        for role, option in zip(TOPIC_ROLES, TOPIC_OPTIONS):
            topic = self._topic(option)
            if topic is not None:
                topics[role] = topic
        discovery_prefix = self.config.get("mqtt_discovery_prefix", "homeassistant").strip()
        if discovery_prefix:
            self._topic("mqtt_discovery_prefix", "homeassistant", MAX_PREFIX)
        self.native.update(
            climate=self._name("mqtt_climate", "chamber"),
            sensor=self._name("mqtt_sensor", "chamber_temperature"),
            topics=topics,
            discovery_prefix=discovery_prefix,
            foreign_topics=self._read("mqtt_foreign_topics", "boolean", False),
        )


class Pin:
    """What the heater takes for its output: the device regulates by itself, so this is nothing."""

    def __init__(self, mcu):
        self.mcu = mcu

    def get_mcu(self):
        return self.mcu

    def setup_max_duration(self, max_duration):
        pass

    def setup_cycle_time(self, cycle_time, hardware_pwm=False):
        pass

    def set_pwm(self, print_time, value, cycle_time=None):
        pass


class Sensor:
    """One section's view of the device's temperature."""

    def __init__(self, config):
        self.printer = config.get_printer()
        self.name = config.get_name()
        self.min_temp = self.max_temp = None
        self.callback = None

    def setup_minmax(self, min_temp, max_temp):
        self.min_temp, self.max_temp = min_temp, max_temp

    def setup_callback(self, callback):
        self.callback = callback

    def get_report_time_delta(self):
        return REPORT_TIME

    def feed(self, read_time, temp):
        if self.callback is not None:
            self.callback(read_time, temp)
        self.check(temp)

    def check(self, temp):
        # No shutdown below min_temp: a cold chamber, or a table that ends at 10, is no danger.
        if self.max_temp is not None and temp > self.max_temp:
            self.printer.invoke_shutdown(
                "Panda Breath: %s at %.1f C is above its max_temp of %.1f C"
                % (self.name, temp, self.max_temp)
            )


class Source:
    """A sensor of Klipper's that is listened to: chamber_sensor or cutoff_sensor.

    Klipper does not say how old a temperature is. Only Heater.get_temp calls it stale; the status
    of all objects, and get_temp of temperature_sensor and temperature_fan, show the last one for
    ever. A sensor that fails stops calling back (temperature_host, BME280), and a
    temperature_combined goes on calling with what its dead members said last. So what counts is
    when the sensor has called, and each of its members.
    """

    def __init__(self, panda, option, name, path=()):
        self.name = name
        self.reactor = panda.reactor
        self.last = None  # in one piece, because sensors of an MCU call from another thread
        found = panda.printer.lookup_object(name, None)
        listed = self._find(panda.printer, found)
        if listed is None or name in path:
            problem = "there is no such sensor" if found is None else "its age cannot be told"
            self._fail(panda, option, "%s; %s" % (problem, self._choices(panda)))
        if listed.sensor in panda.sensors:
            self._fail(panda, option, "that is the device's own; " + self._choices(panda))
        report_time = listed.sensor.get_report_time_delta()
        if report_time > SLOWEST_SENSOR:
            self._fail(panda, option, "it reports every %g s only; set its report time to %g s or "
                       "less" % (report_time, SLOWEST_SENSOR))  # fmt: skip
        members = getattr(listed.sensor, "sensor_names", ())  # of a temperature_combined
        self.members = [Source(panda, option, member, (*path, name)) for member in members]
        # In place of the method, so that who comes next calls us too.
        self.callback, listed.temperature_callback = listed.temperature_callback, self._hear
        listed.sensor.setup_callback(self._hear)

    @staticmethod
    def _find(printer, found):
        """The object that a sensor calls back: what is found, or whose sensor that is."""
        found = getattr(found, "heater", found)  # [extruder]
        if hasattr(found, "sensor") and hasattr(found, "temperature_callback"):
            return found
        for _, other in printer.lookup_objects() if printer and found else ():
            if getattr(other, "sensor", None) is found and hasattr(other, "temperature_callback"):
                return other
        return None

    def _choices(self, panda):
        heaters = panda.printer.lookup_object("heaters")
        found = [(n, panda.printer.lookup_object(n, None)) for n in heaters.available_sensors]
        names = [n for n, o in found if self._find(None, o) and o is not panda.heater
                 and getattr(o, "sensor", None) not in panda.sensors]  # fmt: skip
        return "choose one of: %s" % (", ".join(names) or "(there are none)",)

    def _fail(self, panda, option, remedy):
        raise panda.printer.config_error(
            "Option '%s' in section '%s' is not valid: '%s'; %s"
            % (option, panda.name, self.name, remedy)
        )

    def _hear(self, read_time, temp):
        self.last = (self.reactor.monotonic(), read_time, float(temp))
        self.callback(read_time, temp)

    def reading(self):
        """What `read` gives, if it is a reading (rule R5)."""
        last = self.read()
        return last if last is not None and PLAUSIBLE[0] <= last[2] <= PLAUSIBLE[1] else None

    def read(self):
        """When the sensor last called, its print time, and what it said; None before that."""
        last = self.last
        for member in self.members:
            other = member.read()
            if last is None or other is None:
                return None
            last = (*min(last[:2], other[:2]), last[2])
        return last


class Desire:
    """What one of Klipper's heaters wants of the device: a warm chamber, or dry filament."""

    def __init__(self, panda, heater, dry):
        self.panda, self.heater, self.dry = panda, heater, dry
        self.short_name = heater.name.split()[-1]
        self.target = 0.0  # the last that is known of
        self.control = self.set_temp = self.get_status = None

    def capture(self):
        heater = self.heater
        self.control = heater.control
        self.set_temp, heater.set_temp = heater.set_temp, self._set_temp
        self.get_status, heater.get_status = heater.get_status, self._get_status

    def put(self, degrees):
        """Sets Klipper's target, which is nobody's explicit wish."""
        self.set_temp(degrees)
        self.target = self.heater.target_temp

    def has_moved(self):
        before, self.target = self.target, self.heater.target_temp
        return before != self.target

    def _set_temp(self, degrees):
        # Stands in for the heater's own, so that a change leaves at once.
        self.panda.set_target(self, degrees)

    def _get_status(self, eventtime):
        status = self.get_status(eventtime)
        if self.panda.is_stale(self.dry):
            # As Klipper's own get_temp does: front ends would go on showing the last number.
            status["temperature"] = 0.0
        return status


class PandaBreath:
    def __init__(self, config):
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.gcode = self.printer.lookup_object("gcode")
        self.name = config.get_name()
        self.options = Options(config)
        self._check_unique(config)
        self.native = load_native(config)
        self.mcu = self.printer.lookup_object("mcu")
        self.pin, self.dryer_pin = Pin(self.mcu), Pin(self.mcu)
        self.sensors = []
        self.heater = None
        # What Klipper's heaters want: the chamber's, and the one that dries filament.
        self.warmth = self.dryer = None
        self.chamber = self.cutoff = self.bed = None
        self.chamber_time = 0.0
        # What the driver has brought, and how much of it has been obeyed.
        self.device = self.state = None
        self.armed = False
        self.readings = self.ack = self.obeyed = self.failures = 0
        self.heard = 0  # how much of it had happened when a target was set
        self.hand = 0  # how many targets were set by anybody but follow_bed
        self.is_broken = self.was_stuck = False
        self.pause_deadline = self.wait_deadline = None
        heaters = self.printer.load_object(config, "heaters")
        heaters.add_sensor_factory(self.name, self._make_sensor)
        self.printer.lookup_object("pins").register_chip(self.name, self)
        self.printer.load_object(config, "idle_timeout")
        self._setup_heater(config, "pwm", self.name.split()[-1])
        if self.options.drying_hours is not None:
            self._setup_heater(config, DRYER, self.name.split()[-1] + "_dryer")
        for event in ("connect", "ready", "shutdown", "disconnect"):
            handler = getattr(self, "_handle_" + event)
            self.printer.register_event_handler("klippy:" + event, handler)

    # Configuration

    def _check_unique(self, config):
        options = self.options
        for name, other in self.printer.lookup_objects("panda_breath"):
            if isinstance(other, PandaBreath) and other.options.places & options.places:
                remedy = "every device needs one section"
                if options.place_option != "host":
                    remedy += ", and a mqtt_topic_prefix or mqtt_device_id of its own"
                raise config.error(
                    "Option '%s' in section '%s': [%s] already uses %s; %s"
                    % (options.place_option, self.name, name, options.place, remedy)
                )

    def _make_sensor(self, config):
        sensor = Sensor(config)
        self.sensors.append(sensor)
        return sensor

    def setup_pin(self, pin_type, pin_params):
        pins = self.printer.lookup_object("pins")
        known = {"pwm": self.pin}
        if self.options.drying_hours is not None:
            known[DRYER] = self.dryer_pin
        pin = known.get(pin_params["pin"])
        if pin_type != "pwm" or pin is None:
            raise pins.error(
                "The only pin of [%s] is '%s:pwm', for heater_pin%s"
                % (self.name, self.name, "; with dryer: True also '%s:dry'" % (self.name,))
            )
        if pin_params["invert"]:
            raise pins.error(
                "heater_pin '!%s:%s' must not be inverted" % (self.name, pin_params["pin"])
            )
        return pin

    def _setup_heater(self, config, pin, short_name):
        """Completes a heater's section and the one that watches it, and loads them."""
        # Sections are read once, in the order of the file; what a section adds must be put into
        # the parsed file and loaded here.
        parsed = config.fileconfig
        section = self._find_heater(config, pin)
        mine = section is None
        if mine:
            section = "heater_generic " + short_name
        else:
            short_name = section.split()[-1]
        if not parsed.has_section(section):
            parsed.add_section(section)
        for option in HEATER_OPTIONS:
            value = config.get(option, None)
            if value is None:
                continue
            if pin == DRYER:  # what is written beside it is the chamber's
                if option in DEFAULTS and option != "control":
                    self._set_defaults(parsed, section, {option: value})
                continue
            # SAVE_CONFIG keeps its results in the heater's section: these are nobody's second word.
            if parsed.has_option(section, option) and not self._is_autosaved(section, option):
                raise config.error(
                    "Option '%s' is given in [%s] and in [%s]; remove one of them"
                    % (option, self.name, section)
                )
            if not parsed.has_option(section, option):
                parsed.set(section, option, value)
        if mine:
            self._set_defaults(parsed, section, DEFAULTS)
            own = {"sensor_type": self.name, "heater_pin": "%s:%s" % (self.name, pin)}
            self._set_defaults(parsed, section, own)
        # Klipper objects to a max_delta that its control does not read.
        if parsed.get(section, "control", fallback="").strip() == "watermark":
            self._set_defaults(parsed, section, {"max_delta": MAX_DELTA})
        verify = "verify_heater " + short_name
        if not parsed.has_section(verify):
            parsed.add_section(verify)
        max_error = "%g" % (self.options.max_error(),)
        self._set_defaults(parsed, verify, {"max_error": max_error})
        if self.options.chamber_sensor is not None and pin != DRYER:
            self._set_defaults(parsed, verify, {"hysteresis": CHAMBER_HYSTERESIS})
        self._set_defaults(parsed, verify, VERIFY)
        self._show_section(parsed, section)
        if mine:
            self.printer.load_object(config, section)

    def _find_heater(self, config, pin):
        """The user's own section for this heater, whatever its name."""
        parsed = config.fileconfig
        for section in parsed.sections():
            if parsed.has_option(section, "heater_pin"):
                chip, _, name = parsed.get(section, "heater_pin").rpartition(":")
                if chip.strip() == self.name and (name.strip() == DRYER) == (pin == DRYER):
                    return section
        return None

    def _is_autosaved(self, section, option):
        autosave = self.printer.lookup_object("configfile").autosave.fileconfig
        return autosave.has_option(section, option)

    @staticmethod
    def _set_defaults(parsed, section, defaults):
        for option, value in defaults.items():
            if not parsed.has_option(section, option):
                parsed.set(section, option, value)

    def _show_section(self, parsed, section):
        # KlipperScreen lists the heaters of the raw configuration, which mainline has built before
        # this section was completed.
        raw = getattr(self.printer.lookup_object("configfile"), "status_raw_config", None)
        if isinstance(raw, dict):
            raw.setdefault(section, {}).update(parsed.items(section))

    # Events

    def _handle_connect(self):
        heaters = self.printer.lookup_object("heaters")
        for heater in heaters.heaters.values():
            if heater.mcu_pwm is self.pin:
                self.heater = heater
            elif heater.mcu_pwm is self.dryer_pin:
                self.dryer = Desire(self, heater, True)
        if self.heater is None or (self.dryer is None) != (self.options.drying_hours is None):
            raise self.printer.config_error("[%s]: its heater was not created" % (self.name,))
        if self.options.max_target > self.heater.max_temp:
            raise self.printer.config_error(
                "Option 'max_target' in section '%s' is %d C, above the max_temp of %.1f C of [%s]"
                % (self.name, self.options.max_target, self.heater.max_temp, self.heater.name)
            )
        self.warmth = Desire(self, self.heater, False)
        for desire in self._desires():
            self._warn_at_start(desire)
        if self.printer.get_start_args().get("debugoutput") is not None:
            return  # batch mode: there is no printer and must be no network
        self._find_sources()
        for desire in self._desires():
            desire.capture()
        try:
            self.device = self.native.Device(name=self.name, **self.options.native)
            self.state = self.device.drain(0.0, False, 0)
        except BaseException as e:
            raise self.printer.config_error("[%s] cannot be started: %s" % (self.name, e)) from e
        # Whatever was dropped before this printer existed is not this printer's to report.
        self.ack = self.obeyed = self.state.forced_offs
        self.failures = self.state.failures
        self.readings = self.state.reading_number
        self.reactor.register_timer(self._look, self.reactor.NOW)

    def _find_sources(self):
        options = self.options
        if options.chamber_sensor is not None:
            if self.heater.sensor not in self.sensors:
                raise self.printer.config_error(
                    "Option 'chamber_sensor' in section '%s' gives [%s] its temperature; set its "
                    "sensor_type to: %s" % (self.name, self.heater.name, self.name)
                )
            self.chamber = Source(self, "chamber_sensor", options.chamber_sensor)
        if options.cutoff_sensor is not None:
            self.cutoff = Source(self, "cutoff_sensor", options.cutoff_sensor)
        if options.follow_bed:
            bed = self.printer.lookup_object("heater_bed", None)
            if bed is None:
                raise self.printer.config_error(
                    "Option 'follow_bed' in section '%s' needs a section [heater_bed]; add one or "
                    "remove the option" % (self.name,)
                )
            self.bed = bed.heater

    def _desires(self):
        return [desire for desire in (self.warmth, self.dryer) if desire is not None]

    def _warn_at_start(self, desire):
        for text in () if desire.dry else self.options.warnings:
            self._warn(text)
        short_name = desire.short_name
        if not desire.dry and self.options.on_lost == "pause" and not self._pause_resume():
            self._warn(
                "on_lost: pause needs a [pause_resume] section; without one Klipper shuts down"
            )
        check = self.printer.lookup_object("verify_heater " + short_name, None)
        least = self.options.max_error()
        if check is not None and check.max_error < least:
            self._warn(
                "[verify_heater %s] max_error: %g may shut Klipper down before on_lost acts; "
                "use at least %g, and put the section after [%s]"
                % (short_name, check.max_error, least, self.name)
            )
        # The class is the same on Klipper and Kalico; its name is what can be asked for.
        if type(desire.heater.control).__name__ != "ControlBangBang":
            self._warn("[%s] uses a control other than watermark, which the device ignores: it "
                       "regulates by itself" % (desire.heater.name,))  # fmt: skip

    def _handle_ready(self):
        self.armed = True

    def _handle_shutdown(self):
        self.armed = False
        self._say_wish()

    def _handle_disconnect(self):
        self.armed = False
        if self.device is not None:
            self._call("close")

    def _call(self, method, *args):
        """Calls the driver. A bug in there ends nothing but its usefulness (rule R7)."""
        try:
            return getattr(self.device, method)(*args)
        except BaseException:  # a Rust panic is no Exception
            if not self.is_broken:
                logging.exception("%s: %s failed", self.name, method)
            self.is_broken = True
            return None

    def _surround(self):
        if self.chamber is not None or self.cutoff is not None or self.bed is not None:
            bed = None if self.bed is None else float(self.bed.target_temp)
            self._call("surround", self._sample(self.chamber), self._sample(self.cutoff), bed)

    def _drain(self):
        self._surround()
        self.state = self._call("drain", *self._wish()) or self.state

    def _sample(self, source):
        last = None if source is None else source.read()
        return None if last is None else (last[2], self.reactor.monotonic() - last[0])

    def _is_stuck(self):
        return self._call("is_stuck") or self.is_broken

    # Klipper's wish

    def set_target(self, desire, degrees):
        """Somebody sets a target: of the chamber, or of the dryer."""
        if degrees:
            self._check_target(desire, degrees)
            self.heard = self.state.forced_offs
        before = desire.target
        desire.put(degrees)
        if degrees or before or not desire.dry:  # the dryer's 0 is no word about the chamber
            self.hand += 1
        if degrees:
            self._yield_to(desire)
        if degrees or not any(other.heater.target_temp for other in self._desires()):
            self.ack = self.obeyed  # whoever sets a target knows what was dropped before
        self._say_wish()
        if degrees and desire.dry:
            # Later, because a macro may set the timeout right after the target.
            self.reactor.register_callback(self._warn_of_idle_timeout)

    def _yield_to(self, newest):
        """One device has one target: the newer one wins."""
        for desire in self._desires():
            target = desire.heater.target_temp
            if desire is not newest and target:
                desire.put(0.0)
                self._say(
                    "the target of %.1f C of %s was dropped for %s"
                    % (target, desire.short_name, newest.short_name)
                )

    def _warn_of_idle_timeout(self, eventtime):
        seconds = self.printer.lookup_object("idle_timeout").idle_timeout
        drying = self.options.drying_hours * 3600
        if 0 < seconds < drying:
            self._say(
                "filament dries for %d h, and Klipper's idle_timeout turns all heaters off after "
                "%d s: SET_IDLE_TIMEOUT TIMEOUT=%d"
                % (self.options.drying_hours, seconds, drying + 600)
            )

    def _check_target(self, desire, degrees):
        error = self.printer.command_error
        if desire.dry and not DRYING[0] <= degrees <= DRYING[1]:
            raise error(
                "Requested temperature (%.1f): filament is dried at %d to %d C" % (degrees, *DRYING)
            )
        if not degrees <= self.options.max_target:  # nor anything that is no number
            raise error(
                "Requested temperature (%.1f) is above the max_target of %d C of [%s]"
                % (degrees, self.options.max_target, self.name)
            )
        if desire.heater.control is not desire.control:
            raise error(
                "%s regulates by itself and cannot be calibrated; there is no need to"
                % (self.name,)
            )
        self._drain()
        refusal = self._call("refusal", desire.dry)
        if self._is_stuck():
            raise error("%s: %s" % (self.name, STUCK))
        state = self.state
        if state.link == "error":
            raise error("%s: %s" % (self.name, state.last_error))
        if state.cannot_heat:
            raise error("%s: the device cannot heat: %s" % (self.name, state.fault))
        if state.reading_number == 0 or state.lost:
            why = state.last_error or "no reading yet"
            raise error("%s: %s cannot be reached: %s" % (self.name, self.options.place, why))
        if state.target_limit is not None and degrees > state.target_limit:
            remedy = "set a lower target"
            if state.dialect == "esphome":
                remedy = "raise 'visual: max_temperature' of its climate entity"
            raise error(
                "%s: Requested temperature (%.1f): the device itself takes at most %g C: %s"
                % (self.name, degrees, state.target_limit, remedy)
            )
        if refusal is not None:
            raise error("%s: %s" % (self.name, refusal))
        temperature = state.temperature
        reading = None if self.chamber is None or desire.dry else self.chamber.reading()
        if reading is not None:
            temperature = min(temperature, reading[2])
        if temperature < desire.heater.min_temp:
            raise error(
                "%s reads %.1f C, below its min_temp of %.1f C"
                % (desire.heater.name, temperature, desire.heater.min_temp)
            )

    def _wish(self):
        for desire in self._desires():
            if desire.has_moved():  # Klipper has ways to change a target without set_temp
                self.hand += 1
                if desire.target:
                    self._yield_to(desire)
        dry = self.dryer is not None and bool(self.dryer.target)
        target = self.dryer.target if dry else self.warmth.target
        return target if self.armed else 0.0, self.armed, self.ack, self.hand, dry

    def _say_wish(self):
        if self.device is not None:
            self._surround()  # the bed may have gone off just before
            self._call("want", *self._wish())

    # Once per second

    def _look(self, eventtime):
        self._drain()
        state = self.state
        is_new, self.readings = state.reading_number != self.readings, state.reading_number
        age = state.reading_age
        if is_new and age is not None:  # a driver that began anew counts from 0
            read_time = self.mcu.estimated_print_time(eventtime - age)
            for sensor in self.sensors:
                if self.chamber is not None and sensor is self.heater.sensor:
                    sensor.check(state.temperature)
                else:
                    sensor.feed(read_time, state.temperature)
        if self.chamber is not None:
            self._feed_chamber()
        for text in self._call("events") or ():
            self._say(text)
        if state.forced_offs != self.obeyed:
            before, self.obeyed = self.obeyed, state.forced_offs
            failed = state.failures != self.failures
            self.failures = state.failures
            alone = self.dryer is not None and state.forced_offs == before + 1
            if state.dried and alone:
                self._has_dried(state.forced_off)
            else:
                self._target_dropped(eventtime, state.forced_off, failed)
        elif state.follow is not None:
            self._follow(*state.follow)
        if self._is_stuck():
            if not self.was_stuck:
                self.was_stuck = True
                self.hand += 1  # the driver does not know of this one, and follow_bed would go on
                self._target_dropped(eventtime, STUCK, True)
        else:
            self.was_stuck = False
        if self.ack != self.obeyed and not self._is_printing(eventtime):  # on_lost: warn
            self._target_dropped(eventtime, "nothing prints any more", False)
        if self.pause_deadline is not None and eventtime >= self.pause_deadline:
            self.pause_deadline = None
            if not self._is_paused(eventtime):
                self._shut_down("PAUSE could not begin within %g s" % (self.options.pause_timeout,))
        if self.wait_deadline is not None and eventtime >= self.wait_deadline:
            self.wait_deadline = None
            self._say(
                "G-code is still in the same command after %g s; if it waits for the chamber "
                "(M191, TEMPERATURE_WAIT), only M112 ends that, or HEATER_INTERRUPT in Kalico"
                % (self.options.pause_timeout,)
            )
        return eventtime + REPORT_TIME

    def _feed_chamber(self):
        """Gives the heater the chamber's reading, once, and only while the device is there."""
        reading = self.chamber.reading()
        if reading is None or reading[0] == self.chamber_time or self._is_device_stale():
            return
        self.chamber_time, read_time, temperature = reading
        self.heater.sensor.feed(read_time, temperature)

    def _follow(self, degrees, hand):
        """Sets what follow_bed asks for, unless somebody has set another target meanwhile."""
        if not self.armed or hand != self.hand or degrees == self.heater.target_temp:
            return
        try:
            if degrees:
                self._check_target(self.warmth, degrees)
            self.warmth.put(degrees)
        except self.printer.command_error as e:
            self.hand += 1
            self._say("follow_bed has to wait until the bed has been off: %s" % (e,))
        self._say_wish()

    def _has_dried(self, why):
        """The hours are over. What was set meanwhile, for the chamber or to dry on, stays."""
        if self.heard != self.obeyed:
            self.dryer.put(0.0)
        self.ack = self.obeyed
        self._say_wish()
        self._say(why)

    def _target_dropped(self, eventtime, why, failed):
        """The device is being turned off against Klipper's wish; Klipper follows."""
        desire = max(self._desires(), key=lambda desire: desire.heater.target_temp)
        target = desire.heater.target_temp
        on_lost = self.options.on_lost
        printing = failed and self.armed and self._is_printing(eventtime)
        if printing and target and on_lost == "warn" and why != STUCK:
            # The target stays, without effect, so that verify_heater sees what is missing.
            self._say("%s. The heater is off; verify_heater will end the print" % (why,))
            return
        desire.put(0.0)
        self.ack = self.obeyed
        self._say_wish()
        if not target:
            self._say(why)
            return
        self._say(
            "%s. Its target of %.1f C was dropped; to set it again: "
            "SET_HEATER_TEMPERATURE HEATER=%s TARGET=%g" % (why, target, desire.short_name, target)
        )
        if not printing or on_lost == "warn":
            self.wait_deadline = eventtime + self.options.pause_timeout
            self.reactor.register_callback(self._wait_for_turn)
            return
        if on_lost == "pause" and self._pause_resume():
            if self.pause_deadline is None:
                self.pause_deadline = eventtime + self.options.pause_timeout
                # In a callback, because a G-code command may be holding things up.
                self.reactor.register_callback(self._pause)
        else:
            self._shut_down(why)

    def _wait_for_turn(self, eventtime):
        with self.gcode.get_mutex():
            self.wait_deadline = None

    def _pause(self, eventtime):
        sdcard = self.printer.lookup_object("virtual_sdcard", None)
        from_file = sdcard is not None and sdcard.is_active()
        try:
            self._pause_resume().send_pause_command()
            with self.gcode.get_mutex():
                if self.pause_deadline is None:
                    return
                self.pause_deadline = None
                eventtime = self.reactor.monotonic()
                # Other commands had their turn meanwhile, and PAUSE moves the head.
                if self._is_paused(eventtime) or (from_file and self._has_ended(eventtime)):
                    return
                self.gcode.run_script_from_command("PAUSE")
        except Exception as e:
            logging.exception("%s: PAUSE failed", self.name)
            self._shut_down("PAUSE failed: %s" % (e,))

    def _has_ended(self, eventtime):
        """Whether the file that was stopped had nothing left, or was given up."""
        state = self.printer.lookup_object("print_stats").get_status(eventtime)["state"]
        file = self.printer.lookup_object("virtual_sdcard").get_status(eventtime)
        if state == "paused" and file["file_position"] >= file["file_size"]:
            self._pause_resume().send_resume_command()  # it has yet to find its own end
            return True
        return state not in ("paused", "printing")

    def _shut_down(self, why):
        self.printer.invoke_shutdown("%s: %s" % (self.name, why))

    def _is_printing(self, eventtime):
        idle_timeout = self.printer.lookup_object("idle_timeout")
        state = idle_timeout.get_status(eventtime)["state"]
        # Any G-code makes it "Printing", in a paused print too; there nothing is to be paused.
        return state == "Printing" and not self._is_paused(eventtime)

    def _is_paused(self, eventtime):
        pause_resume = self._pause_resume()
        return pause_resume is not None and pause_resume.get_status(eventtime)["is_paused"]

    def _pause_resume(self):
        return self.printer.lookup_object("pause_resume", None)

    # What people see

    def _say(self, text):
        # In a callback, because what Klipper does with a line may wait for another thread (R1).
        line = "%s: %s" % (self.name, text)
        self.reactor.register_callback(lambda eventtime: self.gcode.respond_info(line))

    def _warn(self, text):
        configfile = self.printer.lookup_object("configfile")
        warn = getattr(configfile, "runtime_warning", None)
        if warn is not None:
            warn("%s: %s" % (self.name, text))  # shows and logs it
        else:
            logging.warning("%s: %s", self.name, text)

    def _is_device_stale(self):
        age = None if self.state is None else self.state.reading_age
        return age is None or age > self.options.stale_after

    def is_stale(self, dry=False):
        """Whether the heater's temperature is: the device's, or the chamber's as well."""
        if self._is_device_stale():
            return True
        if self.chamber is None or dry:
            return False
        reading = self.chamber.reading()
        age = None if reading is None else self.reactor.monotonic() - reading[0]
        return age is None or age > self.options.stale_after

    def get_status(self, eventtime):
        state = self.state
        stale = self.is_stale()
        own = None if state is None or self._is_device_stale() else state.temperature
        temperature = None if stale else own
        if self.chamber is not None and not stale:
            reading = self.chamber.reading()  # by now, the next one may be absurd
            temperature = None if reading is None else reading[-1]
        status = {
            "temperature": temperature,
            "device_temperature": own,
            "target": 0.0 if self.heater is None else self.heater.target_temp,
            "stale": stale,
            "dialect": (state and state.dialect) or self.options.dialect,
        }
        if state is None:
            status.update(dict.fromkeys(STATE_FIELDS))
            status.update(link="pending", external_off=False, reconnects=0, fault=False, boost=0)
            status["fault_reason"] = None
            return status
        for field in STATE_FIELDS:
            status[field] = getattr(state, field)
        status["fault"] = state.fault is not None
        status["fault_reason"] = state.fault
        return status


STATE_FIELDS = (
    "boost, device_id, device_on, device_target, drying, external_off, firmware_version, "
    "last_error, link, mode, reading_age, reconnects, remaining_seconds"
).split(", ")


def load_config(config):
    return PandaBreath(config)


def load_config_prefix(config):
    return PandaBreath(config)
