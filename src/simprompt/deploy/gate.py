"""What every request of `simprompt serve` passes before and after it is answered (ASGI).

Before: the host name and the site that it comes from; its body, read whole under limits of size and
time, before the request counts among those that are being answered; so slow clients keep nobody
else waiting, and `/healthz` is answered whatever there is to do. After: headers for safety, counts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simprompt.deploy.access import Access
from simprompt.deploy.bodies import Limits, RequestRefusedError
from simprompt.deploy.budget import Budget

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; media-src 'self' blob:; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
CLIENT_GONE = 499  # nginx's status, in the counts, for a client that did not wait


class Gate:
    """The application with limits around it.

    Args:
        app: answers requests; a body comes to it in one piece.
        access: which host names and sites are answered.
        works: paths whose POST requests have a body and take time.
        root_path: prefix of all paths, as a proxy's clients see them.
        observe: called with path, status and seconds of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        limits: Limits,
        works: Collection[str],
        root_path: str = "",
        observe: Callable[[str, int, float], None] = lambda path, status, seconds: None,
    ) -> None:
        self.app, self.access, self.limits, self.works = app, access, limits, works
        self.root_path, self.observe = root_path, observe
        self.answering = 0
        self.held = Budget(limits.held_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        path = self._path(scope)
        scope = {**scope, "root_path": self.root_path}
        reply = _Reply(scope, send)
        try:
            await self._admit(scope, path, receive, reply)
        except RequestRefusedError as error:
            await refusal(error.status, str(error))(scope, receive, reply)
        except Exception:
            if not reply.status:
                wrong = refusal(500, "The server failed on this request; its log says why.")
                await wrong(scope, receive, reply)
            raise  # the server logs it
        finally:
            self.observe(path, reply.status or CLIENT_GONE, time.perf_counter() - started)

    def _path(self, scope: Scope) -> str:
        """The path below `root_path`, whether the proxy has taken that off or not."""
        path, root = str(scope["path"]), self.root_path
        return path[len(root) :] if root and path.startswith(f"{root}/") else path

    async def _admit(self, scope: Scope, path: str, receive: Receive, reply: _Reply) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host"), headers.get(b"origin")
        if not self.access.answers_host(host):
            raise RequestRefusedError(
                403,
                f"This server does not answer to the name {host!a:.100}, so that no web page "
                "can reach it under a name of its own. If that is its name, start it with "
                "--allow-host and the name.",
            )
        if not self.access.answers_origin(origin, host):
            raise RequestRefusedError(
                403,
                f"Pages of other sites may not ask this server; this one is of {origin!a:.100}"
                ". If it may, start the server with --allow-origin and the site.",
            )
        if origin in self.access.origins:
            reply.headers |= {"Access-Control-Allow-Origin": origin or "", "Vary": "Origin"}
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                allowed = {
                    "Access-Control-Allow-Methods": "GET, HEAD, POST",
                    "Access-Control-Allow-Headers": "content-type",
                    "Access-Control-Max-Age": "600",
                }
                await Response(status_code=204, headers=allowed)(scope, receive, reply)
                return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # `reply` drops the content
        if scope["method"] != "POST" or path not in self.works:
            await self.app(scope, receive, reply)
            return
        chunks: list[bytes] = []
        size = 0
        try:
            complete = await self._read(headers, receive, chunks)
            size = sum(map(len, chunks))
            if complete:
                await self._answer(scope, chunks, receive, reply)
        except RequestRefusedError as error:
            if error.status == 408:
                reply.headers["Connection"] = "close"
            raise
        finally:
            self.held.give_back(size or sum(map(len, chunks)))

    async def _read(self, headers: dict[bytes, str], receive: Receive, chunks: list[bytes]) -> bool:
        """Read a request's body into `chunks`; whether it came whole.

        Raises:
            RequestRefusedError: it is too long, too slow, compressed, or there is no room for it.
        """
        limits, loop = self.limits, asyncio.get_running_loop()
        too_long = RequestRefusedError(413, f"The request is longer than {limits.bytes:,} bytes.")
        declared = headers.get(b"content-length", "0")
        if not declared.isdigit() or len(declared) > 18 or int(declared) > limits.bytes:
            raise too_long
        if headers.get(b"content-encoding", "identity") != "identity":
            raise RequestRefusedError(415, "Send the body as it is, without Content-Encoding.")
        end, size = loop.time() + limits.upload_seconds, 0
        while True:
            patience = max(0.0, min(limits.idle_seconds, end - loop.time()))
            try:
                message = await asyncio.wait_for(receive(), patience)
            except asyncio.TimeoutError:  # on Python 3.10 not the builtin one
                raise RequestRefusedError(
                    408,
                    f"The request's body did not come in time: {limits.upload_seconds:g} s in "
                    f"all, {limits.idle_seconds:g} s without a byte.",
                ) from None
            if message["type"] != "http.request":
                return False
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limits.bytes:
                raise too_long
            if not self.held.take(len(chunk)):
                raise RequestRefusedError(429, "Too much is being sent at once; ask again later.")
            chunks.append(chunk)
            if not message.get("more_body", False):
                return True

    async def _answer(
        self, scope: Scope, chunks: list[bytes], receive: Receive, reply: _Reply
    ) -> None:
        """Let the application answer, until the time is over or the client has gone. It takes the
        body out of `chunks`, and nothing here holds it any longer."""
        if self.answering >= self.limits.in_flight:
            busy = refusal(429, "Too many requests at once; ask again in a moment.", retry=1)
            await busy(scope, receive, reply)
            return
        hung_up = asyncio.ensure_future(_disconnect(receive))
        is_taken = False

        async def replay() -> Message:
            nonlocal is_taken
            if is_taken:
                return await asyncio.shield(hung_up)
            is_taken, body = True, b"".join(chunks)
            chunks.clear()
            return {"type": "http.request", "body": body, "more_body": False}

        self.answering += 1
        work = asyncio.ensure_future(self.app(scope, replay, reply))
        try:
            await asyncio.wait(
                {work, hung_up},
                timeout=self.limits.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                work.result()
            elif not hung_up.done() and not reply.status:
                late = f"No answer within {self.limits.seconds:g} s; ask again later."
                await refusal(429, late, retry=5)(scope, receive, reply)
        finally:
            self.answering -= 1
            for task in (work, hung_up):
                task.cancel()
            await asyncio.gather(work, hung_up, return_exceptions=True)


class _Reply:
    """`send` of a request: with the headers that every answer has, and without content for HEAD.

    Attributes:
        status: of the answer; 0 before it has begun.
        headers: what is added.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status, self.headers = 0, dict(HEADERS)
        self._send, self._head = send, scope["method"] == "HEAD"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ours = {name.lower().encode(): value.encode() for name, value in self.headers.items()}
            theirs = [row for row in message.get("headers", ()) if row[0].lower() not in ours]
            theirs = [(n, b"GET, HEAD" if (n, v) == (b"allow", b"GET") else v) for n, v in theirs]
            message = {**message, "headers": [*theirs, *ours.items()]}
        elif self._head:
            message = {**message, "body": b""}
        await self._send(message)


def refusal(status: int, message: str, retry: int | None = None) -> Response:
    """The answer to a request that cannot be met: `detail`, one sentence."""
    content: dict[str, Any] = {"detail": message}
    headers = {"Retry-After": str(retry)} if retry else None
    return Response(json.dumps(content), status, headers, "application/json")


async def _disconnect(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
