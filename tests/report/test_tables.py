"""Tables: what they hold agrees with `runs`, and every format says the same."""

from __future__ import annotations

import csv
import html
import io
import json
import re

import pytest
import typer
from typer.testing import CliRunner

from simprompt.cli.report import report as table_command
from simprompt.experiments.summary import averages, paired
from simprompt.metrics import harmonic_mean
from simprompt.report import published, table, tables
from simprompt.report.selection import AVERAGES, pairs_of, per_dataset, pretty
from simprompt.utils.statistics import holm


def command(*arguments: str):
    app = typer.Typer()
    app.command()(table_command)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_dataset_rows_are_means_over_seeds(results):
    row = next(
        r for r in per_dataset(results) if (r["dataset"], r["method"]) == ("toys/cups", "coop")
    )
    runs = [r for r in results if (r["dataset"], r["method"]) == ("toys/cups", "coop")]
    assert row["seeds"] == [1, 2]
    assert row["base"] == pytest.approx(sum(r["base"] for r in runs) / 2)
    assert row["h"] == pytest.approx(harmonic_mean(row["base"], row["new"]))
    assert min(row["base"], row["new"]) <= row["h"] <= max(row["base"], row["new"])


def test_average_table_is_runs_averages_and_differences(results):
    rows = {r[0]: r for r in tables.average_table(results).rows}
    a = averages([r for r in results if r["method"] == "coop+sar"])
    assert rows["CoOp+SAR"][1:5] == [a["base"], a["new"], a["h_of_means"], a["mean_h"]]
    gain = paired(results, "coop+sar", "zero-shot")
    assert rows["CoOp+SAR"][6] == gain["new"]["diff"]
    assert rows["zero-shot"][5] is None


def test_paired_table_gives_the_interval(results):
    rows = tables.paired_table(results).rows
    found = paired(results, "coop+sar", "coop")
    assert [r[1] for r in rows] == ["Base", "New", "H of means", "Mean of H"]
    assert [r[5] for r in rows] == [found[m]["ci95"] for m in AVERAGES]
    better = sum(v > 0 for v in found["mean_h"]["per_dataset"].values())
    assert [r[6] for r in rows] == holm([found[m]["p"] for m in AVERAGES])
    assert [r[7] for r in rows][2:] == [None, f"{better} of 3"]


def test_time_table_says_what_each_method_costs(results):
    rows = {r[0]: r for r in tables.time_table(results).rows}
    runs = [r for r in results if r["method"] == "coop+sar"]
    _, parameters, _, training, whole, total, memory = rows["CoOp+SAR"]
    assert (parameters, memory) == ("1024", 812.0)
    assert training == pytest.approx(sum(r["train_seconds"] for r in runs) / len(runs))
    assert total == pytest.approx(sum(r["seconds"] for r in runs))
    assert whole > training
    assert rows["zero-shot"][1] == "0"
    assert "Learned numbers" in tables.text(results)


def test_no_pairs_no_paired_table(results):
    alone = [r for r in results if r["method"] == "coop"]
    assert tables.paired_table(alone) is None
    assert "CoOp" in tables.text(alone)


def test_a_pair_needs_a_shared_dataset_and_seed(results):
    apart = [r for r in results if r["method"] == "coop" and r["seed"] == 1]
    apart += [r for r in results if r["method"] == "coop+sar" and r["seed"] == 2]
    assert pairs_of(apart) == []


def test_best_of_a_group_only_where_there_is_a_choice():
    t = table.Table("t", [table.Column("a"), table.Column("b", "percent")])
    t.add_group([["x", 1.0]], compare=[1])
    t.add_group([["y", float("nan")], ["z", 2.0]], compare=[1])
    assert t.best == {(2, 1)}


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (None, "percent", "–"), (float("nan"), "difference", "–"),
        (-0.04, "difference", "0.0"), (-1.26, "difference", "−1.3"),
        ((-0.5, 2.0), "interval", "[−0.5, +2.0]"), ((float("-inf"), 1.0), "interval", "–"),
        (3, "count", "3"), (0.70666, "ratio", "0.707"), (812.4, "number", "812"),
    ],
)  # fmt: skip
def test_shown(value, kind, expected):
    assert table.shown(value, kind) == expected


def test_text_is_aligned(results):
    average = tables.average_table(results)
    lines = table.text(average).splitlines()
    rule = len(lines[1])
    last = max(i for i, line in enumerate(lines) if set(line) == {"─"})
    assert {len(line) for line in lines[1 : last + 1]} == {rule}
    assert " ".join(lines[last + 1 :]) == average.legend
    assert max(map(len, lines[last + 1 :])) <= rule


