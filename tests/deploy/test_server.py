"""The HTTP interface, through the ASGI application and once through a real socket."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

import simprompt
from simprompt.data.split import Origin, Split
from simprompt.deploy.access import Access
from simprompt.deploy.batching import Batcher
from simprompt.deploy.budget import Budget
from simprompt.deploy.engine import Engine, Judgement, Question
from simprompt.deploy.server import Limits, app
from simprompt.errors import SimpromptError
from simprompt.prompt.learn import prepare, train_alone
from simprompt.prompt.prompt import Prompt

pytestmark = pytest.mark.integration

CLASSES = ("cat", "dog", "fish", "bird")


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png(seed: int = 0, size: tuple[int, int] = (20, 16)) -> bytes:
    file = io.BytesIO()
    picture(seed, size).save(file, "PNG")
    return file.getvalue()


def prompt_of(clip, method: str = "coop", sar: float | None = None, seed: int = 1) -> Prompt:
    split = Split(
        tuple(str(i) for i in range(8)), tuple(i % 4 for i in range(8)), CLASSES,
        lambda item: picture(int(item)), origin=Origin("test", "1", ("a photo of a {}.",)),
    )  # fmt: skip
    settings = simprompt.SAR(weight=sar, novel="bundled", novel_count=4) if sar else None
    novel = ["horse", "cow", "lion"] if sar else None
    training = simprompt.Training(epochs=1, lr=0.5, batch_size=4)
    untrained = prepare(clip, split, method, settings, training=training, novel=novel, seed=seed)
    return train_alone(untrained)


@pytest.fixture(scope="module")
def engine() -> Engine:
    from simprompt.clip.hub import load_clip

    clip = load_clip("icons")
    methods = ["coop", "vpt", "cocoop", "dept", "linear-probe"]
    return Engine([prompt_of(clip, "coop", sar=0.4), *(prompt_of(clip, m) for m in methods)])


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(app(engine, Limits(bytes=400_000, pixels=10_000, images=3, names=5))) as made:
        yield made


def ask(client: TestClient, files: Sequence[bytes], names: Sequence[str] = CLASSES, **more):
    sent = [("image", (f"{i}.png", data)) for i, data in enumerate(files)]
    return client.post("/predict", files=sent, data={"name": list(names), **more})


def test_answers_are_those_of_each_prompt_alone(engine, client):
    answer = ask(client, [png(1), png(2)]).json()
    assert [one["image"] for one in answer["images"]] == ["0.png", "1.png"]
    for number, image in enumerate(answer["images"], start=1):
        got = {one["prompt"]: one["choices"] for one in image["answers"]}
        assert [*got] == [one.name for one in engine.contenders]
        for contender in engine.contenders:
            alone = Prompt(contender.learner, {}).predict([png(number)], CLASSES)[0]
            theirs = {one["name"]: one["probability"] for one in got[contender.name]}
            torch.testing.assert_close(
                torch.tensor([theirs[name] for name in CLASSES]),
                torch.tensor(alone.probabilities), rtol=1e-4, atol=1e-5,
            )  # fmt: skip
            assert [c["probability"] for c in got[contender.name]] == sorted(
                theirs.values(), reverse=True
            )


@pytest.mark.parametrize("names", [CLASSES, CLASSES[:1], ["horse"], ["horse", CLASSES[0]]])
def test_certainties_are_those_of_each_prompt_alone(engine, client, names):
    (image,) = ask(client, [png(1)], names).json()["images"]
    got = {one["prompt"]: one["certainty"] for one in image["answers"]}
    for contender in engine.contenders:
        prompt = Prompt(contender.learner, contender.prompt.card)
        if contender.name not in got:
            assert not prompt.learner.new_classes
        elif not prompt.learner.joint_answers and set(names) - set(CLASSES):
            assert got[contender.name] is None
        else:
            (alone,) = prompt.stream([png(1)], names, certain=True)
            assert got[contender.name] == pytest.approx(alone.certainty, abs=1e-4)


def test_one_zero_shot_stands_beside_prompts_of_one_clip_and_template(engine):
    names = [one.name for one in engine.contenders]
    assert names == ["zero-shot", "coop+sar", "coop", "vpt", "cocoop", "dept", "linear-probe"]
    clip, template = engine.contenders[0].learner.clip, engine.contenders[0].learner.template
    twins = Engine([prompt_of(clip, seed=1), prompt_of(clip, seed=2)])
    assert [one.name for one in twins.contenders] == ["zero-shot", "coop", "coop (2)"]
    assert twins.contenders[0].learner.template == template


def test_a_classifier_of_images_is_left_out_where_it_does_not_know_the_names(client):
    known = ask(client, [png()], ["dog", "cat"]).json()["images"][0]["answers"]
    other = ask(client, [png()], ["dog", "whale"]).json()["images"][0]["answers"]
    assert {one["prompt"] for one in known} - {one["prompt"] for one in other} == {"linear-probe"}


def test_similarities_are_cosines_of_text_features(engine, client):
    answer = client.post("/similarities", json={"names": ["cat", "whale"]}).json()
    assert "linear-probe" not in answer["matrices"]
    assert "cocoop" not in answer["matrices"]  # its text features need an image
    for name, matrix in answer["matrices"].items():
        (learner,) = (one.learner for one in engine.contenders if one.name == name)
        text = learner.text_features(learner.prompts(["cat", "whale"]))
        torch.testing.assert_close(torch.tensor(matrix), text.detach() @ text.detach().T)


def test_without_names_the_prompts_own_are_taken(engine, client):
    assert client.post("/predict", files={"image": png()}).json()["names"] == list(CLASSES)
    assert client.get("/info").json()["names"] == list(engine.names)


@pytest.mark.parametrize(
    ("files", "names", "status", "sentence"),
    [
        ([b"hello"], CLASSES, 415, "not an image"),
        ([b""], CLASSES, 415, "empty"),
        ([png()[:60]], CLASSES, 415, "damaged"),
        ([png(0, (200, 51))], CLASSES, 415, "200 x 51 pixels; at most 10,000"),
        ([png()] * 4, CLASSES, 413, "at most 3"),
        ([png()], [*CLASSES, "a", "b"], 413, "6 names; at most 5"),
        ([png()], ["cat", " "], 422, "no empty one"),
        ([png()], ["cat", "x" * 201], 413, "201 characters"),
        ([png()], ["cat", "Cat "], 422, "twice"),
        ([png()], ["ice_cream", "ice cream"], 422, "twice"),
        ([b"x" * 500_000], CLASSES, 413, "longer than 400,000 bytes"),
        ([], CLASSES, 422, "image"),
    ],
)
def test_a_bad_request_is_refused_in_one_sentence(client, files, names, status, sentence):
    answer = ask(client, files, names)
    assert answer.status_code == status
    assert sentence in answer.json()["detail"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("fields", "unknown", "known"),
    [
        ([("image", ("a.png", png())), ("names", (None, "cat"))], "names", "image, name, top"),
        ([("images", ("a.png", png()))], "images", "image, name, top"),
        ([("image", ("a.png", png())), ("", (None, "cat"))], "''", "image, name, top"),
    ],
)
def test_an_unknown_form_field_is_named(client, fields, unknown, known):
    answer = client.post("/predict", files=fields)
    assert answer.status_code == 422
    assert unknown in answer.json()["detail"]
    assert known in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/predict", "/similarities"])
@pytest.mark.parametrize("name", ["name", "image", "x", "\ud800"])
def test_an_unknown_json_field_is_named(client, path, name):
    body = json.dumps({"names": ["cat"], name: 1})
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert f"There is no field {name!a}; the fields are" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/predict", "/similarities"])
def test_fields_in_the_address_are_refused(client, path):
    answer = client.post(f"{path}?name=cat", json={"names": ["cat"]})
    assert answer.status_code == 422
    assert "name=cat" in answer.json()["detail"]


def test_a_file_where_a_text_belongs_and_a_text_where_a_file_belongs(client):
    answer = client.post("/predict", files=[("image", (None, "cat.png"))])
    assert (answer.status_code, "image=@" in answer.json()["detail"]) == (422, True)
    answer = client.post("/predict", files=[("image", ("a", png())), ("name", ("n.txt", "cat"))])
    assert (answer.status_code, "takes a text" in answer.json()["detail"]) == (422, True)


def answers_of(response) -> list:
    """Names, and of each image the prompts' choices to six places."""
    assert response.status_code == 200, response.text
    images = response.json()["images"]
    return [[
        (answer["prompt"], [(c["name"], round(c["probability"], 5)) for c in answer["choices"]])
        for answer in image["answers"]
    ] for image in images]  # fmt: skip


