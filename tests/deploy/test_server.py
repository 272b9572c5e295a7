"""The HTTP interface, through the ASGI application and once through a real socket."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

import simprompt
from simprompt.data.dataset import Origin, Split
from simprompt.deploy.batching import Batcher
from simprompt.deploy.engine import Engine, Question
from simprompt.deploy.server import Limits, app
from simprompt.errors import SimpromptError
from simprompt.prompt import Prompt, prepare, train_alone

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
    with TestClient(app(engine, hosts=["testserver"])) as client:
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
    linked = set(re.findall(r'(?:href|src)="(/[^"#]*)"', client.get("/").text))
    assert linked == {"/page.css", "/page.js", "/docs"}
    assert client.get("/page.html").status_code == 404
    documented = set(re.findall(r"<h2>\w+ (/\S*)</h2>", client.get("/docs").text))
    assert documented == set(client.get("/openapi.json").json()["paths"])


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

    def answer(self, questions: Sequence[Question]) -> list[dict[str, list[float]]]:
        self.asked.append(len(questions))
        self.go.wait(2)  # far longer than the limit that is tested
        return [{"zero-shot": [1.0 / len(q.names)] * len(q.names)} for q in questions]


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
