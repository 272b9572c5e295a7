"""Questions that wait at the same time go through the towers together.

While one batch is computed the next ones gather, so nobody waits for a batch to fill up: alone, a
question is answered at once, and under load batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")
T = TypeVar("T")


class Batcher(Generic[Q, A]):
    """Awaitable answers out of a function of many questions.

    Args:
        answer: takes 1 to `most` questions, gives as many answers; runs in one thread of its own.
        most: questions in a batch.
        looks: called with the size of each batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        most: int = 32,
        looks: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._answer, self._most, self._looks = answer, most, looks
        self._waiting: asyncio.Queue[tuple[Q, asyncio.Future[A]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")

    async def ask(self, question: Q) -> A:
        """The answer to one question; whatever `answer` raises for its batch."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        await self._waiting.put((question, future))
        return await future

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns, from the thread that answers questions."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._most and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [(q, future) for q, future in batch if not future.cancelled()]
            if batch:
                self._looks(len(batch))
                await self._serve(loop, batch)

    async def _serve(
        self, loop: asyncio.AbstractEventLoop, batch: Sequence[tuple[Q, asyncio.Future[A]]]
    ) -> None:
        questions = [question for question, _ in batch]
        try:
            answers = await loop.run_in_executor(self._thread, self._answer, questions)
        except Exception as error:
            if len(batch) > 1:  # one bad question must not spoil the others' answers
                for request in batch:
                    await self._serve(loop, [request])
                return
            ((_, future),) = batch
            if not future.done():
                future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    def close(self) -> None:
        """Take no more images and drop those that wait."""
        self._thread.shutdown(wait=False, cancel_futures=True)
