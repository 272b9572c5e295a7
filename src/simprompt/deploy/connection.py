"""Connections of `simprompt serve` that end by themselves: uvicorn's HTTP/1.1 protocol with limits.

uvicorn waits for ever for the rest of a half-sent header, and for a client that does not read its
answer. A few hundred such connections would use up the process's file descriptors.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def connection_class(most: int, seconds: float) -> type[H11Protocol]:
    """The protocol class for `uvicorn.Config(http=...)`.

    Args:
        most: connections open at once; a new one closes the one that has waited longest for its
            request, so that there is always room for a request that is whole.
        seconds: until the header of a request is there, counted from the opening of the connection
            or from the answer before; and until some of an answer has been read.
    """
    return type("LimitedConnection", (_Connection,), {"most": most, "patience": seconds})


class _Connection(H11Protocol):
    """One connection, watched while it waits for a request or for its client to read."""

    most: int  # see `connection_class`
    patience: float

    timer: asyncio.TimerHandle | None = None
    since = 0.0  # when it began to wait
    unread = 0  # bytes of answers that the client had not taken yet
    full = False  # more of them than are kept in memory; what is being answered waits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.watch()
        if len(self.connections) > self.most:
            siblings = self.connections - {self}  # its request may be on its way
            _oldest([c for c in siblings if isinstance(c, _Connection)]).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.full = True
        self.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.full = False
        self.watch()

    def idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def watch(self) -> None:
        """Start the clock where the client has to do something, and stop it where it has."""
        if not (self.idle() or self.full):
            self.stop()
        elif self.timer is None:
            self.since = self.loop.time()
            self.unread = self.transport.get_write_buffer_size()
            self.timer = self.loop.call_later(self.patience, self.expire)

    def stop(self) -> None:
        """Stop the clock."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None

    def expire(self) -> None:
        """Close it, unless its client has read some of what it was sent."""
        self.timer = None
        if 0 < self.transport.get_write_buffer_size() < self.unread:
            self.watch()
        else:
            self.drop()

    def drop(self) -> None:
        """Close it at once."""
        self.connections.discard(self)
        self.transport.abort()


def _oldest(connections: list[_Connection]) -> _Connection:
    """The one that can best be spared: without a request, else with half of one."""

    def rank(connection: _Connection) -> tuple[int, float]:
        cycle: Any = connection.cycle
        state = 0 if connection.idle() else 1 if cycle.more_body else 2
        return (state, connection.since)

    return min(connections, key=rank)
