"""Whatever a disk refuses, at whatever moment: whole or absent, the right message, no leftovers."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic

from faults import Disk, failing
from protocols.test_protocols import QUICK, WORLD, live_in_it
from simprompt.config import SAR, RunConfig
from simprompt.errors import SimpromptError
from simprompt.experiments import inputs
from simprompt.experiments.runner import identify
from simprompt.experiments.store import finished, read_runs, run_folder
from simprompt.experiments.sweep import make as sweep
from simprompt.features.cache import image_features
from simprompt.prompt.learn import learn
from simprompt.prompt.loading import load_prompt
from simprompt.report import page

pytestmark = pytest.mark.integration

RUN = RunConfig(
    dataset="colours",
    training=QUICK.model_copy(update={"epochs": 1}),
    sar=SAR(novel="random-nouns", novel_count=4, classes_per_step=5),
)


@pytest.fixture(autouse=True)
def world(monkeypatch, make_clip, tmp_path: Path) -> None:
    live_in_it(monkeypatch, make_clip, tmp_path)


def a_run(root: Path) -> None:
    sweep.make_runs([RUN], root / "out", quiet=True)


def whole_run(root: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a damaged result would be warned of
        result = finished(root / "out", identify(RUN))
    if result is None:
        return None
    return {p.name: p.read_bytes() for p in run_folder(root / "out", identify(RUN)).glob("*.s*")}


def features(root: Path) -> None:
    image_features(inputs.cached_clip(RUN.model), WORLD["colours"].all.test, cache=root / "c")


def whole_features(root: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = image_features(
            inputs.cached_clip(RUN.model), WORLD["colours"].all.test, cache=root / "c"
        )
    return rows.numpy().tobytes()


def a_report(root: Path) -> None:
    page.write(page_results(), root / "out" / "report.html")


def whole_report(root: Path) -> Any:
    place = root / "out" / "report.html"
    return place.read_text(encoding="utf-8") if place.exists() else None


def page_results() -> list[Any]:
    return read_runs([REPORT])


def a_prompt(root: Path) -> None:
    PROMPT.save(root / "prompt")


def whole_prompt(root: Path) -> Any:
    if not (root / "prompt").exists():
        return None
    prompt = load_prompt(root / "prompt", PROMPT.clip)
    return {k: v.tolist() for k, v in prompt.learner.state_dict().items()}


REPORT: Path
PROMPT: Any

WORK: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "run": (a_run, whole_run),
    "features": (features, whole_features),
    "report": (a_report, whole_report),
    "prompt": (a_prompt, whole_prompt),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, make_clip) -> str:
    """What is written is made once, since its way to the disk is looked at; the page's text."""
    global REPORT, PROMPT
    REPORT = tmp_path_factory.mktemp("results")
    synthetic.write_runs(REPORT, {"toys/cups": 10}, seeds=(1,))
    PROMPT = learn(
        make_clip(), WORLD["colours"].base.few_shot(2, 1), "coop", training=RUN.training,
        progress=False,
    )  # fmt: skip
    return page.render(page_results())


@pytest.fixture
def ready(written: str, monkeypatch) -> None:
    monkeypatch.setattr(page, "render", lambda results: written)


def changes(work: Callable[[Path], None], root: Path) -> int:
    """How often the work changes something on the disk."""
    with failing(Disk(root)) as disk:
        work(root)
    return disk.count


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("over", ["nothing", "an older one"])
def test_for_every_change_that_fails(name, over, tmp_path):
    work, whole = WORK[name]
    work(tmp_path / "right")
    wanted = whole(tmp_path / "right")
    assert wanted is not None
    most = changes(work, tmp_path / "count")
    assert most > 3
    for at in range(1, most + 1):
        root = tmp_path / str(at)
        if over != "nothing":
            shutil.copytree(tmp_path / "right", root)
        disk, error = Disk(root, at), None
        try:
            with failing(disk), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work(root)
        except SimpromptError as refused:
            error = str(refused)
        if error is not None:
            assert str(root) in error, "it says where"
            assert any(word in error for word in ("another", "Give a place")), error
        left = [p for p in root.rglob(".*") if p.name.startswith(".")]
        assert not left, f"change {at}: {left}"
        assert whole(root) in (None, wanted), f"change {at}: half of it is there"
        if error is None:
            assert whole(root) == wanted, f"change {at}: it said nothing and did nothing"
        work(root)
        assert whole(root) == wanted
        shutil.rmtree(root)
