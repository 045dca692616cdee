"""Private MQTT brokers for a test or the demo: mosquitto processes on free loopback ports.

    with Broker(folder, Access.TLS) as broker: ...

Nothing of it outlives the process that started it, if that ends in order; what is killed as a group
dies as one.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from enum import Enum
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
USERNAME = "klipper"
PASSWORD = "a secret: no one's business"
PROGRAMS = ("mosquitto", "mosquitto_passwd", "mosquitto_pub", "openssl")
INSTALL = "Debian, Ubuntu, Raspberry Pi OS: sudo apt install mosquitto mosquitto-clients openssl"
LIMIT = 30.0  # s that anything may take; only a failure waits so long
ATTEMPTS = 5  # another program may take a free port before mosquitto does
POLL = 0.01  # s


class BrokerError(Exception):
    """The broker does not run, and what it said."""


class Access(Enum):
    """Whom a broker lets in."""

    ANYONE = "everybody"
    PASSWORD = "those who know the password"
    TLS = "the same, encrypted"
    CERTIFICATE = "those with a certificate, encrypted"


def program(name: str) -> str | None:
    """Where a program is; Debian keeps brokers where only root looks."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=os.pathsep.join([path, "/usr/sbin", "/usr/local/sbin"]))


def missing() -> str | None:
    """What has to be installed before a broker can run, in words; None if nothing."""
    names = [name for name in PROGRAMS if program(name) is None]
    return f"not installed: {', '.join(names)} ({INSTALL})" if names else None


def need_broker() -> None:
    """Skip the test where no broker can run; where everything has to be tested, fail."""
    import pytest

    why = missing()
    if why is not None and os.environ.get("CI") == "true":
        pytest.fail(f"{why}; with CI=true nothing may be skipped", pytrace=False)
    if why is not None:
        pytest.skip(why)


