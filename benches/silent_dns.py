"""Run a command where names cannot be resolved: `silent_dns.py FOLDER silent|none COMMAND...`

Must be started in namespaces of its own (`unshare --user --map-root-user --mount --net`). Its
name server is a socket there that never answers, or nobody; nothing outside is touched.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

MS_BIND = 4096
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def main() -> None:
    folder, kind, *command = sys.argv[1:]
    _mount(folder, "resolv.conf", "nameserver 127.0.0.1\n")
    _mount(folder, "nsswitch.conf", "hosts: files dns\n")
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    request = struct.pack("16sh14x", b"lo", 0)
    flags = struct.unpack("16sh14x", fcntl.ioctl(server, SIOCGIFFLAGS, request))[1]
    fcntl.ioctl(server, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
    if kind == "silent":
        server.bind(("127.0.0.1", 53))
        os.set_inheritable(server.fileno(), True)
    if command:
        os.execvp(command[0], command)


def _mount(folder: str, name: str, text: str) -> None:
    source = os.path.join(folder, name)
    with open(source, "w") as file:
        file.write(text)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), b"/etc/" + name.encode(), None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), f"mount of {source} failed")


if __name__ == "__main__":
    main()
