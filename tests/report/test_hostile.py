"""Every string that is shown is hostile, and nothing that shows it obeys.

A result, a card, a list of names, a folder's and a file's name may come from anywhere. Here each
string of them is an order: to a browser, a terminal, Rich, Markdown, a spreadsheet, LaTeX.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from benchmarks.novel_lab.program import app as lab
from markdown_it import MarkdownIt

import simprompt
from shell import in_process
from simprompt.cli import warn
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.store import read_runs
from simprompt.prompt.loading import load_prompt
from simprompt.report import own, page, table, tables
from simprompt.report.html import POLICY
from simprompt.report.published import tables as published_tables
from simprompt.utils.files.atomic import checksum
from simprompt.utils.terminal import one_line, visible

pytestmark = pytest.mark.integration

HOSTILE = (
    "<script>broken=1</script>",
    '"><img src=x onerror=broken=1>',
    "' onload='broken=1",
    "</style><svg onload=broken=1>",
    "</title><script>broken=1</script>",
    "--><script>broken=1</script><!--",
    "javascript:broken=1",
    "[x](javascript:broken=1)",
    "]]><script>broken=1</script>",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b[31mred",
    "\x1b]8;;http://x\x07link\x1b]8;;\x07",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x9b2J\x9d0;title\x9c",
    "\x00\x08\x0b\x0c\x7f",
    "\u202egnp.exe\u2066\u2069\u200f\u2028\ufeff",
    "[bold red]x[/]",
    "[/nothing]",
    "[link=http://x]x[/link]",
    '=HYPERLINK("http://x")',
    "+1",
    "-1+1",
    "@SUM(A1)",
    "\uff1d1+1",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1\r\n\n# title",
    "| a | `b` ~~c~~ _d_ **e** $f$",
    "`",
    "\\input{/etc/passwd}",
    "$\\write18{id}$ ^^5cinput",
    "% & # _ { } ~ ^ \\",
    "[5cm] x",
    "* x",
    "$\\frac",
    "lone \ud800 and \udcff",
)
EVERYTHING = " ".join(HOSTILE)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def hostile(value: Any, orders: Iterator[str], keep: Sequence[str] = ()) -> Any:
    """The same with another order in the place of each string but those under the keys `keep`."""
    if isinstance(value, str):
        return next(orders)
    if isinstance(value, list):
        return [hostile(v, orders, keep) for v in value]
    if isinstance(value, dict):
        return {k: v if k in keep else hostile(v, orders, keep) for k, v in value.items()}
    return value


def copied(real: Path, out: Path, labels: Sequence[tuple[str, str, str]]) -> list[RunResult]:
    """Real runs, once for each (dataset, host, protocol), with an order in every other string."""
    orders = cycle(HOSTILE)
    for number, (dataset, host, protocol) in enumerate(labels):
        for path in sorted(real.rglob("result.json")):
            folder = out / str(number) / path.parent.parent.name
            shutil.copytree(path.parent, folder)
            result = json.loads(path.read_text(encoding="utf-8"))
            label = result["method"].replace("coop", host)
            made = hostile(result, orders, ("key", "files"))
            made |= {"dataset": dataset, "method": label, "protocol": protocol}
            made["identity"]["code"] = result["identity"]["code"]
            made["config"]["options"] = dict(zip(HOSTILE, reversed(HOSTILE), strict=True))
            made["environment"] |= dict(zip(HOSTILE, reversed(HOSTILE), strict=True))
            made["warnings"] = list(HOSTILE)
            if made["novel"]:
                made["novel"]["overlap"] = list(HOSTILE)
            del made["config"]["template"]  # the page then reads it in the card
            card = json.loads((folder / "prompt.json").read_text(encoding="utf-8"))
            text = json.dumps(hostile(card, orders))
            (folder / "prompt.json").write_text(text, encoding="utf-8")
            made["files"]["prompt.json"] = checksum(text.encode())
            (folder / "result.json").write_text(json.dumps(made), encoding="utf-8")
    return read_runs([out])


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real")
    done = in_process(
        "run", "--dataset", "icons/food", "--method", "zero-shot,coop", "--sar", "both", "--seeds",
        "1", "--shots", "1", "--max-test-per-class", "2", "--set", "training.max_steps=2", "--out",
        str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def runs(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each order is a dataset, all of them together are the method's name."""
    out = tmp_path_factory.mktemp("runs")
    copied(real, out, [(order, EVERYTHING, "base-to-new") for order in HOSTILE])
    return out


