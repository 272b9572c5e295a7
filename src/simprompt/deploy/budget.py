"""An amount that requests share, such as bytes in memory; used on one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """At most `total` is in use at once.

    Args:
        total: of anything that is counted in whole numbers, at least 1.
    """

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, amount: int) -> bool:
        """Whether so much is free; if so, it is in use from now on. `give_back` frees it."""
        if self.used + amount > self.total:
            return False
        self.used += amount
        return True

    def give_back(self, amount: int) -> None:
        """Free what was taken, for those that have waited longest."""
        self.used -= amount
        self._next()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Wait in line until so much is free and use it inside; more than all counts as all."""
        amount = min(amount, self.total)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._next()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self.give_back(amount)
            else:
                self._waiting.remove((amount, turn))
                self._next()

    def _next(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            if turn.cancelled():  # its owner takes it out of the line
                break
            if not self.take(amount):
                break
            self._waiting.popleft()
            turn.set_result(None)
