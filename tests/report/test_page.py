"""The page: self-contained, whole or not there, and honest about what is missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import synthetic
import typer
from typer.testing import CliRunner

from simprompt.cli.report import report as report_command
from simprompt.errors import SimpromptError
from simprompt.experiments.store import read_runs
from simprompt.report import evidence, page, plots

pytestmark = pytest.mark.integration


class Checker(HTMLParser):
    """Collects ids, addresses and unclosed elements."""

    VOID = ("meta", "img", "br", "wbr", "link", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "action"):
                self.addresses.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    return checker


@pytest.fixture(scope="session")
def html(folder: Path) -> str:
    return page.render(read_runs([folder]), synthetic.load)


def test_nothing_comes_from_outside(html):
    found = parsed(html)
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in found.addresses)
    outside = html
    for word in ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http-equiv"):
        outside = outside.replace(word, "")
    assert "http" not in outside
    assert not {"script", "link", "iframe"} & set(found.seen)
    assert "@import" not in html
    assert len(html) < 3e6


def test_ids_are_unique_and_every_reference_has_its_target(html):
    found = parsed(html)
    assert len(found.ids) == len(set(found.ids))
    wanted = {a[1:] for a in found.addresses if a.startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted <= set(found.ids)


def test_every_section_and_plot_is_there(html):
    for heading in ("Results", "Training", "Class similarities", "The mechanism in numbers",
                    "Test images", "Settings, versions, times"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in html
    assert html.count('<svg class="plot"') == 9
    assert html.count("test image:") == 24
    assert "missing" not in html.partition("</style>")[2]


def test_no_stand_in_colour_is_left(html):
    assert not re.search("|".join(plots.VARIABLES), html)
    for i in range(3):
        assert f"var(--m{i})" in html


def test_same_results_same_page(results, html):
    assert page.render(results, synthetic.load) == html


def test_write_is_atomic(results, tmp_path, monkeypatch):
    path = tmp_path / "deep" / "report.html"
    monkeypatch.setattr(page, "render", lambda found: f"{len(found)} runs")
    page.write(results[:3], path)
    before = path.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        page.write(results, path)
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_results_straight_from_runs_have_their_files_beside_the_page(results, folder):
    assert all(page._with_folder(r, folder / "other") is r for r in results)
    for r in results:
        place = r.pop("folder")
        assert page._with_folder(r, folder)["folder"] == place


def test_without_files_and_datasets_it_says_so(results):
    results = [r for r in results if r["method"] == "coop+sar"]
    for r in results:
        del r["folder"]
    html = page.render(results)
    parsed(html)
    assert "text.safetensors" in html
    assert "predictions.safetensors" in html


def test_a_dataset_that_cannot_be_loaded(results):
    def load(name):
        raise SimpromptError(f"{name} <is> not here")

    html = page.render([r for r in results if r["method"] == "coop"], load)
    assert "toys/birds &lt;is&gt; not here" in html
    assert "test image:" not in html
    assert "base images (" in html


def test_changed_test_images_are_not_shown(results):
    def other(name):
        return synthetic.dataset(name, 30)

    found = evidence.images(results, other)
    assert not any(kind.images for kind in found.kinds)
    assert "no longer" in found.trouble[0]


@pytest.mark.parametrize("methods", [["zero-shot"], ["coop"], ["coop+sar"], ["zero-shot", "coop"]])
def test_few_methods(results, methods):
    html = page.render([r for r in results if r["method"] in methods], synthetic.load)
    parsed(html)
    assert "What SAR changes" not in html


def test_many_methods_one_task_one_seed(tmp_path):
    hosts = ("zero-shot", "coop", "coop+sar", "kgcoop", "kgcoop+sar", "tcp")
    synthetic.write_runs(tmp_path, {"toys/cups": 8}, hosts, (1,))
    results = read_runs([tmp_path])
    html = page.render(results, lambda name: synthetic.dataset(name, 8))
    parsed(html)
    assert html.count("New against base accuracy") == 3
    assert "one task gives no interval" in html


def few_shot(results):
    """These results as the few-shot protocol would give them: no new classes."""
    return [
        {
            **{k: v for k, v in r.items() if k != "folder"},
            "protocol": "few-shot", "new": float("nan"), "h": float("nan"),
            "classes": {"base": r["classes"]["base"]},
        }
        for r in results
        if r["dataset"] == "toys/cups"
    ]  # fmt: skip


def test_a_protocol_without_new_classes(results):
    html = page.render(few_shot(results))
    parsed(html)
    assert "Accuracy" in html
    assert "New" not in html.partition("<h2>Results</h2>")[2].partition("<h2>Training")[0]


def test_other_protocols_stand_apart(results):
    both = [r for r in results if r["dataset"] == "toys/cups" and r["method"] == "coop"]
    html = page.render(both + few_shot(both), synthetic.load)
    parsed(html)
    assert "<h2>Other protocols</h2>" in html
    assert "Each task, few-shot" in html


def test_hundreds_of_runs_stay_small(results):
    many = [
        {**r, "dataset": f"{r['dataset']}-{i}", "seed": seed}
        for r in results
        for i in range(14)
        for seed in (r["seed"], r["seed"] + 2)
    ]
    html = page.render(many, lambda name: synthetic.load(name.rpartition("-")[0]))
    assert len(many) > 500
    assert len(html) < 3e6


def test_heatmaps_share_one_scale_and_the_median_task(results):
    found = evidence.similarities(results)
    assert list(found.matrices) == ["zero-shot", "coop", "coop+sar"]
    for matrix in found.matrices.values():
        assert np.allclose(np.diag(matrix), 1, atol=1e-3)
        assert np.allclose(matrix, matrix.T, atol=1e-6)
    from simprompt.experiments.summary import paired

    gains = paired(results, "coop+sar", "coop")["new"]["per_dataset"]
    assert gains[found.dataset] == sorted(gains.values())[1]


def test_kinds_of_images_are_what_they_say(results):
    found = evidence.images(results, synthetic.load)
    assert sum(k.counts["base"] for k in found.kinds) == found.tested["base"]
    assert sum(k.counts["new"] for k in found.kinds) == found.tested["new"]
    for kind, wanted in zip(
        found.kinds, [(False, True), (True, False), (True, True), (False, False)], strict=True
    ):
        for shown in kind.images:
            right = {method: right for method, _, right in shown.said}
            assert (right["coop"], right["coop+sar"]) == wanted
            assert all((name == shown.truth) == right for _, name, right in shown.said)


@pytest.mark.parametrize(
    "line",
    [[0.0, 0.01, 0.02, 0.9, 5.0], [0.0, 1.05, 1.3, 1.3], [3.0], [0.0, 0.9, 1.8, 1.9, 1.9, 7.0]],
)
def test_numbers_of_dots_keep_their_order_and_distance(line):
    places = plots._spread({str(i): v for i, v in enumerate(line)}, 1.0)
    found = [places[str(i)] for i in range(len(line))]
    assert np.all(np.diff(found) >= 1.0 - 1e-9)
    assert np.mean(found) == pytest.approx(np.mean(line))


def test_no_results_is_an_error():
    with pytest.raises(SimpromptError, match="at least one"):
        page.render([])


def test_command(folder, tmp_path):
    app = typer.Typer()
    app.command()(report_command)
    out = CliRunner().invoke(
        app, [str(folder / "toys-cups" / "coop"), "-o", str(tmp_path / "x.html")]
    )
    assert out.exit_code == 0, out.output
    assert "2 runs" in out.stdout
    assert (tmp_path / "x.html").stat().st_size > 5e4


def test_a_damaged_file_beside_a_result_is_said_and_left_out(tmp_path):
    synthetic.write_runs(tmp_path, {"toys/cups": 8}, ("coop",), (1,))
    for name in ("text", "predictions"):
        for path in tmp_path.rglob(f"{name}.safetensors"):
            path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="safetensors is not what was written"):
        html = page.render(read_runs([tmp_path]), synthetic.load)
    assert "cups" in html


def test_a_picture_has_its_colours_and_ground_in_light_and_dark(tmp_path):
    synthetic.write_runs(tmp_path / "runs", {"toys/cups": 10}, seeds=(1,))
    place = page.write_picture(read_runs([tmp_path / "runs"]), tmp_path / "picture.svg")
    svg = place.read_text(encoding="utf-8")
    light, dark = svg[: svg.index("</style>")].split("@media (prefers-color-scheme: dark)")
    used = set(re.findall(r"var\((--\w+)\)", svg))
    assert "--ink" in used
    assert "--back" in used
    for colours in (light, dark):
        assert used <= set(re.findall(r"(--\w+):", colours))