@pytest.fixture(scope="session")
def methods(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each order is a method's name on one dataset, and a dataset, method and protocol as well."""
    out = tmp_path_factory.mktemp("methods")
    once = [("cups", order, "base-to-new") for order in HOSTILE]
    copied(real, out, [*once, *((order, order, order) for order in HOSTILE[::3])])
    return out


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings in folders, and files, whose names are orders; some that are no images."""
    if os.name == "nt":
        pytest.skip("Windows takes few of these names")
    out = tmp_path_factory.mktemp("images")
    food = simprompt.load_dataset("icons/food")
    data = food.base.test
    drawn = [data.load(rows[0]) for rows in data.rows_by_label().values()]
    # what a file system takes, and what tells one class from the next
    names = [re.sub("[\x00\ud800]", "", order.replace("/", "\u2215")) + f" {word}"
        for word, order in zip(food.classnames, HOSTILE, strict=False)]  # fmt: skip
    for number, name in enumerate(names):
        try:
            (out / name).mkdir()
        except OSError:  # a file system that knows only text
            if "\udcff" not in name:
                raise
            continue
        for copy in range(5):
            file = names[(number + copy) % len(names)].replace("\udcff", "")
            turned = drawn[number % len(drawn)].rotate(17 * copy + number, fillcolor="white")
            turned.resize((40, 40)).save(out / name / f"{file}{copy}.png", "PNG")
    for number, name in enumerate(names[:20]):
        at = out / names[number % 7] / name.replace("\udcff", "")
        at.with_name(at.name + ".png").write_text("no image", encoding="utf-8")
        at.with_name(at.name + ".txt").write_text("no image", encoding="utf-8")
    return out


@pytest.fixture(scope="session")
def learned(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learned")
    done = in_process(
        "learn", str(images), "--model", "icons", "--shots", "1", "--set", "training.max_steps=2",
        "--out", str(out), "--no-calibrate", "--template", "{}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (out / "said").write_text(done.stdout + done.stderr, encoding="utf-8")
    return out


@pytest.fixture(scope="session")
def prompt(learned: Path) -> Path:
    """A prompt with a hostile card: what loading needs is kept, all else is an order."""
    made = load_prompt(learned / "prompt")
    kept = ("method", "options", "model", "model_digest", "model_dtype", "training")
    made.card = hostile(made.card, cycle(HOSTILE), kept) | {
        "classnames": made.card["classnames"], "template": "{}",
        "new_classes": [f"{order[:9]} {n}" for n, order in zip("abcdefghi", HOSTILE, strict=False)],
        "dataset": EVERYTHING, "novel": list(HOSTILE),
        "novel_provenance": dict(zip(HOSTILE, HOSTILE, strict=True)),
        "metrics": {order: {other: 50.0} for order in HOSTILE for other in HOSTILE[:2]},
        "shots": 4, "sar": {"novel": EVERYTHING},
        "calibration": {"temperature": 1.0, "images": 7, "source": EVERYTHING,
                        "ece_before": 1.0, "ece_after": 1.0, "unknown": 0.1,
                        "known_kept": 95.0, "unknown_refused": 60.0},
    }  # fmt: skip
    return made.save(learned / "hostile")


# what looks at each kind of output


def deaf(text: str) -> None:
    """A terminal obeys nothing in this."""
    found = FORBIDDEN.search(text)
    assert found is None, text[max(0, found.start() - 40) :][:80].encode("unicode_escape")


class Look(HTMLParser):
    """Asserts of a page that what is in it is ours."""

    TAGS = frozenset(
        re.findall(
            "[a-z0-9]+",
            "html head meta title style body main h1 h2 h3 p ul li b figure figcaption div span "
            "table thead tbody tr th td img details summary wbr code "
            "svg defs g path use clippath rect text tspan image",
        )
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.policies: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.TAGS
        given = dict(attrs)
        assert len(given) == len(attrs)
        for name, value in given.items():
            assert re.fullmatch("[a-zA-Z:-]+", name), name
            assert not name.startswith("on"), name
            assert "javascript" not in (value or "").lower() or name in ("alt", "aria-label")
            if name in ("src", "href", "xlink:href", "action", "formaction"):
                assert re.fullmatch(r"#[\w-]+|data:image/png;base64,[\w+/=\s]+", value or "")
            elif name == "style":
                assert not re.search(r"url\((?!#)|@|expression|\\", value or ""), value
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(given["content"] or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def harmless_page(html: str) -> str:
    """Its text, if nothing in it runs."""
    deaf(html)
    look = Look()
    look.feed(html)
    look.close()
    assert look.policies == [POLICY]
    assert html.index("Content-Security-Policy") < html.index("<title>")
    assert html.count("<style") == html.count("</style") == 1
    return "".join(look.words)


def harmless_markdown(text: str, allowed: Sequence[str] = ()) -> str:
    """Its text, if Markdown sees only the marks that are ours."""
    deaf(text)
    assert not re.search(r"(?<!\\)(\\\\)*\$", text), "mathematics, as GitHub reads it"
    words = []
    for block in MarkdownIt().enable(["table", "strikethrough"]).parse(text):
        assert block.type != "html_block"
        for mark in block.children or ():
            assert mark.type in ("text", "softbreak", "text_special", *allowed), mark
            words.append(mark.content)
        words.append("\n")
    return "".join(words)


LATEX = {
    "begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "textbf",
    "textbackslash", "textasciitilde", "textasciicircum", "Delta", "dag", *"\\&%$#_{}",
}  # fmt: skip


def harmless_latex(text: str) -> None:
    deaf(text)
    for one in text.split("% \\usepackage{booktabs}\n")[1:]:
        assert set(re.findall(r"\\([A-Za-z]+|.)", one, re.DOTALL)) <= LATEX
        bare = re.sub(r"\\([A-Za-z]+|.)", "", one, flags=re.DOTALL)
        assert not set("%#^~_") & set(bare)
        assert bare.count("{") == bare.count("}")
        assert not re.search(r"\$(?!-?\$)", bare.replace("$-$", "").replace("$$", ""))
        spec = re.search(r"\\begin\{tabular\}\{([lr]+)\}", one)
        assert spec
        rows = [line for line in one.splitlines() if line.endswith(r" \\")]
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(spec[1]) - 1, row
            # an argument of the \\ or of the rule above
            assert row[:1] not in ("[", "*")


def harmless_csv(text: str) -> list[list[str]]:
    """Its cells, if a spreadsheet takes none for a formula."""
    deaf(text)
    rows = list(csv.reader(io.StringIO(text)))
    assert {len(row) for row in rows} == {len(rows[0])}
    for cell in (cell for row in rows for cell in row):
        if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell):
            assert cell[:1] not in tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"), cell
    return rows


# the tests


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "json"])
@pytest.mark.parametrize("which", ["runs", "methods"])
def test_tables(which, form, request):
    folder = request.getfixturevalue(which)
    done = in_process("report", str(folder), "-f", form, "--per-seed")
    assert done.returncode == 0, done.stderr
    deaf(done.stdout)
    deaf(done.stderr)
    if form == "text":
        for order in HOSTILE:
            assert one_line(order).strip() in done.stdout
    elif form == "markdown":
        # bold are titles and the best numbers
        text = harmless_markdown(done.stdout, ("strong_open", "strong_close"))
        for order in HOSTILE:
            assert one_line(order).strip() in text
    elif form == "latex":
        harmless_latex(done.stdout)
    elif form == "csv":
        rows = harmless_csv(done.stdout)
        assert len(rows) > len(HOSTILE)
    else:
        read = json.loads(done.stdout)
        found = {r["dataset"] if which == "runs" else r["method"] for r in read["runs"]}
        assert found >= set(HOSTILE)


def test_tables_beside_published_ones(methods):
    made = [*published_tables(read_runs([methods]))]
    harmless_latex(tables.written(made, "latex"))
    harmless_markdown(tables.written(made, "markdown"), ("strong_open", "strong_close"))


def test_every_part_of_a_table():
    columns = [table.Column(order) for order in HOSTILE]
    for order in HOSTILE:
        made = table.Table(order, columns, [[order, *HOSTILE[1:]]], note=order)
        deaf(table.text(made))
        assert len(table.text(made).splitlines()) < 10
        harmless_markdown(table.markdown(made), ("strong_open", "strong_close"))
        harmless_latex(table.latex(made))
        deaf(made._repr_html_())
        look = Look()
        look.feed(made._repr_html_())
        assert one_line(order) in "".join(look.words)


# of a font that draws not all of it, and of a legend that is wider than its plot
FONTS = pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")


@pytest.fixture(scope="session")
def report(runs: Path) -> str:
    food = simprompt.load_dataset("icons/food")
    results = read_runs([runs])
    return page.render(results, lambda name: food)


@FONTS
def test_the_report(report, runs, tmp_path):
    text = harmless_page(report)
    for order in HOSTILE:
        assert " ".join(one_line(order).split()) in " ".join(text.split())
    assert "test image:" in report
    results = read_runs([runs])
    page.write_picture(results, tmp_path / "picture.svg")
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    deaf(picture)
    tags = {element.tag.partition("}")[2] for element in ElementTree.fromstring(picture).iter()}
    assert {tag.lower() for tag in tags} <= Look.TAGS


def test_what_learn_says_and_writes(learned):
    said = (learned / "said").read_text(encoding="utf-8")
    deaf(said)
    html = (learned / "report.html").read_text(encoding="utf-8")
    assert "<script>broken" in harmless_page(html)
    harmless_csv((learned / "wrong.csv").read_bytes().decode())
    harmless_markdown((learned / "prompt" / "README.md").read_text(encoding="utf-8"), OURS)
    result = json.loads((learned / "result.json").read_text(encoding="utf-8"))
    result = hostile(result, cycle(HOSTILE)) | {
        "accuracy": {order: {other: 50.0 for other in HOSTILE} for order in HOSTILE},
        "unused_by_reason": dict.fromkeys(HOSTILE, 1), "notes": HOSTILE, "warnings": HOSTILE,
    }  # fmt: skip
    none = Split((), (), (), Exception)
    own.write(result | {"wrong": []}, none, learned / "hostile.html")
    harmless_page((learned / "hostile.html").read_text(encoding="utf-8"))


OURS = ("strong_open", "strong_close", "code_inline")


def test_a_hostile_card_as_a_page(prompt):
    text = (prompt / "README.md").read_text(encoding="utf-8")
    shown = harmless_markdown(text, OURS)
    assert "broken=1" in shown
    assert MarkdownIt().parse(text)[0].type in ("hr", "heading_open")
    assert "\n# title" not in text
    notebook = load_prompt(prompt)._repr_html_()
    assert "<script" not in notebook
    assert "<img" not in notebook
    assert not re.search("[\x00-\x08\x1b\u202e]", notebook)


def test_explain(prompt, images, tmp_path):
    done = in_process("explain", str(prompt), "--images", str(images), "--out",
                      str(tmp_path / "page.html"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    deaf(done.stdout)
    deaf(done.stderr)
    assert "broken=1" in harmless_page((tmp_path / "page.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("form", ["", "--csv", "--json", "--jsonl"])
def test_predict(prompt, images, form):
    done = in_process("predict", str(prompt), str(images), "--top", "3", *filter(None, [form]))
    assert done.returncode == 0, done.stderr
    deaf(done.stdout)
    deaf(done.stderr)
    assert "could not be read" in done.stderr
    if form == "--csv":
        harmless_csv(done.stdout)
    elif form == "--json":
        rows = json.loads(done.stdout)
        assert all(os.path.exists(row["path"]) for row in rows)
    elif form == "--jsonl":
        assert all(json.loads(line)["path"] for line in done.stdout.splitlines())


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_data_check(images, form):
    done = in_process("check", str(images), *form, "--limit", "3")
    assert done.returncode == 1
    deaf(done.stdout)
    deaf(done.stderr)
    assert "not an image" in done.stdout
    if form:
        assert json.loads(done.stdout)["own"]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that breaks no line and has colours."""
    monkeypatch.setenv("COLUMNS", "20000")


def in_process_of_the_lab(*words: str):
    def program() -> None:
        try:
            lab()
        except SimpromptError as error:
            print(visible(str(error)), file=sys.stderr)
            sys.exit(2)

    return in_process(*words, program=program)


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("command", ["inspect", "compare"])
def test_lists_of_names(tmp_path, wide, command, form):
    """A list is a file of orders, under a name that is one; the classes are orders too."""
    base = tmp_path / "[bold red]x[-].txt"
    base.write_text("pizza\nbread\negg\n", encoding="utf-8")
    sources = []
    for number, order in enumerate(HOSTILE if command == "inspect" else ["[red]x", "[-]"]):
        name = re.sub("[/\x00\ud800\udcff:+\\\\]", "", order) + f"{number}.json"
        text = json.dumps(
            {
                "names": ["teapot", "anvil", *HOSTILE[16:], *HOSTILE[:16]],
                "source": order,
                "date": order,
            }
        )
        (tmp_path / name).write_text(text, encoding="utf-8")
        sources.append(f"file[skip=yes]:{tmp_path / name}")
    given = sources[16:17] if command == "inspect" else sources
    done = in_process_of_the_lab(command, *given, "--base-classes", str(base), *form)
    assert done.returncode == 0, done.stderr
    deaf(done.stdout)
    deaf(done.stderr)
    if not form:
        assert "left out: '[bold red]x[/]'" in done.stderr
        if command == "compare":
            assert str(tmp_path / "[red]x0.json") in done.stdout
    refused = in_process_of_the_lab(command, *[s.replace("[skip=yes]", "") for s in given],
                             "--base-classes", str(base), *form)  # fmt: skip
    assert refused.returncode == 2
    deaf(refused.stderr)


def test_warnings_of_runs(wide, capsys):
    warn.show([{"warnings": [order]} for order in HOSTILE[:5]])
    warn.show([{"warnings": [order]} for order in ("[bold red]x[/]", "[/nothing]", "\x1b[2J")])
    warn.tell(HOSTILE)
    shown = capsys.readouterr()
    deaf(shown.err)
    assert "[bold red]x[/]" in shown.err
    assert "[/nothing]" in shown.err


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_an_export_prints(monkeypatch, capsys, form):
    pytest.importorskip("onnxruntime")
    from simprompt.deploy.export.runtime import predict

    class Predictor:
        def __init__(self, *_: object) -> None:
            self.classes = HOSTILE
            self.card = {"unknown": 0.5}

        def pixels(self, paths: Sequence[Path]) -> Path:
            if paths[0].name == "broken":
                raise SimpromptError(EVERYTHING)
            return paths[0]

        def outputs(self, *_: object) -> tuple[np.ndarray, np.ndarray]:
            return np.full((1, len(HOSTILE)), 1 / len(HOSTILE)), np.zeros((1, 4))

    monkeypatch.setattr(predict, "Predictor", Predictor)
    code = predict.main([*(f"./{order}" for order in HOSTILE), "broken", "--top", "99", *form])
    shown = capsys.readouterr()
    assert code == 0, "one of them could be read"
    deaf(shown.out + shown.err)
    assert len(shown.out) > 1000
    with pytest.raises(SystemExit):
        predict.main(["x", "--" + EVERYTHING.replace(" ", "")])  # with a space it is a file
    deaf(capsys.readouterr().err)


@pytest.mark.slow
@FONTS
def test_no_script_runs_in_a_browser(report, learned, prompt, images, tmp_path):
    """Not even where the page's policy, which forbids all scripts, is taken out."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no Chromium; name one in CHROMIUM")
    test_explain(prompt, images, tmp_path)
    test_what_learn_says_and_writes(learned)
    pages = {
        "report": report,
        **{path.name: path.read_text(encoding="utf-8")
           for path in (learned / "report.html", learned / "hostile.html", tmp_path / "page.html")},
        "notebook": f"<!doctype html><title>x</title>{load_prompt(prompt)._repr_html_()}",
    }  # fmt: skip
    meta = re.compile('<meta http-equiv="Content-Security-Policy"[^>]*>')
    pages |= {f"bare {name}": meta.sub("", html) for name, html in pages.items()}
    pages["script"] = f"<!doctype html><title>x</title>{HOSTILE[0]}"  # what the test would see
    broken = {}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, html in pages.items():
            path = tmp_path / f"{name.replace(' ', '-')}.html"
            path.write_text(html, encoding="utf-8")
            tab = browser.new_page()
            asked: list[str] = []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto(path.as_uri())
            broken[name] = tab.evaluate("window.broken === 1")
            outside = [url for url in asked if not url.startswith(("data:", path.as_uri()))]
            assert not outside, name
            assert tab.evaluate("document.scripts.length") == (name == "script"), name
            tab.close()
        browser.close()
    assert [name for name, found in broken.items() if found] == ["script"]
