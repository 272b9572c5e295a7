"""One bounded call to an OpenAI-compatible server, and what a failed one means for the next.

The package `openai` is the client; it is imported when a server is really asked. The key goes into
the request's header and nowhere else: not into a file, a log or a message.
"""

from __future__ import annotations

import base64
import datetime
import email.utils
import json
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

from simprompt.errors import install
from simprompt.novel.names import NovelNameError

DEFAULT_MODEL = "gpt-4o"  # the model the paper asked
MOST_BYTES = 4_000_000  # of one answer
MOST_SHOWN = 10_000  # characters of a server's message that are looked at
MOST_REDIRECTS = 3
SHOWN_KEY = 8  # characters of a key that give it away
_RUN = re.compile(rf"[\w+/=%.~-]{{{SHOWN_KEY},}}")

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "class_names",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"names": {"type": "array", "items": {"type": "string"}}},
            "required": ["names"],
            "additionalProperties": False,
        },
    },
}


class LLMError(NovelNameError):
    """The language model could not be asked, or did not give enough names."""


@dataclass(frozen=True)
class Ask:
    """How a server is asked. Every wait and every number of tries is bounded.

    Attributes:
        model: the model's name on that server.
        base_url: the server; None for OpenAI's.
        api_key: never shown; a local server needs none.
        timeout: seconds one call may take in all, however slowly bytes arrive.
        max_calls: calls for one list, retries included.
        max_failures: failed calls in a row after which it gives up.
        max_wait: the longest pause a server may ask for (Retry-After), in seconds.
        backoff: seconds before the first retry; doubled each time.
        temperature: sent only when set; some models refuse it.
        draw: another number makes another list of the same model.
    """

    model: str = DEFAULT_MODEL
    base_url: str | None = None
    api_key: str | None = None
    timeout: float = 120.0
    max_calls: int = 20
    max_failures: int = 5
    max_wait: float = 120.0
    backoff: float = 1.0
    temperature: float | None = None
    draw: int = 0

    def __post_init__(self) -> None:
        try:
            url_parts = urlsplit(self.base_url or "https://api.openai.com/v1")
            good = (
                url_parts.scheme in ("http", "https")
                and bool(url_parts.hostname)
                and url_parts.port != 0
            )
        except ValueError:
            good = False
        if not good:
            raise LLMError(
                "The address of the language model is not one. Set SIMPROMPT_LLM_BASE_URL to an "
                "address such as http://localhost:11434/v1."
            )
        if not (0 < self.timeout < 86400 and self.max_calls >= 1):
            raise LLMError(
                f"A language model cannot be asked with timeout={self.timeout:g} and "
                f"max_calls={self.max_calls}. Give seconds above 0, and at least one call."
            )

    def __repr__(self) -> str:
        return f"Ask(model={self.model!r}, server={self.server!r})"

    @property
    def server(self) -> str:
        """The server as it may be written down: without user, password and query."""
        url_parts = urlsplit(self.base_url or "https://api.openai.com/v1")
        host = url_parts.hostname or ""
        port = f":{url_parts.port}" if url_parts.port else ""
        return f"{url_parts.scheme}://{host}{port}{url_parts.path}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent besides the messages."""
        return {} if self.temperature is None else {"temperature": self.temperature}

    def without_key(self, text: str, mark: str = "(key)") -> str:
        """A text without the key: whole, a part of `SHOWN_KEY` characters or more, percent-encoded,
        in hexadecimal digits or in base64."""
        secrets = [self.api_key, urlsplit(self.base_url or "").password]
        for secret in secrets:
            if secret and len(secret) >= 4:
                text = text.replace(secret, mark)
        secret_parts = {
            secret_part for secret in secrets if secret for secret_part in _parts(secret)
        }

        def judged(run: re.Match[str]) -> str:
            word = run[0].lower()
            pieces = (word[i : i + SHOWN_KEY] for i in range(len(word) - SHOWN_KEY + 1))
            return mark if any(piece in secret_parts for piece in pieces) else run[0]

        return _RUN.sub(judged, text) if secret_parts else text

    def safe(self, text: str) -> str:
        """A text without the key or anything that looks like one, on one line, shortened."""
        text = self.without_key(text[:MOST_SHOWN])
        text = re.sub(r"\b(?:sk|key|tok)-[\w*.-]{6,}|Bearer\s+\S+|[\w+/=-]{40,}", "(key)", text)
        text = "".join(c if c.isprintable() else " " for c in text)
        return text if len(text) <= 300 else f"{text[:299]}…"


@dataclass
class Answer:
    """What one call brought: the body as far as it came, and what went wrong, if anything did.

    `wait` is what the server asked to wait before the next call; `fatal` means that the same call
    would fail again. `hosts` are those that were asked, one after the other where one sent on to
    the next.
    """

    body: bytes = b""
    problem: str = ""
    wait: float | None = None
    fatal: bool = False
    no_schema: bool = False
    hosts: tuple[str, ...] = ()


def _parts(secret: str) -> Iterator[str]:
    """All pieces of `SHOWN_KEY` characters of the forms that a secret may be shown in, in small
    letters."""
    raw = secret.encode()
    forms = [secret, quote(secret, safe=""), raw.hex()]
    for before in range(3):  # where it stands in a longer text decides its base64
        coded = base64.b64encode(b"\0" * before + raw).decode()
        inner = coded[4 if before else 0 : -4]
        forms += [inner, inner.replace("+", "-").replace("/", "_")]
    for form in map(str.lower, forms):
        yield from (form[i : i + SHOWN_KEY] for i in range(len(form) - SHOWN_KEY + 1))


