"""A prompt, an engine, a classifier asked by many threads: each answer is the one given alone."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.deploy.engine import Engine, Picture, Question
from simprompt.methods.base import PromptLearner
from simprompt.methods.teacher import Teacher
from simprompt.prompt.prompt import Prompt
from simprompt.prompt.sklearn import PromptClassifier
from simprompt.utils import signals

pytestmark = pytest.mark.integration

NAMES = ("cat", "red fox", "zebra", "old house")
METHODS = (
    "coop", "kgcoop", "promptsrc", "tcp", "dept", "cocoop", "means+text", "zero-shot", "vpt",
)  # fmt: skip
THREADS, ROUNDS = 5, 6
WORDS = [
    "cat",
    "dog",
    "fish",
    "bird",
    "horse",
    "cow",
    "lion",
    "bear",
    "wolf",
    "owl",
    "tree",
    "palm",
]


@pytest.fixture(autouse=True)
def hurried() -> Iterator[None]:
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def prompt_of(clip: CLIP, method: str) -> Prompt:
    """A prompt whose learned values are not those that it starts from."""
    kind = methods.find(method)
    options = {"templates": ("a {}.", "the {}.")} if method == "promptsrc" else {}
    learner: PromptLearner[Any] = kind(clip, NAMES, "a photo of a {}.", kind.Config(**options))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in learner.parameters():
            value += 0.02 * torch.randn(value.shape, generator=random)
    return Prompt(learner, {"method": method, "classnames": [*NAMES]})


def fresh_names(thread: int, turn: int) -> tuple[str, ...]:
    """Names that nobody asked for before, and in some lists names of training among them."""
    first, second = WORDS[(thread + turn) % 12], WORDS[(3 * thread + turn) % 12]
    new = (f"{first} {thread} {turn}", f"old {second} {thread} {turn}", f"{turn} {first} {thread}")
    return (*new, NAMES[turn % 4]) if turn % 2 else new


def picture(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    return Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8))


def at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each job gives, or the error it raises; all of them begin at one moment."""
    start = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)

    def work(number: int) -> None:
        start.wait()
        try:
            results[number] = jobs[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("method", METHODS)
def test_each_answer_is_the_one_given_alone(method: str, tiny_clip: CLIP) -> None:
    prompt = prompt_of(tiny_clip, method)
    images = [picture(number) for number in range(3)]

    def answers(thread: int, prompts: Callable[[], Prompt]) -> list[Any]:
        given = []
        for turn in range(ROUNDS):
            names = fresh_names(thread, turn)
            given.append(prompts().predict(images, names))
            if not prompt.learner.conditional:
                given.append(prompts().text_features(names).tolist())
        return given

    quiet = copy.deepcopy(prompt)
    alone = [answers(thread, lambda: copy.copy(quiet)) for thread in range(THREADS)]
    jobs = [lambda thread=thread: answers(thread, lambda: prompt) for thread in range(THREADS)]
    assert at_once(jobs) == alone


def test_a_prompt_that_answered_alone_before_gives_the_same_in_any_order(tiny_clip: CLIP) -> None:
    """An answer depends on its own names, not on the names of earlier calls."""
    lists = [fresh_names(thread, turn) for thread in range(4) for turn in range(4)]
    lists += [(a[0], b[1], NAMES[0]) for a, b in itertools.pairwise(lists)]
    for method in ("tcp", "zero-shot"):
        prompt = prompt_of(tiny_clip, method)
        forwards = [prompt.text_features(names) for names in lists]
        backwards = [prompt_of(tiny_clip, method).text_features(names) for names in lists]
        again = [prompt.text_features(names) for names in reversed(lists)][::-1]
        for one, other, third in zip(forwards, backwards, again, strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one, third)


def test_the_engine_answers_images_while_it_compares_names(tiny_clip: CLIP) -> None:
    """As `simprompt serve`: one thread answers batches of images, others compare names."""

    def engine() -> Engine:
        return Engine([prompt_of(tiny_clip, method) for method in ("coop", "tcp", "means+text")])

    def seen(server: Engine, turn: int) -> Picture:
        file = io.BytesIO()
        picture(turn).save(file, "PNG")
        return server.picture(file.getvalue(), "a.png", 10_000)

    def answer(server: Engine) -> list[Any]:
        return [
            server.answer([Question(seen(server, turn), fresh_names(0, turn))])
            for turn in range(ROUNDS)
        ]

    def compare(server: Engine, thread: int) -> list[Any]:
        return [server.similarities(fresh_names(thread, turn)) for turn in range(ROUNDS)]

    others = range(1, THREADS)
    alone = [answer(engine()), *(compare(engine(), thread) for thread in others)]
    busy = engine()
    jobs = [lambda: answer(busy), *(lambda n=n: compare(busy, n) for n in others)]
    assert at_once(jobs) == alone


def test_any_number_of_names_leaves_memory_as_it_was(tiny_clip: CLIP, monkeypatch) -> None:
    """Names of answers are forgotten, names of training stay."""
    monkeypatch.setattr(
        CLIP, "encode_texts", lambda self, texts, **_: torch.zeros(len(texts), self.embed_dim)
    )
    learner = prompt_of(tiny_clip, "zero-shot").learner
    learner.teacher(NAMES)

    def held() -> int:
        gc.collect()
        return sum(x.numel() for x in gc.get_objects() if type(x) is torch.Tensor)

    before = held()
    for start in range(0, 200_000, 10_000):
        learner.teacher.unnormalized([f"name {number}" for number in range(start, start + 10_000)])
    assert held() - before <= 2 * 10_000 * tiny_clip.embed_dim
    for number in range(500):
        learner.teacher.unnormalized([f"single {number}"])
    assert held() - before <= 100 * tiny_clip.embed_dim


def test_names_of_training_are_encoded_once(tiny_clip: CLIP, monkeypatch) -> None:
    encoded: list[str] = []
    real = CLIP.encode_texts

    def encode(self: CLIP, texts: Sequence[str], **given: Any) -> torch.Tensor:
        encoded.extend(texts)
        return real(self, texts, **given)

    monkeypatch.setattr(CLIP, "encode_texts", encode)
    teacher = Teacher(tiny_clip, ["a {}."], names=NAMES)
    teacher.keep([*NAMES, "owl"])
    for turn in range(40):
        for names in (NAMES, ["owl", "cat"], [f"new {turn}"]):
            teacher(names)
    asked = [*NAMES, "owl", *(f"new {turn}" for turn in range(40))]
    assert sorted(encoded) == sorted(f"a {name}." for name in asked)


def test_the_classifier_is_of_the_names_that_a_thread_asks_for(tiny_clip, monkeypatch) -> None:
    """Lists that are asked for again while others take their place."""
    prompt = prompt_of(tiny_clip, "coop")
    monkeypatch.setattr(prompt.learner, "classifier", lambda names: lambda images: names)
    lists = [(f"cat {number}", "dog") for number in range(40)]

    def ask(thread: int) -> list[Any]:
        turns = [lists[(7 * thread + step * (thread + 1)) % 40] for step in range(1500)]
        return [names for names in turns if prompt.classifier(names)(torch.empty(0)) != names]

    assert at_once([lambda n=n: ask(n) for n in range(6)]) == [[]] * 6


def test_a_temperature_set_during_a_stream_is_for_later_calls(tiny_clip: CLIP) -> None:
    prompt = prompt_of(tiny_clip, "coop")
    images = [picture(number) for number in range(5)]
    before = list(prompt.stream(images, batch=1))
    running = prompt.stream(images, batch=1)
    given = [next(running)]
    prompt.calibrated({"temperature": 4.0})
    given += running
    assert given == before
    assert list(prompt.stream(images, batch=1)) != before


@pytest.fixture
def classifier(tiny_clip: CLIP) -> PromptClassifier:
    fitted = PromptClassifier(tiny_clip, "coop", sar=False, training={"max_steps": 1})
    images = [picture(number) for number in range(8)]
    return fitted.fit(images, [NAMES[number % 4] for number in range(8)])


def test_classes_added_while_others_predict(classifier: PromptClassifier) -> None:
    images = [picture(number) for number in range(3)]

    def predict() -> list[set[str]]:
        return [{*classifier.predict(images).tolist()} for _ in range(30)]

    def add(thread: int) -> None:
        for turn in range(15):
            classifier.add_classes([f"new {thread} {turn}"])

    results = at_once([predict, predict, *(lambda n=n: add(n) for n in range(3))])
    assert not [result for result in results if isinstance(result, Exception)]
    added = [f"new {thread} {turn}" for thread in range(3) for turn in range(15)]
    assert sorted(classifier.classes_) == sorted([*NAMES, *added])
    assert sorted(classifier.prompt_.card["new_classes"]) == sorted(added)
    assert classifier.predict_proba(images).shape == (3, len(classifier.classes_))


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_is_pickled_and_copied_before_and_after_it_answers(method, tiny_clip) -> None:
    prompt = prompt_of(tiny_clip, method)
    images = [picture(number) for number in range(2)]
    names = ("cat", "blue whale", "owl")
    early = pickle.loads(pickle.dumps(prompt)), copy.deepcopy(prompt)
    answers = prompt.predict(images, names), prompt.predict(images)
    late = pickle.loads(pickle.dumps(prompt)), copy.deepcopy(prompt), copy.copy(prompt)
    for other in (*early, *late):
        assert (other.predict(images, names), other.predict(images)) == answers


def test_a_classifier_is_pickled_before_and_after_it_answers(classifier: PromptClassifier) -> None:
    images = [picture(number) for number in range(2)]
    early = pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)
    answers = classifier.predict_proba(images)
    late = pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)
    for other in (*early, *late):
        assert (other.predict_proba(images) == answers).all()
        other.add_classes(["blue whale"])
        assert other.predict_proba(images).shape == (2, 5)
    assert len(classifier.classes_) == 4


def test_a_tokenizer_of_a_wheel_is_pickled_and_copied() -> None:
    pytest.importorskip("instant_clip_tokenizer")
    from simprompt.clip.tokenizer import BundledTokenizer

    tokenizer = BundledTokenizer()
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other.encode("a red fox") == tokenizer.encode("a red fox")


def test_a_block_of_another_thread_defers_no_signal_of_this_one() -> None:
    entered, leave, passed = threading.Event(), threading.Event(), []

    def block() -> None:
        with signals.defer_signals():
            entered.set()
            leave.wait(20)

    def stopped() -> None:
        with signals.catch_signals((signal.SIGTERM,)):
            signal.raise_signal(signal.SIGTERM)
            passed.append(True)
            signals.raise_if_stopped()

    other = threading.Thread(target=block)
    other.start()
    assert entered.wait(20)
    try:
        with pytest.raises(signals.Stopped):
            stopped()
    finally:
        leave.set()
        other.join()
    assert not passed, "the signal waits for the block of the other thread"
