"""A scripted panda_breath_native: what the driver would say is written down by the test.

Small real classes with the names and signatures of `_core.pyi` (test_shim_fake.py compares them),
on the clock of the printer under test. As strict as the real thing about types, and a `Session`
outlives the printer as it does there.
"""

from __future__ import annotations

import dataclasses
import types
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, TypedDict

INTERFACE = 4
VERSION = "0.1.0"


class Mqtt(TypedDict):
    """The way to a device that is behind a broker."""

    dialect: str
    prefix: str | None
    device_id: str | None
    climate: str
    sensor: str
    topics: dict[str, str]
    discovery_prefix: str
    foreign_topics: bool
    username: str | None
    password: str | None
    tls: bool
    ca_file: str | None
    cert_file: str | None
    key_file: str | None


class Guard(TypedDict):
    """What the guard is to know."""

    log: str | None
    retry: float


Sample = tuple[float, float]


@dataclass
class State:
    """What is known about a device. `clock` and `read_at` make the reading's age."""

    link: str = "connected"
    reading_number: int = 0
    temperature: float | None = None
    lost: bool = False
    device_on: bool | None = None
    device_target: float | None = None
    boost: int = 0
    follow: tuple[float, int] | None = None
    target_limit: float | None = None
    dialect: str | None = None
    mode: str | None = None
    drying: bool | None = None
    remaining_seconds: float | None = None
    firmware_version: str | None = None
    device_id: str | None = None
    fault: str | None = None
    cannot_heat: bool = False
    external_off: bool = False
    forced_offs: int = 0
    failures: int = 0
    forced_off: str | None = None
    dried: bool = False
    reconnects: int = 0
    ignored: int = 0
    off_known: bool = False
    last_error: str | None = None
    clock: Callable[[], float] = field(default=lambda: 0.0, repr=False)
    read_at: float | None = None

    @property
    def reading_age(self) -> float | None:
        """Grows after the drain too, as in the wheel."""
        return None if self.read_at is None else self.clock() - self.read_at


@dataclass(frozen=True)
class Wish:
    """One call of `want` or `drain`."""

    call: str
    target: float
    armed: bool
    ack: int
    at: float
    hand: int = 0
    dry: bool = False


class Session:
    """The driver's side of one device: the test's hand moves it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.state = State(clock=clock)
        self.lines: list[str] = []
        self.stuck = False
        self.wishes: list[Wish] = []
        # What the sensors said, with each drain; and why they allow no target.
        self.around: list[tuple[Sample | None, Sample | None]] = []
        self.bed: float | None = None
        self.refusal: str | None = None
        # Raised by every method that the shim calls: a bug in the compiled code.
        self.bug: BaseException | None = None
        # Called before each drain is answered.
        self.before_drain: Callable[[], None] = lambda: None

    def read(self, temperature: float, age: float = 0.0) -> None:
        """A live reading arrives, or arrived a while ago."""
        self.state.temperature = temperature
        self.state.read_at = self.clock() - age
        self.state.reading_number += 1
        self.state.lost = False

    def force_off(self, why: str, failure: bool = True) -> None:
        """Drops Klipper's target: by itself, or for somebody who chose to."""
        self.state.forced_offs += 1
        self.state.failures += failure
        self.state.forced_off = why
        self.state.external_off = not failure

    def lose(self, why: str = "no reading from 192.168.1.50 for 120 s") -> None:
        """Nothing was heard for `lost_after`."""
        self.state.lost = True
        self.state.link = "reconnecting"
        self.force_off(why)

    @property
    def wish(self) -> Wish:
        """What the driver was told last."""
        return self.wishes[-1]

    @property
    def heat(self) -> float:
        """What the real session would let the device heat to, by rule R3; 0 is off."""
        wish = self.wish
        heats = wish.armed and wish.target > 0.0 and wish.ack == self.state.forced_offs
        return wish.target if heats else 0.0

    def wants(self) -> list[Wish]:
        """What was said outside of the regular looks."""
        return [wish for wish in self.wishes if wish.call == "want"]

    def take(self, call: str, target: float, armed: bool, ack: int, hand: int, dry: bool) -> None:
        """Notes a wish; PyO3 would refuse other types too."""
        if self.bug is not None:
            raise self.bug
        types = (type(armed), type(ack), type(hand), type(dry))
        if type(target) not in (float, int) or types != (bool, int, int, bool):
            raise TypeError(f"{call}({target!r}, {armed!r}, {ack!r}, {hand!r}, {dry!r})")
        self.wishes.append(Wish(call, target, armed, ack, self.clock(), hand, dry))


