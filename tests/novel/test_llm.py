"""Asking a language model that misbehaves: the right list or a clear error, nothing lost."""

import base64
import email.utils
import json
import logging
import re
import time
from urllib.parse import quote

import llm_server as server
import pytest

from simprompt.novel import NovelNameError, novel_names
from simprompt.novel.endpoint import Ask, LLMError
from simprompt.novel.llm import generate, stored_path
from simprompt.novel.names import NovelList, hash_names

pytestmark = pytest.mark.integration

pytest.importorskip("openai")

KEY = "sk-very-secret-0123456789"
BASE = ["beagle", "boxer"]
WANTED = [
    f"breed {word}"
    for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SIMPROMPT_LLM_MODEL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked(tmp_path):
    """asked(script, **limits) -> (list or error, requests, seconds slept): one whole session."""

    def ask(script, n=10, **limits):
        slept = []
        with server.Server(script) as running:
            how = Ask(**{"model": "tiny", "base_url": running.url, "api_key": KEY, "timeout": 30,
                         **limits})  # fmt: skip
            try:
                result = generate(BASE, "dogs", n, how, tmp_path / "lists", slept.append)["names"]
            except LLMError as error:
                result = error
        check_secret(tmp_path / "lists", result)
        return result, running.requests, slept

    return ask


def check_secret(folder, result):
    """The key is in no file and no message."""
    assert KEY not in str(result)
    assert KEY not in repr(result)
    for path in folder.rglob("*") if folder.exists() else []:
        assert KEY not in path.read_text(encoding="utf-8")


GOOD = server.names(WANTED)
LATE = server.sleeps(3)
NUMBERED = "Sure! Here are ten breeds:\n\n" + "\n".join(
    f"{i}. **{name}** - a fine dog" for i, name in enumerate(WANTED, 1)
)
FENCED = f"Of course.\n```json\n{json.dumps(WANTED, indent=1)}\n```\nLet me know if you need more."
WHOLE = server.completion(json.dumps({"names": WANTED}))


@pytest.mark.parametrize(
    ("script", "calls"),
    [
        pytest.param([GOOD], 1, id="well"),
        pytest.param([server.says(NUMBERED)], 1, id="prose around a numbered list"),
        pytest.param([server.says(FENCED)], 1, id="code fence"),
        pytest.param([server.says("\n".join(WANTED))], 1, id="plain lines"),
        pytest.param([server.says("They are: " + ", ".join(WANTED) + ".")], 1, id="commas"),
        pytest.param([server.says(json.dumps([{"name": w} for w in WANTED]))], 1, id="objects"),
        pytest.param(
            [server.says("<think>[\"no\", \"not\"]</think>" + json.dumps(WANTED))], 1, id="thought"
        ),
        pytest.param([server.says([{"type": "text", "text": FENCED}])], 1, id="parts"),
        pytest.param([server.fails(500), GOOD], 2, id="500"),
        pytest.param([server.fails(503), server.fails(502), GOOD], 3, id="503 502"),
        pytest.param([server.fails(429, headers={"Retry-After": "7"}), GOOD], 2, id="429"),
        pytest.param([server.says(""), GOOD], 2, id="empty"),
        pytest.param([server.says(None), GOOD], 2, id="null"),
        pytest.param([server.says("I cannot help with that."), GOOD], 2, id="refusal"),
        pytest.param([server.raw(b"<html>hello</html>", "text/html"), GOOD], 2, id="html"),
        pytest.param([server.raw(b"[]"), GOOD], 2, id="no completion"),
        pytest.param([server.raw(b"\x00\xff\xfe garbage"), GOOD], 2, id="garbage"),
        pytest.param([server.hangs_up, GOOD], 2, id="closed socket"),
        pytest.param([server.breaks_off(WHOLE[:30]), GOOD], 2, id="closed early"),
        pytest.param([server.names(BASE), GOOD], 2, id="only base classes"),
        pytest.param([server.names(["Beagle", *WANTED, "BOXER"])], 1, id="base classes among it"),
        pytest.param(
            [server.names(WANTED[:6] + WANTED[:6]), server.names(WANTED)], 2, id="duplicates"
        ),
        pytest.param([server.names(WANTED[i : i + 3]) for i in (0, 3, 6, 9)], 4, id="3 at a time"),
        pytest.param([server.fails(400, "response_format is not known"), GOOD], 2, id="no schema"),
        pytest.param([server.drips(WHOLE, 0.5, 20)], 1, id="slow but whole"),
        pytest.param([LATE, GOOD], 2, id="no answer in time"),
    ],
)  # fmt: skip
def test_misbehaviour_ends_in_the_right_list(asked, script, calls):
    timeout = 1 if script[0] is LATE else 30
    result, requests, _ = asked(script, timeout=timeout)
    assert result == WANTED
    assert len(requests) == calls


def test_structured_output_is_asked_for_until_the_server_declines(asked):
    _, requests, _ = asked([server.fails(422, "unknown field"), GOOD])
    assert requests[0]["response_format"]["type"] == "json_schema"
    assert "response_format" not in requests[1]


def test_a_server_that_falls_over_structured_output_is_asked_without(asked):
    def only_plain(handler):
        (server.fails(500) if "response_format" in handler.body else GOOD)(handler)

    result, requests, _ = asked([only_plain])
    assert result == WANTED
    assert len(requests) == 3


def test_names_before_the_break_are_kept_and_the_rest_is_asked_for(asked):
    at = WHOLE.index(b"breed five") + 6
    result, requests, _ = asked([server.breaks_off(WHOLE[:at]), server.names(WANTED[4:])])
    assert result == WANTED
    again = requests[1]["messages"][-1]["content"]
    assert "breed four" in again
    assert "breed five" not in again


def test_half_a_json_in_a_whole_answer(asked):
    half = json.dumps({"names": WANTED})[:60]
    result, requests, _ = asked([server.says(half), GOOD])
    assert result == WANTED
    assert len(requests) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "utf-8-sig"])