@pytest.mark.parametrize("form", ["{}", "data:image/png;base64,{}", "lines", "url"])
def test_json_gives_the_answers_of_a_form(client, form):
    files = [png(1), png(2)]
    coded = {
        "lines": lambda data: base64.encodebytes(data).decode(),
        "url": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    }.get(form, lambda data: form.format(base64.b64encode(data).decode()))
    sent = {"images": [coded(data) for data in files], "names": list(CLASSES), "top": 2}
    answer = client.post("/predict", json=sent)
    assert answers_of(answer) == answers_of(ask(client, files, top="2"))
    assert [image["image"] for image in answer.json()["images"]] == ["image 1", "image 2"]
    own = client.post("/predict", json={"images": sent["images"]})
    assert answers_of(own) == answers_of(ask(client, files))


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 422, "no JSON"),
        (b"\xff\xfe\x00", 422, "no JSON"),
        (b"[" * 90, 422, "no JSON"),
        (b"[" * 50_000, 413, "Too many values"),
        (b"[1]", 422, "JSON object"),
        (b'{"images": []}', 422, "no image"),
        (b'{"images": "aGVsbG8="}', 422, "list of texts"),
        (b'{"images": [1]}', 422, "images[0] has to be a text"),
        (b'{"images": ["aGVsbG8="]}', 415, "not an image"),
        (b'{"images": ["###"]}', 415, "no base64"),
        (b'{"images": ["", "", "", ""]}', 413, "at most 3"),
        (b'{"images": [""], "names": ["a","b","c","d","e","f"]}', 413, "at most 5"),
        (b'{"images": [""], "names": [["a"]]}', 422, "names[0] has to be a text"),
        (b'{"images": [""], "names": ["\\ud800"]}', 422, "no Unicode"),
        (b'{"images": [""], "names": []}', 422, "at least one class name"),
        *[
            (b'{"images": [""], "top": %s}' % top, 422, "top has to be")
            for top in (b"0", b"true", b"1.5", b'"x"', b"[]")
        ],
    ],
)
def test_bad_json_is_refused_in_one_sentence(client, body, status, sentence):
    sent = {"Content-Type": "application/json; charset=utf-8"}
    answer = client.post("/predict", content=body, headers=sent)
    assert answer.status_code == status
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "image/png", "", "multipart/mixed"])
def test_another_type_of_body_is_told_how_to_send_an_image(client, kind):
    answer = client.post("/predict", content=png(), headers={"Content-Type": kind})
    assert answer.status_code == 415
    for part in ("curl -F image=@", '"images"', "base64"):
        assert part.lower() in answer.json()["detail"].lower()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_broken_image_among_others_has_its_own_error(client, as_json):
    files = [png(1), b"hello", png(2)]
    if as_json:
        images = [base64.b64encode(data).decode() for data in files]
        answer = client.post("/predict", json={"images": images, "names": list(CLASSES)})
    else:
        answer = ask(client, files)
    one, broken, two = answers_of(answer)
    assert broken == []
    assert [one, two] == answers_of(ask(client, [png(1), png(2)]))
    wrong = [image["error"] for image in answer.json()["images"]]
    assert wrong[::2] == [None, None]
    assert "not an image" in wrong[1]
    every = ask(client, [b"hello", b""])
    assert (every.status_code, "not an image" in every.json()["detail"]) == (415, True)


