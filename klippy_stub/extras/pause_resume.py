"""[pause_resume]: PAUSE, RESUME, CANCEL_PRINT (klippy/extras/pause_resume.py).

`send_pause_command` stops the file at once; `is_paused` becomes true only when PAUSE itself runs,
which has to wait for the G-code mutex.
"""

from __future__ import annotations

from typing import Any

COMMANDS = {
    "PAUSE": "Pauses the current print",
    "RESUME": "Resumes the print from a pause",
    "CLEAR_PAUSE": "Clears the current paused state without resuming the print",
    "CANCEL_PRINT": "Cancel the current print",
}


class PauseResume:
    """The ``pause_resume`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.gcode = self.printer.lookup_object("gcode")
        self.recover_velocity = config.getfloat("recover_velocity", 50.0)
        self.v_sd: Any = None
        self.is_paused = False
        self.sd_paused = False
        self.pause_command_sent = False
        self.printer.register_event_handler("klippy:connect", self.handle_connect)
        for cmd, desc in COMMANDS.items():
            self.gcode.register_command(cmd, getattr(self, f"cmd_{cmd}"), desc=desc)
        webhooks = self.printer.lookup_object("webhooks")
        for path, cmd in (("cancel", "CANCEL_PRINT"), ("pause", "PAUSE"), ("resume", "RESUME")):
            webhooks.register_endpoint(
                f"pause_resume/{path}", lambda web_request, cmd=cmd: self.gcode.run_script(cmd)
            )

    def handle_connect(self) -> None:
        """Find the file reader, if there is one."""
        self.v_sd = self.printer.lookup_object("virtual_sdcard", None)

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return whether PAUSE has run."""
        return {"is_paused": self.is_paused}

    def is_sd_active(self) -> bool:
        """Say whether a file is being printed."""
        return self.v_sd is not None and bool(self.v_sd.is_active())

    def send_pause_command(self) -> None:
        """Stop the source of G-code, whichever it is, once."""
        if self.pause_command_sent:
            return
        self.sd_paused = self.is_sd_active()
        if self.sd_paused:
            self.v_sd.do_pause()
        else:
            self.gcode.respond_info("action:paused")
        self.pause_command_sent = True

    def cmd_PAUSE(self, gcmd: Any) -> None:
        """Pause."""
        if self.is_paused:
            gcmd.respond_info("Print already paused")
            return
        self.send_pause_command()
        self.gcode.run_script_from_command("SAVE_GCODE_STATE NAME=PAUSE_STATE")
        self.is_paused = True

    def send_resume_command(self) -> None:
        """Let the source of G-code go on."""
        if self.sd_paused:
            self.v_sd.do_resume()
            self.sd_paused = False
        else:
            self.gcode.respond_info("action:resumed")
        self.pause_command_sent = False

    def cmd_RESUME(self, gcmd: Any) -> None:
        """Go on."""
        if not self.is_paused:
            gcmd.respond_info("Print is not paused, resume aborted")
            return
        velocity = gcmd.get_float("VELOCITY", self.recover_velocity)
        self.gcode.run_script_from_command(
            f"RESTORE_GCODE_STATE NAME=PAUSE_STATE MOVE=1 MOVE_SPEED={velocity:.4f}"
        )
        self.send_resume_command()
        self.is_paused = False

    def cmd_CLEAR_PAUSE(self, gcmd: Any) -> None:
        """Forget the pause."""
        self.is_paused = self.pause_command_sent = False

    def cmd_CANCEL_PRINT(self, gcmd: Any) -> None:
        """Give up the print."""
        if self.is_sd_active() or self.sd_paused:
            self.v_sd.do_cancel()
        else:
            gcmd.respond_info("action:cancel")
        self.cmd_CLEAR_PAUSE(gcmd)


def load_config(config: Any) -> PauseResume:
    """Make the object."""
    return PauseResume(config)
