"""``python3 -m klippy_stub printer.cfg``: a printer in real time.

G-code on stdin, answers on stdout, log on stderr or in a file. Signals end it as they end klippy:
SIGINT and SIGTERM kill at once, without klippy:disconnect. The end of stdin ends the printer in
order after the last command, unless there is an API socket.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import time
from typing import Any

from . import loader
from .printer import Printer
from .reactor import Reactor

logger = logging.getLogger(__name__)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; the letters are klippy's where klippy has them."""
    parser = argparse.ArgumentParser(prog="klippy_stub", description=__doc__)
    parser.add_argument("config", help="printer configuration")
    parser.add_argument("-a", "--api-server", metavar="SOCKET", help="API socket to listen on")
    parser.add_argument("-l", "--logfile", help="log here instead of to stderr")
    parser.add_argument("-v", dest="verbose", action="store_true", help="log more")
    parser.add_argument(
        "-o", "--debugoutput", metavar="FILE", help="batch mode: the name is only passed on"
    )
    parser.add_argument(
        "-x", "--extras", metavar="DIR", action="append", help="look for modules here (repeatable)"
    )
    parser.add_argument(
        "--restart-delay",
        metavar="SECONDS",
        type=float,
        default=1.0,
        help="time between two printers at RESTART [1, as in klippy]",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run printers until one of them exits."""
    options = parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.basicConfig(
        filename=options.logfile,
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(message)s",
    )
    loader.set_path(options.extras)
    start_args: dict[str, Any] = {
        "config_file": options.config,
        "apiserver": options.api_server,
        "start_reason": "startup",
        "software_version": "klippy_stub",
        "cpu_info": f"{os.cpu_count()} core",
        "gcode_fd": 0,
        "gcode_out_fd": 1,
        "exit_at_eof": options.api_server is None,
    }
    if options.logfile:
        start_args["log_file"] = options.logfile
    if options.debugoutput:
        start_args["debugoutput"] = options.debugoutput
    logger.info("Starting klippy_stub with %s", sys.argv)
    while True:
        gc.collect()
        reactor = Reactor()
        result = Printer(reactor, True, start_args).run()
        if result in ("exit", "error_exit"):
            return 0 if result == "exit" else 255
        time.sleep(options.restart_delay)
        reactor.finalize()
        logger.info("Restarting printer")
        start_args["start_reason"] = result


if __name__ == "__main__":
    sys.exit(main())