class Driver:
    """What all devices of the process have in common; a RESTART leaves it alone."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = lambda: 0.0
        self.sessions: dict[str, Session] = {}
        self.opened: list[Device] = []
        self.opening: Callable[[Session], None] = lambda session: None

    def session(self, address: str = "192.168.1.50:80") -> Session:
        """The session of the device at this address, which exists before the first printer."""
        if address not in self.sessions:
            self.sessions[address] = Session(lambda: self.clock())
        return self.sessions[address]

    def module(self, interface: int = INTERFACE, version: str = VERSION) -> types.ModuleType:
        """What `import panda_breath_native` gives."""
        module = types.ModuleType("panda_breath_native", "scripted by a test")
        device = type("Device", (Device,), {"driver": self})
        contents = {"INTERFACE": interface, "__version__": version, "Device": device}
        vars(module).update(contents, State=State, main=main)
        return module


class Device:
    """The handle that the shim holds."""

    driver: ClassVar[Driver]

    def __init__(
        self,
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
        follow: list[tuple[float, float]] = [],  # noqa: B006
        drying_hours: int = 6,
        mqtt: Mqtt | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.options: dict[str, Any] = {
            key: value for key, value in locals().items() if key != "self"
        }
        for option in ("chamber", "cutoff", "follow", "mqtt", "guard"):
            if self.options[option] in (None, []):
                del self.options[option]
        if drying_hours == 6:  # whether or not it was said
            del self.options["drying_hours"]
        if mqtt is not None and set(mqtt) != set(Mqtt.__annotations__):
            raise ValueError(f"mqtt: {sorted(mqtt)}")
        if guard is not None and set(guard) != set(Guard.__annotations__):
            raise ValueError(f"guard: {sorted(guard)}")
        prefix = mqtt["prefix"] if mqtt else None
        self.session = self.driver.session(f"{host}:{port}" + (f"/{prefix}" if prefix else ""))
        self.closed = 0
        self.driver.opened.append(self)
        self.driver.opening(self.session)

    def want(self, target: float, armed: bool, ack: int, hand: int = 0, dry: bool = False) -> None:
        """Says what Klipper wants."""
        self.session.take("want", target, armed, ack, hand, dry)

    def drain(
        self, target: float, armed: bool, ack: int, hand: int = 0, dry: bool = False
    ) -> State:
        """The same, and what is known."""
        self.session.before_drain()
        self.session.take("drain", target, armed, ack, hand, dry)
        return dataclasses.replace(self.session.state)

    def surround(
        self,
        chamber: tuple[float, float] | None,
        cutoff: tuple[float, float] | None,
        bed: float | None = None,
    ) -> None:
        """Notes what the sensors say; PyO3 would refuse other types too."""
        if self.session.bug is not None:
            raise self.session.bug
        for sample in (chamber, cutoff):
            if sample is not None and not (
                type(sample) is tuple and [type(value) for value in sample] == [float, float]
            ):
                raise TypeError(f"surround({chamber!r}, {cutoff!r})")
        if bed is not None and type(bed) is not float:
            raise TypeError(f"surround(bed={bed!r})")
        self.session.around.append((chamber, cutoff))
        self.session.bed = bed

    def refusal(self, dry: bool = False) -> str | None:
        """What the test says."""
        if self.session.bug is not None:
            raise self.session.bug
        return self.session.refusal

    def events(self) -> list[str]:
        """The lines since the last call."""
        if self.session.bug is not None:
            raise self.session.bug
        lines, self.session.lines = self.session.lines, []
        return lines

    def is_stuck(self) -> bool:
        """Whether the driver has stopped."""
        return self.session.stuck

    def close(self) -> None:
        """Lets go."""
        if self.session.bug is not None:
            raise self.session.bug
        self.closed += 1


def main() -> int:
    """Not used by the shim."""
    raise NotImplementedError
