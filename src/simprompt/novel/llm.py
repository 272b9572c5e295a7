"""Names from a language model behind any OpenAI-compatible endpoint, asked once and kept.

The server is the one in `SIMPROMPT_LLM_BASE_URL` (OpenAI's own where that is not set), the key the
one in `OPENAI_API_KEY`, the model the one in the setting `model` or `SIMPROMPT_LLM_MODEL`.

A list is stored with the prompt, the model, the parameters, the date and a hash of its names. While
it is being made, what has arrived is stored beside it, so that a run that broke off goes on where
it was. Where the list is stored already, nothing is asked.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.novel.endpoint import DEFAULT_MODEL, Answer, Ask, LLMError, call, decode
from simprompt.novel.names import clean_names, hash_names
from simprompt.novel.parsing import message_text, parse_names
from simprompt.utils.files.atomic import write_json
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import read_text

if TYPE_CHECKING:
    from simprompt.novel.sources import Offer, Request

log = logging.getLogger(__name__)

PROMPT_VERSION = 1  # part of a list's key: a new wording makes a new list
SHOWN_BASE = 150  # base classes in a prompt; more would only make it long
SHOWN_TAKEN = 400

SYSTEM = (
    "You name classes for an image classification data set. You answer with JSON only: an object "
    'with one key "names", an array of strings.'
)
ASK = (
    "The data set is about {topic}. Some of its classes are:\n{base}\n\n"
    "Name {n} further classes that could stand beside these: as specific as these, of the same "
    "kind, all different, each something a picture can show. Write them as the classes above are "
    "written. Do not repeat a class above."
)
AGAIN = "Name {n} more. These have been named already:\n{taken}"


def llm(request: Request) -> Offer:
    """Names from a language model, or from the list that was stored when it was asked before.

    Settings: `model`, `url`, `temperature`, `timeout`, `max_calls`, `draw`. The list does not
    depend on the request's seed, as the paper's does not: `draw=2` asks for another one.
    """
    from simprompt.novel.sources import Offer
    from simprompt.utils.files.cache_folders import cache_dir

    ask = settings(request)
    folder = request.store or cache_dir() / "novel"
    value = generate(request.base, request.topic, request.n, ask, folder)
    return Offer(value["names"], value["provenance"])


def settings(request: Request) -> Ask:
    """The request's settings, then the environment, then the defaults."""
    default = Ask()
    text = request.setting("temperature", "")
    try:
        temperature = float(text) if text else None
    except ValueError:
        raise LLMError(f"The setting temperature={text!r} is not a number.") from None
    return Ask(
        model=request.setting("model", os.environ.get("SIMPROMPT_LLM_MODEL") or DEFAULT_MODEL),
        base_url=request.setting("url", "") or os.environ.get("SIMPROMPT_LLM_BASE_URL") or None,
        api_key=os.environ.get("OPENAI_API_KEY") or None,
        timeout=request.setting("timeout", default.timeout),
        max_calls=request.setting("max_calls", default.max_calls),
        temperature=temperature,
        draw=request.setting("draw", default.draw),
    )


def stored_path(base: Sequence[str], topic: str, n: int, ask: Ask, folder: Path) -> Path:
    """Where the list of this question is kept; the name holds a hash of the question."""
    question = json.dumps(
        [PROMPT_VERSION, list(base), topic, n, ask.model, ask.parameters, ask.draw],
        ensure_ascii=False,
    )
    digest = hashlib.sha256(question.encode(errors="surrogatepass")).hexdigest()[:12]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{topic} {ask.model}".lower()).strip("-")[:60]
    return folder / f"llm-{slug}-{digest}.json"