def test_the_schema_describes_both_bodies(client):
    schema = client.get("/openapi.json").json()
    content = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    assert set(content["application/json"]["schema"]["properties"]) == {"images", "names", "top"}
    form = content["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"image", "name", "top"}
    documented = client.get("/docs").text
    assert all(f"<code>{name}</code>" in documented for name in ("images", "names", "image", "top"))
    image = schema["components"]["schemas"]["ImageAnswer"]["properties"]
    assert "error" in image


def test_file_names_of_other_clients_are_understood(client):
    part = (
        b"--b\r\nContent-Disposition: form-data; name=image; filename*=utf-8''%C3%A9.png\r\n"
        b"Content-Type: application/octet-stream\r\n\r\n" + png() + b"\r\n--b--\r\n"
    )
    sent = {"Content-Type": 'multipart/form-data; charset=utf-8; boundary="b"'}
    answer = client.post("/predict", content=part, headers=sent)
    assert answer.status_code == 200


def turned(orientation: int) -> bytes:
    """A photo of 20 x 16 pixels with EXIF."""
    image, file = picture(7), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_each_prompt_reads_photos_as_its_card_says(engine, orientation):
    clip = engine.contenders[0].learner.clip
    prompts = [prompt_of(clip, seed=seed) for seed in (1, 2)]
    for prompt, upright in zip(prompts, (True, False), strict=True):
        prompt.card["upright"] = upright
    for order in (prompts, prompts[::-1]):
        served = Engine(order)
        with TestClient(app(served)) as client:
            (got,) = answers_of(ask(client, [turned(orientation)]))
        shown = [contender.prompt for contender in served.contenders]
        assert shown[1:] == order
        for prompt, (_, choices) in zip(shown, got, strict=True):
            alone = prompt.predict(turned(orientation), CLASSES).probabilities
            assert [choice[1] for choice in choices] == pytest.approx(sorted(alone)[::-1], abs=1e-4)


def test_names_that_are_one_text_with_a_class_are_that_class(client):
    """The classifier of images knows its classes in any spelling, and names come back as sent."""
    names = ["Cat", "DOG", "f\u00adish", "bird\u200b"]
    other = answers_of(ask(client, [png()], names))[0]
    plain = answers_of(ask(client, [png()]))[0]
    same = dict(zip(names, CLASSES, strict=True))
    for (prompt, got), (twin, wanted) in zip(other, plain, strict=True):
        assert prompt == twin
        assert {same[name]: p for name, p in got} == pytest.approx(dict(wanted), abs=1e-5)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["cat", "c\u00adat"], "twice"),
        (["ＡＢ", "ab"], "twice"),
        (["AT&T", "AT&amp;T"], "twice"),
        (["cat", "\u200b"], "no empty one"),
    ],
)
def test_names_are_compared_as_the_package_compares_them(client, names, sentence):
    answer = ask(client, [png()], names)
    assert (answer.status_code, sentence in answer.json()["detail"]) == (422, True)


