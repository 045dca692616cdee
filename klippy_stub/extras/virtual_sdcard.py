"""[virtual_sdcard]: print a file, line by line (klippy/extras/virtual_sdcard.py).

Runs in a reactor timer of its own and steps aside whenever somebody else holds the G-code mutex.
An error in a command ends the print and turns the heaters off.
"""

from __future__ import annotations

import logging
import os
from typing import Any

logger = logging.getLogger(__name__)


class VirtualSD:
    """The ``virtual_sdcard`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.sdcard_dirname = os.path.normpath(os.path.expanduser(config.get("path")))
        self.print_stats = self.printer.load_object(config, "print_stats")
        self.on_error_gcode = None
        if config.get("on_error_gcode", None) is not None:
            gcode_macro = self.printer.load_object(config, "gcode_macro")
            self.on_error_gcode = gcode_macro.load_template(config, "on_error_gcode")
        self.current_file: str | None = None
        self.lines: list[bytes] = []
        self.next_line = self.file_position = self.file_size = 0
        self.must_pause_work = self.cmd_from_sd = False
        self.work_timer: Any = None
        self.gcode = self.printer.lookup_object("gcode")
        for cmd in ("M20", "M21", "M23", "M24", "M25", "M27"):
            self.gcode.register_command(cmd, getattr(self, f"cmd_{cmd}"))
        for cmd in ("SDCARD_RESET_FILE", "SDCARD_PRINT_FILE"):
            self.gcode.register_command(cmd, getattr(self, f"cmd_{cmd}"), desc="Print a file")
        self.printer.register_event_handler(
            "klippy:analyze_shutdown", self._handle_analyze_shutdown
        )

    def _handle_analyze_shutdown(self, msg: str, details: Any) -> None:
        if self.work_timer is not None:
            self.must_pause_work = True

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Return the log's word."""
        return self.is_active(), f"sd_pos={self.file_position}" if self.is_active() else ""

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return how far it is."""
        return {
            "file_path": self.file_path(),
            "progress": self.progress(),
            "is_active": self.is_active(),
            "file_position": self.file_position,
            "file_size": self.file_size,
        }

    def file_path(self) -> str | None:
        """Return the file's path."""
        return self.current_file

    def progress(self) -> float:
        """Return the share that is done."""
        return self.file_position / self.file_size if self.file_size else 0.0

    def is_active(self) -> bool:
        """Say whether a file is being printed."""
        return self.work_timer is not None

    def do_pause(self) -> None:
        """Stop after the current command, and wait for that unless called from the file."""
        if self.work_timer is None:
            return
        self.must_pause_work = True
        while self.work_timer is not None and not self.cmd_from_sd:
            self.reactor.pause(self.reactor.monotonic() + 0.001)

    def do_resume(self) -> None:
        """Start or go on."""
        if self.work_timer is not None:
            raise self.gcode.error("SD busy")
        self.must_pause_work = False
        self.work_timer = self.reactor.register_timer(self.work_handler, self.reactor.NOW)

    def do_cancel(self) -> None:
        """Give up."""
        if self.current_file is not None:
            self.do_pause()
            self.current_file = None
            self.print_stats.note_cancel()
        self.file_position = self.file_size = 0

    def _reset_file(self) -> None:
        if self.current_file is not None:
            self.do_pause()
            self.current_file = None
        self.file_position = self.file_size = 0
        self.print_stats.reset()
        self.printer.send_event("virtual_sdcard:reset_file")

    def _load_file(self, gcmd: Any, filename: str) -> None:
        path = os.path.join(self.sdcard_dirname, filename.lstrip("/"))
        try:
            with open(path, "rb") as f:
                data = f.read()
        except OSError:
            logger.exception("virtual_sdcard file open")
            raise gcmd.error("Unable to open file") from None
        gcmd.respond_raw(f"File opened:{filename} Size:{len(data)}")
        gcmd.respond_raw("File selected")
        self.lines, self.next_line = data.split(b"\n"), 0
        self.current_file = path
        self.file_position, self.file_size = 0, len(data)
        self.print_stats.set_current_file(filename)

    def cmd_SDCARD_RESET_FILE(self, gcmd: Any) -> None:
        """Forget the file."""
        if self.cmd_from_sd:
            raise gcmd.error("SDCARD_RESET_FILE cannot be run from the sdcard")
        self._reset_file()

    def cmd_SDCARD_PRINT_FILE(self, gcmd: Any) -> None:
        """Print a file."""
        if self.work_timer is not None:
            raise gcmd.error("SD busy")
        self._reset_file()
        self._load_file(gcmd, gcmd.get("FILENAME"))
        self.do_resume()

    def cmd_M20(self, gcmd: Any) -> None:
        """List files."""
        gcmd.respond_raw("Begin file list")
        for name in sorted(os.listdir(self.sdcard_dirname)):
            gcmd.respond_raw(name)
        gcmd.respond_raw("End file list")

    def cmd_M21(self, gcmd: Any) -> None:
        """Be ready."""
        gcmd.respond_raw("SD card ok")

    def cmd_M23(self, gcmd: Any) -> None:
        """Choose a file."""
        if self.work_timer is not None:
            raise gcmd.error("SD busy")
        self._reset_file()
        self._load_file(gcmd, gcmd.get_raw_command_parameters().strip())

    def cmd_M24(self, gcmd: Any) -> None:
        """Start or go on."""
        self.do_resume()

    def cmd_M25(self, gcmd: Any) -> None:
        """Pause."""
        self.do_pause()

    def cmd_M27(self, gcmd: Any) -> None:
        """Report how far it is."""
        if self.current_file is None:
            gcmd.respond_raw("Not SD printing.")
        else:
            gcmd.respond_raw(f"SD printing byte {self.file_position}/{self.file_size}")

    def is_cmd_from_sd(self) -> bool:
        """Say whether the running command comes from the file."""
        return self.cmd_from_sd

    def _run_line(self) -> str | None:
        """Run the next line; return the words of an error that ends the print."""
        line = self.lines[self.next_line]
        self.cmd_from_sd = True
        try:
            self.gcode.run_script(line.decode())
        except self.gcode.error as e:
            self._run_error_gcode()
            return str(e)
        self.cmd_from_sd = False
        self.next_line += 1
        self.file_position = min(self.file_size, self.file_position + len(line) + 1)
        return None

    def _run_error_gcode(self) -> None:
        script = "TURN_OFF_HEATERS"
        try:
            if self.on_error_gcode is not None:
                script = self.on_error_gcode.render()
            elif self.printer.lookup_object("heaters", None) is None:
                return
            self.gcode.run_script(script)
        except Exception:
            logger.exception("virtual_sdcard on_error")

    def work_handler(self, eventtime: float) -> float:
        """Print until the end, a pause or an error."""
        self.reactor.unregister_timer(self.work_timer)
        self.print_stats.note_start()
        mutex = self.gcode.get_mutex()
        error: str | None = None
        try:
            while not self.must_pause_work and error is None:
                if self.next_line >= len(self.lines):
                    self.current_file = None
                    self.gcode.respond_raw("Done printing file")
                    break
                if mutex.test():
                    self.reactor.pause(self.reactor.monotonic() + 0.050)
                    continue
                self.reactor.pause(self.reactor.NOW)
                if not mutex.test() and not self.must_pause_work:
                    error = self._run_line()
        except Exception:
            logger.exception("virtual_sdcard dispatch")
        self.work_timer = None
        self.cmd_from_sd = False
        if error is not None:
            self.print_stats.note_error(error)
        elif self.current_file is not None:
            self.print_stats.note_pause()
        else:
            self.print_stats.note_complete()
        return float(self.reactor.NEVER)


def load_config(config: Any) -> VirtualSD:
    """Make the object."""
    return VirtualSD(config)
