"""Python's sockets without other machines; Python imports this where it is on the path."""

from __future__ import annotations

import errno
import socket
from typing import Any


def _refuse_others(address: Any) -> None:
    if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "::1", "localhost")):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")


class LoopbackSocket(socket.socket):
    """A socket that reaches this machine only."""

    def connect(self, address: Any) -> None:
        _refuse_others(address)
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        _refuse_others(address)
        return super().connect_ex(address)

    def sendto(self, data: Any, *rest: Any) -> int:
        _refuse_others(rest[-1])
        return super().sendto(data, *rest)


_resolve = socket.getaddrinfo


def _resolve_here(host: Any, *rest: Any, **more: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name not in (None, "", "localhost") and name.strip("0123456789.:abcdefABCDEF"):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _resolve(host, *rest, **more)


socket.socket = LoopbackSocket  # type: ignore[misc]
socket.getaddrinfo = _resolve_here