def many_names(engine: Engine, number: int) -> Engine:
    """The engine with a prompt that was learned on so many classes."""
    clip = engine.contenders[0].learner.clip
    names = tuple(f"thing{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{'uvwxyz'[i // 100]}"
                  for i in range(number))  # fmt: skip
    kind = simprompt.methods.find("zero-shot")
    learner = kind(clip, names, "a photo of a {}.", kind.Config())
    return Engine([Prompt(learner, {"method": "zero-shot"})])


def test_a_prompt_of_more_names_than_the_limit_is_served_with_its_own(engine):
    served = many_names(engine, 520)
    with TestClient(app(served)) as client:
        assert client.get("/info").json()["limits"]["names"] == 520
        without = client.post("/predict", files={"image": png()}).json()
        own = client.post("/predict", files={"image": png()}, data={"name": list(served.names)})
        assert own.json()["images"] == without["images"]
        assert len(own.json()["names"]) == 520
        one_more = client.post(
            "/predict", files={"image": png()}, data={"name": [*served.names, "one more"]}
        )
        assert (one_more.status_code, "at most 520" in one_more.json()["detail"]) == (413, True)
        assert client.post("/similarities", json={"names": list(served.names)}).status_code == 413


def test_prompts_whose_names_are_one_text_are_served_together(engine):
    clip = engine.contenders[0].learner.clip
    kind = simprompt.methods.find("zero-shot")
    prompts = [
        Prompt(kind(clip, names, "a photo of a {}.", kind.Config()), {"method": "zero-shot"})
        for names in (("Apple", "pear"), ("apple", "plum"))
    ]
    served = Engine(prompts)
    assert served.names == ("Apple", "pear", "plum")
    with TestClient(app(served)) as client:
        assert client.post("/predict", files={"image": png()}).status_code == 200