class Certificates:
    """A private authority, a certificate of its for this machine and one for a client.

    * `ca`: the authority
    * `server`: for localhost and 127.0.0.1
    * `client`: for whoever connects
    * `other-ca`: an authority that has signed nothing here
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if self.certificate("other-ca").exists():  # made last
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._make_ca("ca")
        names = f"subjectAltName=DNS:localhost,IP:{HOST}\n"
        self._make_signed("server", names + "extendedKeyUsage=serverAuth\n")
        self._make_signed("client", "extendedKeyUsage=clientAuth\n")
        self._make_ca("other-ca")

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _make_ca(self, name: str) -> None:
        self._openssl(
            f"req -x509 {NEW_KEY} -days 3650 -subj /CN={name}"
            " -addext basicConstraints=critical,CA:TRUE"
            f" -addext keyUsage=critical,keyCertSign,cRLSign -keyout {name}.key -out {name}.pem"
        )

    def _make_signed(self, name: str, extensions: str) -> None:
        (self.folder / f"{name}.ext").write_text(extensions + "basicConstraints=CA:FALSE\n")
        self._openssl(f"req {NEW_KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        self._openssl(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650"
            f" -extfile {name}.ext -out {name}.pem"
        )

    def _openssl(self, arguments: str) -> None:
        _run(self.folder, "openssl", *arguments.split())


NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Broker:
    """A running broker."""

    def __init__(self, folder: Path, access: Access = Access.ANYONE, keeps: bool = False) -> None:
        """`keeps`: what it retains survives that it is stopped."""
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.access = access
        self.keeps = keeps
        self.host = HOST
        self.port = 0
        self.plain_port = 0  # the same, unless that is encrypted; then this takes the password
        self.log_path = self.folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        if access is not Access.ANYONE:
            _run(self.folder, "mosquitto_passwd", "-b", "-c", "passwords", USERNAME, PASSWORD)
        if self._is_encrypted:
            self.certificates = Certificates(self.folder)
        for _ in range(ATTEMPTS):
            self.port = self.plain_port = _free_port()
            if self._is_encrypted:
                self.plain_port = _free_port()
            self._configure()
            if self._launch():
                return
        raise BrokerError(self._report("mosquitto does not start"))

    @property
    def url(self) -> str:
        """For `panda-breath simulate --broker`, which knows no TLS."""
        login = ""
        if self.access is not Access.ANYONE:
            login = f"{USERNAME}:{''.join(f'%{byte:02x}' for byte in PASSWORD.encode())}@"
        return f"mqtt://{login}{self.host}:{self.plain_port}"

    # Its life

    def start(self) -> None:
        """Start it again where it was."""
        if self._process is not None:
            raise BrokerError("the broker runs already")
        deadline = time.monotonic() + LIMIT
        while not self._launch():
            if time.monotonic() > deadline:
                raise BrokerError(self._report("mosquitto does not start again"))

    def stop(self) -> None:
        """End it in order: every client's last will is sent, and then every connection closed."""
        self._signal(signal.SIGTERM)
        self._bury()

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self._signal(signal.SIGKILL)
        self._bury()

    def freeze(self) -> None:
        """Hold it in the middle of what it does; the kernel goes on to take bytes for it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None:
            self.kill()

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Its clients

    def publish(self, topic: str, payload: str, retain: bool = False) -> None:
        """Publish something, as another client."""
        arguments = ["-h", self.host, "-p", str(self.plain_port), "-t", topic, "-m", payload]
        if retain:
            arguments.append("-r")
        if self.access is not Access.ANYONE:
            arguments += ["-u", USERNAME, "-P", PASSWORD]
        _run(self.folder, "mosquitto_pub", *arguments)

    def log(self) -> str:
        """What it has said."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # Below

    def _configure(self) -> None:
        lines = [
            "user root",  # else it could not read a private key; ignored for any other user
            "log_dest stderr",
            "log_type all",
            f"persistence {str(self.keeps).lower()}",
            f"persistence_location {self.folder}/",
            f"allow_anonymous {str(self.access is Access.ANYONE).lower()}",
        ]
        if self.access is not Access.ANYONE:
            lines.append(f"password_file {self.folder}/passwords")
        lines.append(f"listener {self.plain_port} {self.host}")
        if self._is_encrypted:
            lines += [
                f"listener {self.port} {self.host}",
                f"cafile {self.certificates.certificate('ca')}",
                f"certfile {self.certificates.certificate('server')}",
                f"keyfile {self.certificates.key('server')}",
            ]
        if self.access is Access.CERTIFICATE:
            lines += ["require_certificate true", "use_identity_as_username true"]
        self._config_path.write_text("\n".join([*lines, ""]))

    @property
    def _is_encrypted(self) -> bool:
        return self.access in (Access.TLS, Access.CERTIFICATE)

    @property
    def _config_path(self) -> Path:
        return self.folder / "mosquitto.conf"

    def _launch(self) -> bool:
        """Start it and wait until it runs; False if it ends instead."""
        mosquitto = program("mosquitto")
        if mosquitto is None:
            raise BrokerError(missing() or "mosquitto is not installed")
        begin = len(self.log())
        with self.log_path.open("ab") as log:
            # In our process group: what ends that ends the broker too.
            process = subprocess.Popen(
                [mosquitto, "-c", str(self._config_path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._process = process
        deadline = time.monotonic() + LIMIT
        # Said once it listens and has read its keys.
        while " running\n" not in self.log()[begin:]:
            if process.poll() is not None or time.monotonic() > deadline:
                self.close()
                return False
            time.sleep(POLL)
        return True

    def _signal(self, number: int) -> None:
        if self._process is None:
            raise BrokerError("the broker does not run")
        self._process.send_signal(number)

    def _bury(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _report(self, message: str) -> str:
        return "\n".join([message, *self.log().splitlines()[-10:]])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


def _run(folder: Path, name: str, *arguments: str) -> None:
    """Run a program that has to succeed."""
    path = program(name)
    if path is None:
        raise BrokerError(missing() or f"{name} is not installed")
    done = subprocess.run(
        [path, *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise BrokerError(f"{name} failed with code {done.returncode}: {done.stderr.strip()}")