def call(ask: Ask, messages: list[dict[str, str]], structured: bool, most: int = 4) -> Answer:
    """One call that ends within `ask.timeout`, whatever the server does.

    Args:
        most: requests that it may make, redirects included.

    The client's own time-out starts anew with every byte, so a server that drips would hold it for
    ever. The call runs in a thread that is left behind when the time is over; what it had received
    is used.
    """
    try:
        import openai  # noqa: F401
    except ImportError:
        raise LLMError(f"The source llm needs the package openai: {install('llm')}.") from None
    pieces: list[bytes] = []
    hosts: list[str] = []
    outcome: list[Answer] = []
    over = threading.Event()

    def work() -> None:
        try:
            redirects = min(MOST_REDIRECTS, most - 1)
            _receive(ask, messages, structured, redirects, pieces, hosts, over)
            outcome.append(Answer())
        except Exception as error:
            outcome.append(_judge(ask, error, structured, hosts))

    thread = threading.Thread(target=work, name="novel-llm", daemon=True)
    thread.start()
    thread.join(ask.timeout)
    over.set()
    late = f"no whole answer came within {ask.timeout:g} seconds"
    answer = outcome[0] if outcome else Answer(problem=late)
    return replace(answer, body=b"".join(pieces), hosts=tuple(hosts))


def _receive(
    ask: Ask,
    messages: list[dict[str, str]],
    structured: bool,
    redirects: int,
    pieces: list[bytes],
    hosts: list[str],
    over: threading.Event,
) -> None:
    """Send the question; append the answer's bytes to `pieces` as they come, and the hosts that are
    asked to `hosts`."""
    from openai import DefaultHttpxClient, OpenAI

    extra: dict[str, Any] = dict(ask.parameters)
    if structured:
        extra["response_format"] = SCHEMA
    with (
        OpenAI(
            api_key=ask.api_key or "none",  # local servers take any
            base_url=ask.base_url,
            timeout=ask.timeout,
            max_retries=0,  # retried here, where calls are counted
            http_client=DefaultHttpxClient(
                follow_redirects=redirects > 0,
                max_redirects=redirects,
                event_hooks={
                    "request": [lambda request: hosts.append(request.url.netloc.decode())]
                },
            ),
        ) as client,
        client.chat.completions.with_streaming_response.create(
            model=ask.model,
            messages=messages,  # type: ignore[arg-type]
            **extra,
        ) as response,
    ):
        size = 0
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if over.is_set() or size > MOST_BYTES:
                break


def _judge(ask: Ask, error: Exception, structured: bool, hosts: Sequence[str]) -> Answer:
    """What an exception of the client means for the next call."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return Answer(problem=f"no answer came within {ask.timeout:g} seconds")
    if not isinstance(error, openai.APIStatusError):
        # A closed socket, a refused connection, a body that breaks off. The text of such an
        # exception is not shown: it may quote the request.
        cause = error.__cause__ or error
        if len(hosts) > 1:
            sent = ask.safe(", ".join(dict.fromkeys(hosts)))
            problem = f"it sent on to another address {len(hosts) - 1} times ({sent})"
            return Answer(problem=f"{problem}, and no answer came", fatal=True)
        return Answer(problem=f"the connection failed ({type(cause).__name__})")
    status = error.status_code
    message = ask.safe(_server_message(error))
    redirect = f" at {ask.safe(hosts[-1])}, where it sent on to," if len(hosts) > 1 else ""
    problem_text = f"it answered {status}{redirect}" + (f": {message}" if message else "")
    if status == 429 and "insufficient_quota" in str(error.code or message):
        return Answer(problem=problem_text, fatal=True)
    if status in (408, 409, 425, 429) or status >= 500:
        return Answer(problem=problem_text, wait=_retry_after(error.response.headers))
    if structured and status in (400, 404, 415, 422, 501) and _about_schema(message, status):
        return Answer(problem=problem_text, no_schema=True)
    return Answer(problem=problem_text, fatal=True)


def _about_schema(message: str, status: int) -> bool:
    """Whether a refusal may be about structured output; an unknown model is not."""
    return status in (400, 415, 422) and "api key" not in message.lower()


def _server_message(error: Any) -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body.get("error") or ""
    return body if isinstance(body, str) else ""


def _retry_after(headers: Any) -> float | None:
    """Seconds a server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    text = headers.get("retry-after", "").strip()
    for value, scale in ((headers.get("retry-after-ms", ""), 0.001), (text, 1.0)):
        with suppress(ValueError):
            if not math.isnan(number := float(value)):
                return max(0.0, scale * number)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, moment.timestamp() - time.time())


def decode(body: bytes) -> str:
    """Text of a body: UTF-8, UTF-16 or -32 as JSON allows, and Latin-1 from a server that errs."""
    if not body:
        return ""
    try:
        return body.decode(json.detect_encoding(body))
    except UnicodeDecodeError as error:
        if error.start >= len(body) - 3:  # broken off inside a character
            return body.decode("utf-8", "ignore")
        return body.decode("cp1252", "replace")