def test_prompts_of_one_model_at_two_sizes_do_not_share_it(engine, tmp_path: Path):
    from simprompt.deploy.engine import load_prompts

    prompt = engine.contenders[2].prompt
    paths = []
    for name, size in (("a", None), ("b", 64)):
        card = {**prompt.card, "image_size": size, "model_digest": None, "format": 1}
        paths.append(Prompt(prompt.learner, card).save(tmp_path / name))
    sizes = [one.clip.preprocess.size for one in load_prompts(paths)]
    assert sizes == [prompt.clip.preprocess.size, 64]


def test_a_body_without_a_declared_length_is_cut_off_as_well(client):

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 100_000

    sent = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/predict", content=endless(), headers=sent)
    assert answer.status_code == 413


def test_a_pixel_bomb_is_refused_before_it_is_decoded(client):
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")  # 400 million pixels in 50 kB
    answer = ask(client, [bomb.getvalue()])
    assert answer.status_code == 415
    assert "pixels" in answer.json()["detail"]


def test_pages_of_other_sites_and_other_host_names_are_refused(engine):
    with TestClient(app(engine, access=Access(("testserver",)))) as client:
        assert client.get("/healthz").status_code == 200
        own, foreign = "http://testserver", "http://other.example"
        assert client.get("/healthz", headers={"Origin": own}).status_code == 200
        assert client.get("/healthz", headers={"Origin": foreign}).status_code == 403
        assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 403


def test_the_page_asks_no_other_host(client):
    paths = ("/", "/page.css", "/page.js", "/docs")
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200
        assert not re.search(r"https?://(?!HOST)", answer.text)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    linked = set(re.findall(r'(?:href|src)="([^"#]*)"', client.get("/").text))
    assert linked == {"page.css", "page.js", "docs"}  # relative: a proxy may show it below a path
    assert client.get("/page.html").status_code == 404
    documented = set(re.findall(r"<h2>\w+ (/\S*)</h2>", client.get("/docs").text))
    assert documented == set(client.get("/openapi.json").json()["paths"])


@pytest.mark.parametrize("host", ["[::1", "a b", "testserver.evil", "testserver@evil", "\xe9", ""])
def test_a_host_header_that_is_no_name_of_the_server_is_refused(engine, host):
    with TestClient(app(engine, access=Access(("testserver",)))) as client:
        answer = client.get("/healthz", headers={"Host": host.encode("latin-1")})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["testserver:8000", "TestServer", "testserver.", "testserver"])
def test_the_own_name_is_answered_in_every_form(engine, host):
    with TestClient(app(engine, access=Access(("testserver",)))) as client:
        assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_proxy_may_take_tls_off(engine):
    """Only host names are compared, as the scheme may be lost on the way."""
    access = Access(("127.0.0.1",), sites=("my.site.org",))
    with TestClient(app(engine, access=access)) as client:
        for host in ("my.site.org", "127.0.0.1:8000"):
            sent = {"Host": host, "Origin": "https://my.site.org", "X-Forwarded-Proto": "https"}
            answer = client.post("/similarities", json={"names": ["cat"]}, headers=sent)
            assert answer.status_code == 200
            assert "access-control-allow-origin" not in answer.headers
            for foreign in ("https://other.org", "null", "https://my.site.org.evil", "x://y"):
                refused = client.get("/info", headers=sent | {"Origin": foreign})
                assert refused.status_code == 403


