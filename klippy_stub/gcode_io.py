"""G-code from a file descriptor, answers to another (klippy/gcode.py, GCodeIO).

klippy reads a pseudo-terminal; here it is stdin and stdout. An M112 that arrives while a command
waits is seen at once, before the commands queued in front of it.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

logger = logging.getLogger(__name__)

MAX_PENDING = 20


class GCodeIO:
    """Feeds lines to the gcode object. Start arguments: gcode_fd, gcode_out_fd, exit_at_eof."""

    m112_r = re.compile(r"^(?:[nN][0-9]+)?\s*[mM]112(?:\s|$)")

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self.gcode = printer.lookup_object("gcode")
        self.gcode_mutex = self.gcode.get_mutex()
        self.reactor = printer.get_reactor()
        args = printer.get_start_args()
        self.fd: int | None = args.get("gcode_fd")
        self.out_fd: int | None = args.get("gcode_out_fd", self.fd)
        self.exit_at_eof = bool(args.get("exit_at_eof"))
        self.fd_handle: Any = None
        self.at_eof = False
        self.is_processing_data = False
        self.is_printer_ready = False
        # Survives a RESTART: lines already read from the pipe belong to the next printer
        self.backlog: dict[str, Any] = args.setdefault(
            "gcode_backlog", {"partial": "", "lines": []}
        )
        self.pending_commands: list[str] = self.backlog["lines"]
        self.backlog["lines"] = []
        self.bytes_read = 0
        if self.out_fd is not None:
            self.gcode.register_output_handler(self._respond_raw)
        if self.fd is not None:
            printer.register_event_handler("klippy:disconnect", self._handle_disconnect)
            self.reactor.register_callback(self._start)

    def _start(self, eventtime: float) -> None:
        # Comes after Printer._connect, which was registered first
        assert self.fd is not None
        if self.backlog.get("eof"):
            self.at_eof = True
        else:
            self.fd_handle = self.reactor.register_fd(self.fd, self._process_data)
        self._process_pending()

    def _handle_disconnect(self) -> None:
        self._stop_reading()
        self.backlog["lines"] = self.pending_commands
        self.backlog["eof"] = self.at_eof

    def _stop_reading(self) -> None:
        if self.fd_handle is not None:
            self.reactor.unregister_fd(self.fd_handle)
            self.fd_handle = None

    def _process_data(self, eventtime: float) -> None:
        assert self.fd is not None
        try:
            data = os.read(self.fd, 4096).decode()
        except BlockingIOError:
            return
        except (OSError, UnicodeDecodeError):
            logger.exception("Read g-code")
            return
        self.bytes_read += len(data)
        lines = (self.backlog["partial"] + data).split("\n")
        self.backlog["partial"] = lines.pop()
        if not data:
            self.at_eof = True
            self._stop_reading()
            if self.backlog["partial"]:
                lines.append(self.backlog["partial"])
                self.backlog["partial"] = ""
        self.pending_commands.extend(lines)
        if len(self.pending_commands) < MAX_PENDING and any(map(self.m112_r.match, lines)):
            self.gcode.cmd_M112(None)
        if self.is_processing_data:
            if len(self.pending_commands) >= MAX_PENDING:
                self._stop_reading()
            return
        self._process_pending()

    def _process_pending(self) -> None:
        self.is_processing_data = True
        while self.pending_commands and self.printer.run_result is None:
            batch, self.pending_commands = self.pending_commands, []
            with self.gcode_mutex:  # for all lines that are there, as in klippy
                while batch and self.printer.run_result is None:
                    self.gcode._process_commands([batch.pop(0)])
            # klippy loses what stands behind a RESTART; a script on stdin should go on
            self.pending_commands = batch + self.pending_commands
        self.is_processing_data = False
        if self.printer.run_result is not None:
            return
        if self.at_eof:
            if self.exit_at_eof:
                self.printer.request_exit("exit")
        elif self.fd_handle is None:
            self.fd_handle = self.reactor.register_fd(self.fd, self._process_data)

    def _respond_raw(self, msg: str) -> None:
        assert self.out_fd is not None
        try:
            os.write(self.out_fd, (msg + "\n").encode())
        except OSError:
            logger.exception("Write g-code response")

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Return the log's word on input."""
        return False, f"gcodein={self.bytes_read}"


def add_early_printer_objects(printer: Any) -> None:
    """Add what exists before the configuration is read."""
    printer.add_object("gcode_io", GCodeIO(printer))