def test_wrong_encodings_are_read(asked, encoding):
    text = server.completion(json.dumps(["Löwchen", "Kooikerhondje"], ensure_ascii=False)).decode()
    result, _, _ = asked([server.raw(text.encode(encoding), "application/json; charset=ascii")], 2)
    assert result == ["Löwchen", "Kooikerhondje"]


def test_dripping_server_is_left_at_the_deadline_with_what_it_sent(asked):
    started = time.monotonic()
    result, requests, _ = asked([server.drips(WHOLE, 60, 600)], timeout=1, max_failures=2)
    assert time.monotonic() - started < 60  # of the two minutes that it would drip
    assert isinstance(result, LLMError)
    assert "within 1 seconds" in str(result)
    assert len(requests) == 2


def test_retry_after_is_honoured_in_seconds_dates_and_milliseconds(asked):
    date = email.utils.formatdate(time.time() + 9, usegmt=True)
    script = [
        server.fails(429, headers={"Retry-After": "7"}),
        server.fails(503, headers={"Retry-After": date}),
        server.fails(429, headers={"retry-after-ms": "1500"}),
        server.fails(429, headers={"Retry-After": "soon"}),
        GOOD,
    ]
    result, _, slept = asked(script)
    assert result == WANTED
    assert slept[0] == 7
    assert 6 < slept[1] <= 9
    assert slept[2] == 1.5
    assert 4 <= slept[3] <= 8  # back-off of the fourth failure


def test_a_wait_beyond_the_limit_is_an_error_not_a_sleep(asked):
    result, _, slept = asked([server.fails(429, headers={"Retry-After": "86400"})])
    assert "asks to wait 86400 seconds" in str(result)
    assert slept == []


def test_back_off_doubles_and_calls_are_bounded(asked):
    result, requests, slept = asked([server.fails(500, "melted")])
    assert isinstance(result, LLMError)
    assert "it answered 500: melted" in str(result)
    assert len(requests) == 5
    assert len(slept) == 4
    assert all(0.5 * 2**i <= s <= 2**i for i, s in enumerate(slept))