def test_a_notebook_shows_what_the_text_shows(results):
    t = tables.average_table(results)
    assert repr(t) == table.text(t)
    page = html.unescape(t._repr_html_())
    body = [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in page.split("<tr>")[1:]]
    assert body[0] == t.headings
    bold = {(r, c) for r, row in enumerate(body[1:]) for c, v in enumerate(row) if "<b>" in v}
    assert bold == t.best
    assert [[re.sub("</?b>", "", v) for v in row] for row in body[1:]] == table.cells(t)
    assert page.startswith(f"<p>{t.title}</p>")
    assert page.endswith(f"<p>{t.legend}</p>")


def test_latex_escapes_and_marks_the_best():
    t = table.Table("50% & more", [table.Column("Task"), table.Column("Δ_H", "percent")])
    t.add_group([["a_b#", 1.0], ["c", 2.0]], compare=[1])
    out = table.latex(t)
    assert r"50\% \& more" in out
    assert r"a\_b\# & 1.0 \\" in out
    assert r"$\Delta$\_H" in out
    assert r"\textbf{2.0}" in out
    assert out.count("\\toprule") == out.count("\\bottomrule") == 1


def test_markdown_has_as_many_cells_in_every_line(results):
    lines = [x for x in table.markdown(tables.dataset_table(results)).splitlines() if x[:1] == "|"]
    assert len({line.count("|") for line in lines}) == 1


def test_csv_reads_back(results):
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(results, per_seed=True))))
    assert sum(r["row"] == "seed" for r in rows) == len(results)
    total = next(
        r for r in rows if r["row"] == "difference" and not r["dataset"]
        and (r["method"], r["reference"]) == ("coop+sar", "coop")
    )  # fmt: skip
    found = paired(results, "coop+sar", "coop")["new"]
    assert float(total["new"]) == pytest.approx(found["diff"], abs=1e-4)
    assert float(total["new_low"]) == pytest.approx(found["ci95"][0], abs=1e-4)


def test_json_is_strict_and_holds_what_the_others_hold(results):
    results[0]["new"] = float("nan")
    document = json.loads(tables.as_json(results), parse_constant=pytest.fail)
    assert set(document) >= {"methods", "paired", "runs", "datasets", "notes"}
    assert len(document["datasets"]) == 9


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "csv", "json"])
def test_command_prints_every_format(folder, format):
    out = command(str(folder), "--format", format, "--per-seed", "--decimals", "2")
    assert out.exit_code == 0
    assert "toys/hats" in out.stdout


def test_command_notes_go_to_stderr(folder, results):
    out = command(str(folder), "--format", "json", "--published")
    assert json.loads(out.stdout)["published"]


def test_published_averages_are_the_means_of_their_columns():
    by_method: dict[str, dict[str, dict]] = {}
    for row in published.rows():
        by_method.setdefault(row["method"], {})[row["dataset"]] = row
    complete = {m: r for m, r in by_method.items() if len(r) == 12}
    assert len(complete) == 10
    for rows in complete.values():
        for side in ("base", "new"):
            column = [r[side] for d, r in rows.items() if d != published.AVERAGE]
            assert sum(column) / 11 == pytest.approx(rows[published.AVERAGE][side], abs=0.011)
    assert by_method["CoOp"][published.AVERAGE]["h"] == pytest.approx(71.66, abs=0.005)


def test_published_rows_say_what_differs(results):
    for r in results:
        r["dataset"] = {"toys/birds": "oxford_pets", "toys/cups": "eurosat"}.get(
            r["dataset"], r["dataset"]
        )
    found = published.records(results)
    coop = next(r for r in found if r["method"] == "CoOp" and r["dataset"] == "OxfordPets")
    assert coop["differs"] == ["backbone icons", "50 epochs, not 200"]
    average = next(r for r in found if r["method"] == "CoOp" and r["dataset"] == "average")
    assert average["differs"][0] == "datasets (2 of 11 shared)"
    kd = next(r for r in found if r["method"] == "PromptKD")
    assert kd["ours"] is None
    assert kd["transductive"]
    assert len(published.tables(results)) == 2


def test_names():
    assert [pretty(m) for m in ("coop+sar", "zero-shot", "mine+sar")] == [
        "CoOp+SAR", "zero-shot", "mine+SAR",
    ]  # fmt: skip