def generate(
    base: Sequence[str],
    topic: str,
    n: int,
    ask: Ask,
    folder: Path,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The stored list of this question, or a new one: `n` unique names, no base class.

    Args:
        base: the base classes, shown to the model as examples.
        topic: what the classes are.
        n: how many names.
        ask: the server and the limits.
        folder: where lists are stored.
        sleep: for tests.

    Returns:
        `names`, `sha256` and `provenance`, as stored.

    Raises:
        LLMError: no server, a refusal, too many failures in a row, or too few names after
            `max_calls` calls. What had arrived is kept, and the next call goes on from there.
    """
    path = stored_path(base, topic, n, ask, folder)
    if path.exists():
        return _read(path)
    partial = path.with_suffix(".partial.json")
    names = _read(partial)["names"] if partial.exists() else []
    if not ask.base_url and not ask.api_key:
        raise LLMError(
            "No language model to ask: neither SIMPROMPT_LLM_BASE_URL nor OPENAI_API_KEY is set. "
            "Set the first to a server such as http://localhost:11434/v1, or the second to your "
            "key; or use the bundled names, wordnet or vocabulary, which ask nobody."
        )
    listing = _Listing(ask, tuple(base), topic, n, names)
    while len(listing.names) < n:
        answer = listing.next_answer()
        if answer.no_schema and listing.structured:
            listing.structured = False  # the server knows no structured output: ask without
            continue
        if answer.fatal:
            raise LLMError(_refused(ask, answer.problem, len(listing.names), n))
        # braces: no name may hold them
        reply = ask.without_key(message_text(decode(answer.body)), mark="{key}")
        added = listing.add(reply)
        if added:
            log.info("%s gave %d new names, %d of %d", ask.model, added, len(listing.names), n)
            write_json(partial, listing.stored())
        if added and not answer.problem:
            listing.failures = 0
        elif len(listing.names) < n:
            problem = answer.problem or (
                "it answered without a new name in it"
                if reply
                else "its answer was empty or unreadable"
            )
            pause = listing.pause_after(problem, answer.wait, added)
            if not listing.is_over:
                log.info("%s: %s; next call in %.1f s", ask.server, problem, pause)
                sleep(pause)
    value = listing.stored()
    write_json(path, value)
    partial.unlink(missing_ok=True)
    return value


@dataclass
class _Listing:
    """A list on its way: the names that have arrived, and how the calls went."""

    ask: Ask
    base: tuple[str, ...]
    topic: str
    n: int
    names: list[str]
    answered_by: str = ""  # the host that a server sent the last call on to
    calls: int = 0
    failures: int = 0  # in a row
    structured: bool = True
    problem: str = ""

    @property
    def is_over(self) -> bool:
        """Whether no further call may be made."""
        return self.calls >= self.ask.max_calls or self.failures >= self.ask.max_failures

    def next_answer(self) -> Answer:
        """Ask for the names that are missing.

        Raises:
            LLMError: too many calls, or too many failures in a row.
        """
        if self.is_over:
            raise LLMError(
                _gave_up(self.ask, len(self.names), self.n, self.calls, self.failures, self.problem)
            )
        most = self.ask.max_calls - self.calls
        answer = call(self.ask, self._messages(), self.structured, most)
        self.calls += max(1, len(answer.hosts))  # where it is sent on to counts as well
        if len(answer.hosts) > 1:
            self.answered_by = answer.hosts[-1]
        return answer

    def _messages(self) -> list[dict[str, str]]:
        count = self.n - len(self.names)
        if self.names:
            count += max(5, count // 5)  # some will be repeats
        question = _first_message(self.base, self.topic, count)
        if self.names:
            taken_text = ", ".join(self.names[-SHOWN_TAKEN:])
            question += "\n\n" + AGAIN.format(n=count, taken=taken_text)
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]

    def add(self, reply: str) -> int:
        """Take the new names in a reply, as many as are missing; returns how many."""
        cleaned, _ = clean_names(
            parse_names(reply),
            exclude=dict.fromkeys([*self.base, *self.names], ""),
            limit=self.n - len(self.names),
        )
        self.names += cleaned
        return len(cleaned)

    def pause_after(self, problem: str, wait: float | None, added: int) -> float:
        """Count a failure; returns the seconds before the next call.

        Raises:
            LLMError: the server asks for a longer pause than is waited.
        """
        self.problem = problem
        self.failures = 1 if added else self.failures + 1
        if self.failures >= 2:
            self.structured = False  # some servers fail on it without saying so
        return _pause(self.ask, wait, self.failures, len(self.names), self.n)

    def stored(self) -> dict[str, Any]:
        """The list as it is stored."""
        provenance: dict[str, Any] = {
            "model": self.ask.model,
            "server": self.ask.server,
            "parameters": self.ask.parameters,
            "draw": self.ask.draw,
            "system": SYSTEM,
            "prompt": _first_message(self.base, self.topic, self.n),
            "follow_up": AGAIN,
        }
        if self.answered_by:
            provenance["answered_by"] = self.answered_by
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        return {
            "names": self.names,
            "sha256": hash_names(self.names),
            "provenance": {**provenance, "date": now},
        }


def _pause(ask: Ask, wait: float | None, failures: int, have: int, n: int) -> float:
    """Seconds before the next call: what the server asks for, else doubled with each failure."""
    if wait is None:
        doubled: float = ask.backoff * 2 ** (failures - 1) * random.uniform(0.5, 1.0)
        return min(ask.max_wait, doubled)
    if wait > ask.max_wait:
        raise LLMError(
            f"{ask.server} asks to wait {wait:.0f} seconds before the next call; "
            f"{ask.max_wait:.0f} is the most that is waited. {_kept(have, n)}"
        )
    return wait


def _first_message(base: Sequence[str], topic: str, n: int) -> str:
    examples = list(base)
    if len(examples) > SHOWN_BASE:  # an even sample: the order of classes has a meaning
        examples = [examples[i * len(examples) // SHOWN_BASE] for i in range(SHOWN_BASE)]
    listed = ", ".join(example.replace("_", " ") for example in examples)
    return ASK.format(topic=topic or "everyday things", base=listed, n=n)


def _read(path: Path) -> dict[str, Any]:
    """A stored list; one that was damaged or changed by hand is an error that names the file."""
    try:
        value = json_value(read_text(path))
        names = value["names"]
        intact = value["sha256"] == hash_names(names)
        if not isinstance(value["provenance"], dict):
            intact = False
    except (OSError, ValueError, KeyError, TypeError):
        intact = False
        value = {}
    if not intact:
        raise LLMError(
            f"The stored list {path} is damaged or was changed by hand. Delete it to ask the "
            f"model again, or use your version of it with file:{path}."
        )
    return dict(value)


def _kept(have: int, n: int) -> str:
    if not have:
        return "Nothing has arrived yet; the same command tries again."
    return f"{have} of {n} names have arrived and are kept; the same command goes on from there."


def _gave_up(ask: Ask, have: int, n: int, calls: int, failures: int, problem: str) -> str:
    if failures >= ask.max_failures:
        why = f"the last {failures} calls failed: {problem}"
    else:
        why = f"{calls} calls were made, the most that are allowed"
        why += f" (the last problem: {problem})" if problem else ""
    return (
        f"{ask.model} at {ask.server} did not give {n} names: {why}. {_kept(have, n)} Ask for "
        "fewer names, raise max_calls, or use another model."
    )


def _refused(ask: Ask, problem: str, have: int, n: int) -> str:
    return (
        f"{ask.model} at {ask.server} cannot be asked: {problem}. Check OPENAI_API_KEY, "
        f"SIMPROMPT_LLM_BASE_URL and the model's name. {_kept(have, n)}"
    )