def test_a_model_that_only_repeats_itself_is_given_up_and_its_names_are_kept(asked, tmp_path):
    result, requests, _ = asked([server.names(WANTED[:3])])
    assert "without a new name" in str(result)
    assert "3 of 10 names have arrived and are kept" in str(result)
    assert len(requests) == 6
    # The same question goes on from there, with another server or a better hour.
    result, requests, _ = asked([server.names(WANTED[3:])])
    assert result == WANTED
    assert len(requests) == 1
    assert not list((tmp_path / "lists").glob("*.partial.json"))


def test_most_calls_for_a_server_that_gives_three_at_a_time(asked):
    many = [server.names([f"dog {i}a", f"dog {i}b", f"dog {i}c"]) for i in "pqrstuvw"]
    result, requests, _ = asked(many, n=200, max_calls=4)
    assert "4 calls were made" in str(result)
    assert "12 of 200" in str(result)
    assert len(requests) == 4


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (server.fails(401, f"Incorrect API key provided: {KEY}"), "401: Incorrect API key"),
        (server.fails(403, "Bearer abc.def not allowed"), "403"),
        (server.fails(404, "model tiny not found"), "404: model tiny not found"),
        (server.fails(429, "pay", code="insufficient_quota"), "429: pay"),
    ],
)
def test_refusals_end_at_once_without_the_key(asked, behaviour, said):
    result, requests, _ = asked([behaviour])
    assert isinstance(result, LLMError)
    assert said in str(result)
    assert "abc.def" not in str(result)
    assert len(requests) == 1


def test_no_server_at_all(tmp_path):
    how = Ask(base_url="http://127.0.0.1:9/v1", api_key=KEY, timeout=5, max_failures=2, backoff=0)
    with pytest.raises(LLMError, match="connection failed"):
        generate(BASE, "dogs", 3, how, tmp_path)


@pytest.mark.parametrize(
    "address", ["localhost:11434", "file:///etc/passwd", "http://", "http://a:b"]
)
def test_addresses_that_are_none(address):
    with pytest.raises(LLMError, match="SIMPROMPT_LLM_BASE_URL"):
        Ask(base_url=address)


@pytest.mark.parametrize("limits", [{"timeout": 0}, {"timeout": float("nan")}, {"max_calls": 0}])
def test_limits_that_are_none(limits):
    with pytest.raises(LLMError, match="cannot be asked with"):
        Ask(**limits)


