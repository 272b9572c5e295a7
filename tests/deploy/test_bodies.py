"""Reading the bodies of requests: what was put in comes out, and nothing else than a refusal."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("python_multipart")

from simprompt.deploy.bodies import (
    Limits,
    PredictRequest,
    RequestRefusedError,
    checked_names,
    read_names,
    read_predict,
)

LIMITS = Limits(images=4, names=6, name_length=20)
FORM = "multipart/form-data; boundary=edge"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FILES = st.lists(st.binary(max_size=200).filter(lambda data: b"edge" not in data), min_size=1,
                 max_size=4)  # fmt: skip


def form_of(files: list[bytes], names: list[str], top: int | None = None) -> bytes:
    """A multipart body."""
    parts = [('name="image"; filename="a"', data) for data in files]
    parts += [('name="name"', name.encode()) for name in names]
    parts += [] if top is None else [('name="top"', str(top).encode())]
    sent = b"".join(
        b"--edge\r\nContent-Disposition: form-data; " + kind.encode() + b"\r\n\r\n" + data + b"\r\n"
        for kind, data in parts
    )
    return sent + b"--edge--\r\n"


@given(FILES, st.lists(TEXT, max_size=6), st.integers(1, 99))
@settings(deadline=None)
def test_a_form_and_json_give_what_was_sent(files, names, top):
    form = read_predict(FORM, form_of(files, names, top), LIMITS)
    sent = {"images": [base64.b64encode(data).decode() for data in files], "top": top}
    sent |= {"names": names} if names else {}
    coded = read_predict("application/json", json.dumps(sent).encode(), LIMITS)
    for asked in (form, coded):
        assert [image.data for image in asked.images] == files
        assert asked.names == (names or None)
        assert asked.top == top


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_body_is_read_or_refused(data):
    """Bodies near valid ones: cut, with a byte changed, with parts exchanged; and any bytes."""
    whole = data.draw(st.one_of(
        st.binary(max_size=100),
        st.builds(form_of, FILES, st.lists(TEXT, max_size=8)),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=9)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=8),
                st.dictionaries(st.sampled_from(["images", "names", "top", "x"]), inner),
            ),
        ).map(lambda value: json.dumps(value).encode()),
    ))  # fmt: skip
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    body = data.draw(st.sampled_from([
        whole, whole[:end], whole[start:], whole[:start] + whole[end:],
        whole[:start] + b"\0" + whole[start:],
    ]))  # fmt: skip
    kind = data.draw(st.sampled_from([FORM, "application/json", "", "multipart/form-data", "a/b"]))
    statuses = [outcome(read, kind, body) for read in (read_predict, read_names)]
    assert set(statuses) <= {200, 400, 413, 415, 422}


def outcome(read: Callable[..., PredictRequest | list[str]], kind: str, body: bytes) -> int:
    """The status of a body and of the names in it; every other error goes on."""
    try:
        asked = read(kind, body, LIMITS)
        names = asked.names if isinstance(asked, PredictRequest) else asked
        if names is not None and checked_names(names, LIMITS) != tuple(names):
            return 500
    except RequestRefusedError as error:
        return error.status if str(error).isprintable() else 500
    return 200