def test_another_site_may_ask_where_that_is_allowed(engine):
    access = Access(("testserver",), origins=("https://my.site.org",))
    with TestClient(app(engine, access=access)) as client:
        sent = {"Origin": "https://my.site.org"}
        asked = sent | {"Access-Control-Request-Method": "POST",
                        "Access-Control-Request-Headers": "content-type"}  # fmt: skip
        before = client.options("/predict", headers=asked)
        assert before.status_code == 204
        assert "content-type" in before.headers["access-control-allow-headers"]
        for answer in (before, client.post("/similarities", json={"names": [""]}, headers=sent),
                       client.get("/info", headers=sent)):  # fmt: skip
            assert answer.headers["access-control-allow-origin"] == "https://my.site.org"
            assert answer.headers["vary"] == "Origin"
        foreign = asked | {"Origin": "https://other.org"}
        assert client.options("/predict", headers=foreign).status_code == 403


@pytest.mark.parametrize("path", ["/", "/info", "/healthz", "/metrics", "/docs", "/page.js", "/x"])
def test_head_is_get_without_content(client, path):
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert client.head("/predict").status_code == 405
    assert client.delete("/info").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("prefix", ["", "/app"])
def test_a_proxy_may_keep_the_path_below_which_it_shows_the_server_or_take_it_off(engine, prefix):
    with TestClient(app(engine, root_path="/app")) as client:
        for path in ("/", "/page.js", "/docs", "/healthz", "/openapi.json"):
            assert client.get(f"{prefix}{path}").status_code == 200
        assert client.post(f"{prefix}/similarities", json={"names": ["cat"]}).status_code == 200
        servers = client.get(f"{prefix}/openapi.json").json()["servers"]
        assert servers == [{"url": "/app"}]
        counted = client.get(f"{prefix}/metrics").text
        assert 'simprompt_requests_total{path="/similarities",status="200"} 1.0' in counted


