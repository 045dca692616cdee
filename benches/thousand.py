"""Look after many devices and drain each once per second: `thousand.py PORT COUNT`.

One JSON line on stdout before the first is opened, and one per second from then on. The line
`heat` on stdin makes it want heat.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
import time

import panda_breath_native as native
import processes


def main() -> None:
    port, count = (int(argument) for argument in sys.argv[1:])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _say({"rss": processes.memory(os.getpid()).rss})
    devices = [_open(n, port + n) for n in range(count)]
    acks = [device.drain(0.0, True, 0).forced_offs for device in devices]
    target = 0.0
    due = time.monotonic()
    while True:
        off_known = 0
        # In ten parts, as a thousand timers would spread by themselves.
        for part in range(10):
            for n in range(part, count, 10):
                state = devices[n].drain(target, True, acks[n])
                acks[n] = state.forced_offs
                off_known += state.off_known
            due += 0.1
            if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                target = 45.0 if sys.stdin.readline().strip() == "heat" else target
        _say({"off_known": off_known})


def _open(number: int, port: int) -> native.Device:
    return native.Device(
        name=f"d{number}",
        host="127.0.0.1",
        port=port,
        device_id=None,
        max_target=60,
        stale_after=7.0,
        lost_after=120.0,
        lease=10.0,
        on_external_off="accept",
        on_external_on="off",
    )


def _say(what: dict[str, float]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
