"""One background thread looks after all devices of the process.

No method here waits for anything: not for the network, not for a lock, not for a thread. Times
are seconds, temperatures C. ``None`` means that it is not known.
"""

from typing import TypedDict, final, type_check_only

__all__ = ["INTERFACE", "Device", "State", "__version__", "_guard", "main"]

INTERFACE: int
"""Changes when the Klipper module and the wheel would no longer understand each other."""

__version__: str

@type_check_only
class Mqtt(TypedDict):
    """The way to a device that is behind a broker. All keys are needed; None: not given."""

    dialect: str
    """"esphome", "stock_mqtt", or "auto": whichever speaks first."""
    prefix: str | None
    """First levels of its topics; None: the dialect's default, with "auto" those of both."""
    device_id: str | None
    """stock_mqtt: 12 hexadecimal digits; esphome: the node's name, where it is not the prefix."""
    climate: str
    """esphome: object id of the climate entity."""
    sensor: str
    """esphome: object id of the chamber temperature sensor."""
    topics: dict[str, str]
    """esphome: topics that are elsewhere, by the role in the option ``mqtt_ROLE_topic``."""
    discovery_prefix: str
    """esphome: where the discovery messages are; empty: not looked at."""
    foreign_topics: bool
    """esphome: whether discovery may name command topics outside of the prefix."""
    username: str | None
    password: str | None
    """Never shown again, in no error and no log."""
    tls: bool
    ca_file: str | None
    """Whose certificates are believed; None: those of the system."""
    cert_file: str | None
    key_file: str | None

@type_check_only
class Guard(TypedDict):
    """The process that turns the device off when this one is killed or stands still."""

    log: str | None
    """Where it writes what it did; None: nowhere."""
    retry: float
    """How long it tries to turn off a device that cannot be reached."""

@final
class Device:
    """A device to look after. Dropping it closes it."""

    def __new__(
        cls,
        *,
        name: str,
        host: str,
        port: int,
        device_id: str | None,
        max_target: int,
        stale_after: float,
        lost_after: float,
        lease: float,
        on_external_off: str,
        on_external_on: str,
        chamber: tuple[str, int] | None = None,
        cutoff: tuple[str, float] | None = None,
        follow: list[tuple[float, float]] = ...,
        drying_hours: int = 6,
        mqtt: Mqtt | None = None,
        guard: Guard | None = None,
    ) -> Device:
        """Starts to look after the device, or takes it over from the printer before a RESTART.

        ``name``: the section's name, for messages. ``device_id``: its last 4 digits, or None for
        whichever answers first. ``on_external_off``: "accept" or "reassert"; ``on_external_on``:
        "off" or "allow". ``chamber``: the sensor to regulate by and the highest boost in degrees;
        ``cutoff``: the sensor that limits, and where; both by full name, for messages, and both
        say what they read through ``surround``. ``follow``: targets of the bed, rising, and what
        each makes of the chamber's. ``drying_hours``: how long filament is dried. With ``mqtt``,
        ``host`` and ``port`` are the broker's, and the files of its encryption are read here.
        Raises ValueError for an option that makes no sense or a file that cannot be used, OSError
        when the system has no thread or descriptor left.
        """
    def want(self, target: float, armed: bool, ack: int, hand: int = 0, dry: bool = False) -> None:
        """Says what Klipper wants: the latest counts, and leaves at once.

        ``target``: 0 is off. ``armed``: Klipper is ready and not in shutdown. ``ack``: the
        ``State.forced_offs`` that has been obeyed; a wish that does not know the newest is off.
        ``hand``: how many targets were set by anybody but ``State.follow``. ``dry``: the target is
        for filament, for ``drying_hours``.
        """
    def drain(
        self, target: float, armed: bool, ack: int, hand: int = 0, dry: bool = False
    ) -> State:
        """The same, once per second; renews the lease, and returns what is known."""
    def surround(
        self,
        chamber: tuple[float, float] | None,
        cutoff: tuple[float, float] | None,
        bed: float | None = None,
    ) -> None:
        """Says what Klipper's sensors say: temperature, and age in seconds, of the last reading.

        However old it is; None: there was none since this printer is there. ``bed``: the target of
        the heated bed. A wish that is said afterwards is looked at after it.
        """
    def refusal(self, dry: bool = False) -> str | None:
        """Why these sensors allow no target above 0 now, by what ``surround`` has said."""
    def events(self) -> list[str]:
        """The lines for people since the last call, oldest first."""
    def is_stuck(self) -> bool:
        """Whether the background thread has not turned for 5 s."""
    def close(self) -> None:
        """Lets go: the device is turned off, and forgotten when that is confirmed."""

@final
class State:
    """What is known about a device, at the time of ``Device.drain``."""

    @property
    def link(self) -> str:
        """pending, connecting, connected, reconnecting or error."""
    @property
    def reading_number(self) -> int:
        """Counts live readings; 0 before the first."""
    @property
    def temperature(self) -> float | None:
        """The newest live reading."""
    @property
    def reading_age(self) -> float | None:
        """How old that reading is now."""
    @property
    def lost(self) -> bool:
        """No live reading for ``lost_after``."""
    @property
    def device_on(self) -> bool | None: ...
    @property
    def device_target(self) -> float | None: ...
    @property
    def boost(self) -> int:
        """How much the device's target is above Klipper's, for the sensor in the chamber."""
    @property
    def follow(self) -> tuple[float, int] | None:
        """What Klipper's target is to become for the bed, if ``hand`` is still this number."""
    @property
    def target_limit(self) -> float | None:
        """The highest target that the device says it takes."""
    @property
    def dialect(self) -> str | None:
        """stock, stock_mqtt or esphome, once that is known."""
    @property
    def mode(self) -> str | None:
        """auto, on or drying."""
    @property
    def drying(self) -> bool | None: ...
    @property
    def remaining_seconds(self) -> float | None: ...
    @property
    def firmware_version(self) -> str | None: ...
    @property
    def device_id(self) -> str | None:
        """The last 4 digits of the device's identity."""
    @property
    def fault(self) -> str | None:
        """What is wrong with the device, in words."""
    @property
    def cannot_heat(self) -> bool:
        """As long as the fault lasts, the device cannot or must not heat."""
    @property
    def external_off(self) -> bool: ...
    @property
    def forced_offs(self) -> int:
        """How many times a target was dropped against Klipper's wish."""
    @property
    def failures(self) -> int:
        """How many of these nobody chose, so that ``on_lost`` applies."""
    @property
    def forced_off(self) -> str | None:
        """Why the last one was, in words."""
    @property
    def dried(self) -> bool:
        """The last one was the end of the hours, and drying has succeeded."""
    @property
    def reconnects(self) -> int: ...
    @property
    def ignored(self) -> int:
        """Messages or fields of the device that meant nothing."""
    @property
    def off_known(self) -> bool:
        """The device has confirmed that it is off."""
    @property
    def last_error(self) -> str | None: ...

def _guard(arguments: list[str]) -> int:
    """The whole life of a guard's process, which ``Device`` starts; returns its exit status."""

def main() -> int:
    """The ``panda-breath`` command: reads ``sys.argv``, returns the exit status."""