def test_a_method_that_there_is_not_is_told_which_there_are(client):
    answer = client.delete("/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_requests_are_counted(client):
    before = client.get("/metrics").text
    ask(client, [b"no image"])
    count = r'simprompt_requests_total{path="/predict",status="415"} (\d+)'
    number = [int(float(re.search(count, text)[1])) if re.search(count, text) else 0
              for text in (before, client.get("/metrics").text)]  # fmt: skip
    assert number[1] == number[0] + 1


class Held(Engine):
    """An engine that waits until it may answer."""

    def __init__(self, engine: Engine) -> None:
        self.contenders, self.go, self.asked = engine.contenders, threading.Event(), []

    def answer(self, questions: Sequence[Question]) -> list[dict[str, Judgement]]:
        self.asked.append(len(questions))
        self.go.wait(2)  # far longer than the limit that is tested
        return [
            {"zero-shot": Judgement([1.0 / len(q.names)] * len(q.names), None)} for q in questions
        ]


def test_too_many_requests_at_once_and_late_answers_are_said(engine):
    held = Held(engine)
    with TestClient(app(held, Limits(in_flight=1, seconds=0.3))) as client:
        late = ask(client, [png()])
        assert (late.status_code, late.headers["retry-after"]) == (429, "5")
        answers: list = []
        held.go.clear()
        # the first one occupies the only place until it is given up
        threads = [
            threading.Thread(target=lambda: answers.append(ask(client, [png()]).status_code))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [429, 429, 429]
        held.go.set()
        assert ask(client, [png()]).status_code == 200


def test_what_takes_no_time_is_answered_when_all_places_are_taken(engine):
    held = Held(engine)
    with TestClient(app(held, Limits(in_flight=1, seconds=10))) as client:
        busy = threading.Thread(target=ask, args=(client, [png()]))
        busy.start()
        while not held.asked:
            time.sleep(0.001)
        assert ask(client, [png()]).status_code == 429
        for path in ("/healthz", "/metrics", "/info", "/", "/docs", "/page.css", "/openapi.json"):
            assert client.get(path).status_code == 200
        held.go.set()
        busy.join()


class Scripted:
    """An ASGI client whose body comes in pieces, or never; TestClient sends a body at once."""

    def __init__(self, parts: Sequence[bytes], wait: float) -> None:
        self.parts, self.wait, self.sent = list(parts), wait, []

    async def receive(self) -> dict:
        if self.parts:
            part = self.parts.pop(0)
            await asyncio.sleep(self.wait)
            return {"type": "http.request", "body": part, "more_body": True}
        await asyncio.sleep(60)
        raise AssertionError

    async def send(self, message: dict) -> None:
        self.sent.append(message)

    async def ask(self, application) -> int:
        scope = {
            "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict",
            "headers": [(b"host", b"testserver")], "query_string": b"", "http_version": "1.1",
            "scheme": "http", "server": ("testserver", 80), "root_path": "",
        }  # fmt: skip
        await application(scope, self.receive, self.send)
        return self.sent[0]["status"]


@pytest.mark.parametrize("aliased", [True, False])
def test_a_slow_body_ends_in_time_and_takes_no_place(engine, monkeypatch, aliased):
    """Before Python 3.11 asyncio's TimeoutError is a class of its own."""
    if not aliased:

        class OtherError(Exception):
            pass

        wait_for = asyncio.wait_for

        async def waiting(awaitable, timeout):
            try:
                return await wait_for(awaitable, timeout)
            except TimeoutError:
                raise OtherError from None

        monkeypatch.setattr(asyncio, "TimeoutError", OtherError)
        monkeypatch.setattr(asyncio, "wait_for", waiting)
    limits = Limits(in_flight=1, idle_seconds=0.2, upload_seconds=0.5, seconds=5)
    application = app(engine, limits)

    async def work() -> list[int]:
        stuck = [Scripted([b"x"], 0) for _ in range(3)]
        dripping = [Scripted([b"x"] * 100, 0.05) for _ in range(3)]
        started = time.perf_counter()
        statuses = await asyncio.gather(*(one.ask(application) for one in [*stuck, *dripping]))
        assert time.perf_counter() - started < 3
        return statuses

    assert asyncio.run(work()) == [408] * 6


def test_bodies_in_memory_are_bounded_together(engine):
    limits = Limits(held_bytes=1000, idle_seconds=1)
    application = app(engine, limits)

    async def work() -> list[int]:
        first = [Scripted([b"x" * 400], 0) for _ in range(3)]
        return await asyncio.gather(*(one.ask(application) for one in first))

    assert sorted(asyncio.run(work())) == [408, 408, 429]
    assert asyncio.run(Scripted([b"x" * 900], 0).ask(application)) == 408  # it was given back


def flat(side: int) -> bytes:
    """A large image in a small file."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "PNG")
    return file.getvalue()


def test_pixels_of_a_request_are_counted_before_one_is_decoded(engine, monkeypatch):
    from simprompt.deploy import engine as module

    decoded = []
    read = module.read_image
    monkeypatch.setattr(module, "read_image", lambda *a, **k: decoded.append(1) or read(*a, **k))
    limits = Limits(pixels=10_000, request_pixels=20_000)
    with TestClient(app(engine, limits)) as client:
        answer = ask(client, [flat(100)] * 3)
        assert (answer.status_code, "30,000 pixels;" in answer.json()["detail"]) == (413, 1)
        assert not decoded
        assert ask(client, [flat(100)] * 2).status_code == 200


def test_images_are_decoded_one_at_a_time_and_only_the_models_size_is_kept(engine, monkeypatch):
    from simprompt.deploy import engine as module

    live, most = set(), []
    read = module.read_image

    def counted(*given, **options):
        image = read(*given, **options)
        if image.size == (300, 300):
            live.add(id(image))
            most.append(len(live))
            weakref.finalize(image, live.discard, id(image))
        return image

    monkeypatch.setattr(module, "read_image", counted)
    limits = Limits(pixels=90_000, request_pixels=16 * 90_000)
    with TestClient(app(engine, limits)) as client:
        threads = [threading.Thread(target=ask, args=(client, [flat(300)] * 8)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(most) == 32
    assert max(most) <= 2  # two threads, of which the budget of pixels lets one work at a time


def test_requests_that_were_given_up_still_count_while_their_images_are_decoded(
    engine, monkeypatch
):
    from simprompt.deploy import engine as module

    working, most, lock = 0, 0, threading.Lock()
    read = module.read_image

    def slow(*given, **options):
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        time.sleep(0.2)
        with lock:
            working -= 1
        return read(*given, **options)

    monkeypatch.setattr(module, "read_image", slow)
    limits = Limits(pixels=10_000, seconds=0.3)
    with TestClient(app(engine, limits)) as client:
        threads = [threading.Thread(target=ask, args=(client, [flat(100)] * 4)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 1


def test_a_file_that_would_start_a_program_is_not_decoded(client):
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF"
    answer = ask(client, [page])
    assert (answer.status_code, "EPS" in answer.json()["detail"]) == (415, True)


def test_a_million_names_are_counted_and_not_worked_on(engine):
    body = json.dumps({"names": ["", *(["a"] * 1_000_000)]}).encode()
    form = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n' for _ in range(20_000)
    )
    sent = {"Content-Type": "multipart/form-data; boundary=b"}
    with TestClient(app(engine)) as client:
        started = time.perf_counter()
        assert client.post("/similarities", content=body).status_code == 413
        assert client.post("/predict", content=form + b"--b--\r\n", headers=sent).status_code == 413
        assert time.perf_counter() - started < 2


def test_a_budget_is_never_exceeded_and_nobody_waits_for_ever():
    async def work() -> int:
        budget, most = Budget(10), 0
        numbers = random.Random(1)

        async def user(amount: int) -> None:
            nonlocal most
            async with budget.hold(amount):
                most = max(most, budget.used)
                await asyncio.sleep(numbers.random() / 500)

        users = [asyncio.create_task(user(numbers.randint(0, 14))) for _ in range(300)]
        for one in numbers.sample(users, 100):
            await asyncio.sleep(0)
            one.cancel()
        await asyncio.wait_for(asyncio.gather(*users, return_exceptions=True), 20)
        assert budget.used == 0
        return most

    assert asyncio.run(work()) == 10


def test_questions_that_wait_go_together_and_a_bad_one_spoils_no_other():
    batches: list[list[int]] = []
    first = threading.Event()

    def answer(questions: Sequence[int]) -> list[int]:
        batches.append(list(questions))
        if len(batches) == 1:
            first.wait(60)
        if 3 in questions:
            raise SimpromptError("three")
        return [10 * q for q in questions]

    async def work() -> list:
        batcher: Batcher[int, int] = Batcher(answer, most=4)
        task = asyncio.create_task(batcher.run())
        asked = [asyncio.create_task(batcher.ask(q)) for q in range(7)]
        while not batches:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        first.set()
        made = await asyncio.gather(*asked, return_exceptions=True)
        task.cancel()
        batcher.close()
        return made

    made = asyncio.run(work())
    assert [m for i, m in enumerate(made) if i != 3] == [0, 10, 20, 40, 50, 60]
    assert isinstance(made[3], SimpromptError)
    assert max(map(len, batches)) == 4


def test_serve_answers_on_a_socket_and_stops_on_sigterm(engine, tmp_path: Path):
    prompt = Prompt(engine.contenders[2].learner, {
        "format": 1, "model": "icons", "tokenizer": None, "method": "coop",
        "options": engine.contenders[2].prompt.card["options"], "template": "a photo of a {}.",
        "classnames": list(CLASSES), "seed": 1, "sar": None,
    })  # fmt: skip
    prompt.save(tmp_path / "p")
    command = [sys.executable, "-m", "simprompt", "serve", str(tmp_path / "p"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{address}info", timeout=60) as answer:
            assert [p["name"] for p in json.load(answer)["prompts"]] == ["zero-shot", "coop"]
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 128 + signal.SIGTERM
