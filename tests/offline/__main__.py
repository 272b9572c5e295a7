"""Runs a command with no network but the machine's own loopback.

    python tests/offline COMMAND ...

Linux gives the command an empty network of its own (`unshare`, no rights needed where user
namespaces are allowed). Elsewhere, or with `--patched`, Python's sockets refuse every other
machine, in all Python processes that the command starts (`sitecustomize.py`, beside this file).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from pathlib import Path

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # of <sched.h>
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1  # of <linux/sockios.h>, <linux/if.h>


def leave_the_network() -> None:
    """Move this process into a network that holds loopback alone.

    Raises:
        OSError: the system does not let it.
        ImportError, AttributeError: it has no such thing.
    """
    import fcntl

    user, group = os.getuid(), os.getgid()
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(NEW_NETWORK):
        if library.unshare(NEW_USER | NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "unshare")
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny", encoding="ascii")
        (own / "uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        (own / "gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    with socket.socket() as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", flags | UP))


def main() -> None:
    command = sys.argv[1:]
    patched = command[:1] == ["--patched"]
    if not patched:
        try:
            leave_the_network()
        except (AttributeError, ImportError, OSError) as error:
            print(f"No network of its own ({error}): sockets are patched.", file=sys.stderr)
            patched = True
    if patched:
        here = str(Path(__file__).resolve().parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (here, os.environ.get("PYTHONPATH")))
        )
    command = command[command[:1] == ["--patched"] :]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