def test_nobody_to_ask(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("SIMPROMPT_LLM_BASE_URL", raising=False)
    with pytest.raises(NovelNameError, match="neither SIMPROMPT_LLM_BASE_URL nor OPENAI_API_KEY"):
        novel_names("llm", BASE, topic="dogs", store=tmp_path)


def test_list_is_stored_with_its_making_and_never_asked_for_again(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    with server.Server([GOOD]) as running:
        monkeypatch.setenv("SIMPROMPT_LLM_BASE_URL", running.url.replace("//", "//user:pa55word@"))
        made = novel_names("llm[model=tiny,temperature=0.5]:10", BASE, topic="dogs", store=tmp_path)
        assert made.names == tuple(WANTED)
        assert running.requests[0]["temperature"] == 0.5
        assert len(running.requests) == 1
    # The server is gone; new classes do not change the question, so the list is found.
    again = novel_names(
        "llm[model=tiny,temperature=0.5]:10", BASE, topic="dogs", store=tmp_path, seed=5,
        new=["breed ten"],
    )  # fmt: skip
    assert again.names == tuple(WANTED[:-1])
    (path,) = tmp_path.iterdir()
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value["sha256"] == hash_names(WANTED)
    told = value["provenance"]
    assert told["model"] == "tiny"
    assert told["parameters"] == {"temperature": 0.5}
    assert told["server"] == running.url
    assert "beagle, boxer" in told["prompt"]
    assert told["date"].startswith("20")
    assert KEY not in caplog.text
    assert "pa55word" not in path.read_text(encoding="utf-8") + str(made)
    assert NovelList.from_json(made.to_json()) == made


def test_real_new_classes_are_never_told_to_the_model(tmp_path, monkeypatch):
    with server.Server([GOOD]) as running:
        monkeypatch.setenv("SIMPROMPT_LLM_BASE_URL", running.url)
        novel_names("llm:10", BASE, topic="dogs", store=tmp_path, new=["axolotl hound"])
        assert "axolotl" not in json.dumps(running.requests[0]["messages"])


def test_damaged_stored_list_is_a_clear_error(tmp_path):
    how = Ask(model="tiny", api_key=KEY)
    path = stored_path(BASE, "dogs", 3, how, tmp_path)
    for text in ("{", "[]", '{"names": ["a"], "sha256": "0", "provenance": {}}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(LLMError, match="damaged or was changed by hand"):
            generate(BASE, "dogs", 3, how, tmp_path)


def test_a_server_that_echoes_the_key_as_a_name(asked):
    result, _, _ = asked([server.names([f"dog {KEY}", *WANTED])])
    assert result == WANTED


FORMS = {
    "whole": KEY,
    "the beginning": KEY[:12],
    "the end": KEY[-9:],
    "capital letters": KEY.upper(),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of user and key": base64.b64encode(f"me:{KEY}".encode()).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(f"ab{KEY}".encode()).decode().rstrip("="),
    "hexadecimal": KEY.encode().hex(),
    "percent-encoded": quote(KEY + "/+", safe=""),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_server_that_echoes_the_key_in_any_form(form, asked):
    shown = FORMS[form]
    result, _, _ = asked([server.fails(400, f"no such key: {shown}, sorry")])
    assert isinstance(result, LLMError)
    assert "sorry" in str(result)
    assert not any(shown[i : i + 8].lower() in str(result).lower() for i in range(len(shown) - 7))
    names, _, _ = asked([server.names([f"dog {shown}", *WANTED])])
    assert names == WANTED


def test_a_redirect_counts_as_a_call_and_a_loop_ends(asked):
    def around(handler):
        handler.send(b"", 307, {"Location": handler.path})

    result, requests, _ = asked([around], max_calls=3)
    assert isinstance(result, LLMError)
    assert len(requests) == 3
    assert re.search(r"sent on to another address \d times \(127\.0\.0\.1:\d+\)", str(result))


def test_who_answered_in_the_end_is_kept_and_named(tmp_path):
    with server.Server([server.names(WANTED)]) as end:

        def on(handler):
            handler.send(b"", 307, {"Location": f"{end.url}/chat/completions"})

        with server.Server([on]) as first:
            how = Ask(model="tiny", base_url=first.url, api_key=KEY, timeout=30)
            made = generate(BASE, "dogs", 10, how, tmp_path, lambda _: None)
        host = end.url.split("/")[2]
        assert made["names"] == WANTED
        assert made["provenance"]["answered_by"] == host
        assert KEY not in str(end.requests[0]["headers"]), "a key is for the host it was given for"

        def refused(handler):
            handler.send(b"", 307, {"Location": f"{end.url}/nowhere"})

        end.script = [server.fails(403, "go away")]
        with server.Server([refused]) as first:
            how = Ask(model="tiny", base_url=first.url, api_key=KEY, timeout=30)
            with pytest.raises(LLMError, match=f"answered 403 at {host}, where it sent on to"):
                generate(BASE, "cats", 10, how, tmp_path, lambda _: None)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"retry-after-ms": "-5000"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "nan", "Retry-After": "2"}, 2.0),
        ({"Retry-After": "-3"}, 0.0),
    ],
)
def test_what_a_server_asks_to_wait(headers, pause, asked):
    result, _, slept = asked([server.fails(429, headers=headers), server.names(WANTED)])
    assert result == WANTED
    assert slept == [pause]


def test_client_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(LLMError, match="pip install 'openai"):
        generate(BASE, "dogs", 3, Ask(api_key=KEY), tmp_path)
