"""Results as one self-contained HTML page: no script, no network, no font but the reader's."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from simprompt.config import flat
from simprompt.errors import SimpromptError
from simprompt.experiments.result_file import RunResult, file_of
from simprompt.experiments.run_key import folder_name
from simprompt.report import evidence, plots, words
from simprompt.report.html import HERE, environment
from simprompt.report.selection import (
    USUAL,
    ZERO_SHOT,
    by_protocol,
    datasets_of,
    methods_of,
    of_method,
    pairs_of,
    pretty,
)
from simprompt.report.table import Column, Table, cells
from simprompt.report.tables import (
    average_table,
    dataset_table,
    paired_table,
    seed_table,
    tables,
    time_table,
)
from simprompt.sar import COMPARED_TAU
from simprompt.utils.files.atomic import write_text
from simprompt.utils.files.parsing import json_value
from simprompt.utils.statistics import mean

MOST_RUNS_LISTED = 1000


def write(results: Sequence[RunResult], path: str | Path) -> Path:
    """Write the page of these results, as `experiments.store.read_runs` gives them, in one step.

    Missing pieces (text features, predictions, a dataset that is not there) leave a sentence in
    their place.

    Raises:
        SimpromptError: no results.
    """
    folder = Path(path).parent
    write_text(path, render([_with_folder(r, folder) for r in results]))
    return Path(path)


def write_picture(results: Sequence[RunResult], path: str | Path) -> Path:
    """Write the page's plot of New against Base as an SVG file of its own, in the colours that the
    reader's system asks for, light or dark.

    Raises:
        SimpromptError: no method with both accuracies.
    """
    svg = plots.base_against_new(results, _families(results)[0], "picture")
    if svg is None:
        raise SimpromptError("These runs have no method with base and new accuracies to draw.")
    page = (HERE / "page.css").read_text(encoding="utf-8")
    colours = page[page.index(":root {") : page.index("* {")]
    # a ground of its own: the page around it may be light where the reader's system is dark
    ground = ":root { background: var(--back); font-family: system-ui, sans-serif; }"
    style = f"<style>{colours}{ground}</style>"
    sized = svg.strip().replace("<svg ", '<svg width="492" height="468" ', 1)
    write_text(path, sized.replace("<defs>", f"{style}<defs>", 1))
    return Path(path)


def _with_folder(result: RunResult, out: Path) -> RunResult:
    """A result that comes straight from a run, not from `read_runs`, has its files beside the
    page, if anywhere."""
    name = folder_name(result["dataset"], result["method"], result["seed"], result["key"])
    path = out / name
    return result if "folder" in result else {**result, "folder": str(path)}


def render(results: Sequence[RunResult], load: evidence.Loader | None = None) -> str:
    """The page as a string; the same results give the same page.

    Args:
        load: name -> Dataset, where test images come from; None: the catalogue.
    """
    if not results:
        raise SimpromptError("A report needs at least one result.")
    first_group, *other_groups = by_protocol(results).values()
    labels, everything, results = methods_of(results), results, first_group
    template = environment().get_template("page.html")
    template.globals.update(
        pretty=pretty,
        groups=column_groups,
        rows=html_rows,
        number=lambda label: plots.method_number(label, labels),
    )
    return template.render(
        title=_title(results),
        explanation=words.explanation(results),
        notes=words.notes(everything),
        others=[t for runs in other_groups for t in tables(runs)],
        average=average_table(results),
        paired=paired_table(results),
        datasets=dataset_table(results, numbered=True),
        seeds=seed_table(results) if len(results) <= MOST_RUNS_LISTED else None,
        comparisons=_comparisons(results),
        training=_training(results),
        heatmaps=_heatmaps(results),
        mechanism_plots=_mechanism_plots(results),
        mechanism=mechanism_table(results),
        temperature=COMPARED_TAU,
        images=evidence.images(results, load) if results[0]["protocol"] == USUAL else None,
        settings=settings_table(results),
        tasks=task_table(results),
        times=time_table(results),
        environments=_environments(results),
        runs=len(results),
    )


def column_groups(table: Table) -> list[tuple[str, int]]:
    """Headings over several columns and how many each spans; empty where a table has none."""
    if not any(c.group for c in table.columns):
        return []
    return [
        (name, len(list(columns_of_group)))
        for name, columns_of_group in groupby(c.group for c in table.columns)
    ]


def html_rows(table: Table) -> list[tuple[int, list[str | Markup]]]:
    """Rows of a table as (rows the first cell spans, cells); 0 where the one above spans it."""
    lines = cells(table)
    out: list[tuple[int, list[str | Markup]]] = []
    for i, line in enumerate(lines):
        span = 0
        if line[0] or i in table.breaks or i == 0:
            span = 1
            while i + span < len(lines) and not lines[i + span][0]:
                span += 1
        out.append((span, [_soft(line[0]), *line[1:]]))
    return out


def _soft(name: str) -> Markup:
    """A name that a narrow screen may break behind a slash or a plus."""
    return Markup(re.sub(r"([/+])", r"\1<wbr>", str(escape(name))))


def _title(results: Sequence[RunResult]) -> str:
    return "simprompt: " + ", ".join(pretty(m) for m in methods_of(results)[:6])


def _families(results: Sequence[RunResult]) -> list[list[str]]:
    """Methods that one plot shows: zero-shot with each host and its +sar."""
    labels = methods_of(results)
    hosts = dict(pairs_of(results))
    baseline = [ZERO_SHOT] if ZERO_SHOT in labels else []
    unpaired = [m for m in labels if m != ZERO_SHOT and m not in hosts.values()]
    unpaired.sort(key=lambda m: (m not in hosts, m != "coop", m))
    families = [[*baseline, m, *([hosts[m]] if m in hosts else [])] for m in unpaired]
    return families or [baseline]


def _figure(svg: str | None, caption: str) -> list[dict[str, Any]]:
    return [{"svg": Markup(svg), "caption": caption}] if svg else []


def _comparisons(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    figures = []
    for i, family in enumerate(_families(results)):
        path = " → ".join(pretty(m) for m in family)
        figures += _figure(
            plots.base_against_new(results, family, f"scatter{i}"),
            f"{path}. Small points are tasks, numbered as in the table; large points the means. "
            "Up and right is better; on a dotted line H is the same.",
        )
    for i, (host, sar) in enumerate(pairs_of(results)):
        figures += _figure(
            plots.differences(results, host, sar, f"difference{i}"),
            f"{pretty(sar)} minus {pretty(host)}, in points. Small: each task. Large: their mean, "
            "with its 95% interval; in H this is the difference in the mean of the tasks' H.",
        )
    return figures


def _training(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    figures = []
    for i, family in enumerate(_families(results)):
        names = ", ".join(pretty(m) for m in family if m != ZERO_SHOT)
        figures += _figure(
            plots.curves(results, family, "loss", f"loss{i}"),
            f"{names}: the method's own loss (cross-entropy on base classes) without the SAR "
            "term. Thick: mean over tasks and seeds. Thin: each task.",
        )
        figures += _figure(
            plots.curves(results, family, "sar", f"sar{i}"),
            f"{pretty(family[-1])}: the SAR loss on drawn base and novel classes, before its "
            "weight. Only runs with SAR compute it.",
        )
    return figures


def _heatmaps(results: Sequence[RunResult]) -> dict[str, Any] | None:
    alike = evidence.similarities(results)
    if alike is None:
        return None
    panels = []
    for i, (method, matrix) in enumerate(alike.matrices.items()):
        title = "hand-crafted (zero-shot)" if method == ZERO_SHOT else pretty(method)
        panels.append(
            {
                "svg": Markup(plots.heatmap(matrix, alike.n_base, alike.limits, f"heat{i}", title)),
                "caption": _agreement(results, alike, method),
            }
        )
    return {
        "dataset": alike.dataset,
        "seed": alike.seed,
        "step": alike.step,
        "panels": panels,
        "pair": len(words.learned_methods(results)) == 2,
    }


def _agreement(
    results: Sequence[RunResult], similarities: evidence.Similarities, method: str
) -> str:
    if method == ZERO_SHOT:
        return "What the other two are compared with."
    for r in of_method(results, method):
        if r["dataset"] == similarities.dataset and r["seed"] == similarities.seed:
            means_here = {g: plots.mechanism_means([r], g, "correlation") for g in ("base", "new")}
            phrases = [f"{v[r['dataset']]:.2f} on {g} classes" for g, v in means_here.items() if v]
            if phrases:
                return f"Correlation with the hand-crafted similarities: {' and '.join(phrases)}."
    return ""


def _mechanism_plots(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    figures = []
    for i, family in enumerate(_families(results)):
        if family == [ZERO_SHOT]:
            continue
        names = ", ".join(pretty(m) for m in family if m != ZERO_SHOT)
        figures += _figure(
            plots.mechanism(results, family, "correlation", f"correlation{i}"),
            f"{names}: correlation of off-diagonal class similarities with the hand-crafted "
            "ones. 1 is full agreement. Large: mean over tasks.",
        )
        figures += _figure(
            plots.mechanism(results, family, "row_kl", f"kl{i}"),
            f"{names}: mean KL divergence of similarity rows from the hand-crafted ones, "
            "what SAR makes small. 0 is full agreement. Large: mean over tasks.",
        )
    return figures


def mechanism_table(results: Sequence[RunResult]) -> Table:
    """Row KL and correlation to the hand-crafted similarities, every task, group and method."""
    labels = methods_of(results)
    columns = [Column("Task"), Column("Classes")]
    for heading in ("Row KL", "Correlation", "Drift"):
        columns += [
            Column("before" if m == ZERO_SHOT else pretty(m), "ratio", heading) for m in labels
        ]
    table = Table(
        "Similarities against the hand-crafted ones",
        columns,
        note="Row KL and drift: means over classes. Correlation: Pearson's r of off-diagonal "
        "similarities. Before: zero-shot, whose hand-crafted prompts are their own reference. "
        "Novel: the names SAR draws from; – where a run had none.",
    )

    def row(name: str, group: str, runs: Sequence[RunResult]) -> list[Any]:
        values: list[Any] = []
        for measure in ("row_kl", "correlation", "drift"):
            for m in labels:
                means = plots.mechanism_means(of_method(runs, m), group, measure)
                values.append(mean(list(means.values())) if means else None)
        return [name, "true new" if group == "new" else group, *values]

    groups = ("base", "novel", "new")
    table.add_group([row("mean of tasks", g, results) for g in groups])
    for dataset in datasets_of(results):
        runs_here = [r for r in results if r["dataset"] == dataset]
        table.add_group([row(dataset, g, runs_here) for g in groups])
    return table


def settings_table(results: Sequence[RunResult]) -> Table:
    """Every setting of every method; one that differs between runs shows all its values."""
    labels = methods_of(results)
    flat = {m: [_used(r) for r in of_method(results, m)] for m in labels}
    keys = list(dict.fromkeys(k for runs in flat.values() for run in runs for k in run))
    rows = []
    for key in keys:
        values = [_values([run.get(key) for run in flat[m]]) for m in labels]
        if any(values):
            rows.append([key, *values])
    table = Table(
        "Settings",
        [Column("Setting"), *(Column(pretty(m)) for m in labels)],
        note="–: does not apply, or the default, which for the template is the task's own.",
    )
    seeds = [
        ", ".join(str(s) for s in sorted({r["seed"] for r in of_method(results, m)}))
        for m in labels
    ]
    table.add_group([["seeds", *seeds], *rows])
    return table


def _used(result: RunResult) -> dict[str, Any]:
    """The settings that this run depended on: a method that learns nothing has no schedule."""
    idle = not result["parameters"] and not result["steps"]
    return {
        key: value
        for key, value in flat(result["config"]).items()
        if key not in ("dataset", "seed") and not (idle and key.startswith("training."))
    }


def _values(values: Sequence[Any]) -> str | None:
    """Distinct values, written as YAML would; None if all are the default."""
    texts = list(dict.fromkeys("default" if v is None else _plain(v) for v in values))
    if texts == ["default"]:
        return None
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def task_table(results: Sequence[RunResult]) -> Table:
    """Classes, hand-crafted template, test images and novel names of each task."""
    table = Table(
        "Tasks",
        [
            Column("Task"),
            Column("Base classes", "count"),
            Column("New classes", "count"),
            Column("Hand-crafted prompt"),
            Column("Novel names"),
            Column("True new names the source gave"),
        ],
        note="Novel names: as used. True new names among those of the source are taken out before, "
        "unless the setting sar.keep_overlap is on.",
    )
    rows = []
    for number, dataset in enumerate(datasets_of(results), 1):
        runs_here = [r for r in results if r["dataset"] == dataset]
        novel = [r["novel"] for r in runs_here if r.get("novel")]
        names = sorted({f"{n['count']} ({n['source']})" for n in novel})
        overlap = sorted({name for n in novel for name in n["overlap"]})
        given = {r["config"].get("template") for r in runs_here}
        own_template = (
            next((t for r in runs_here if (t := _own_template(r))), None) if None in given else None
        )
        templates = sorted(t for t in {*given, own_template} if t)
        rows.append(
            [
                f"{number} {dataset}",
                *(len(runs_here[0]["classes"].get(g, ())) for g in ("base", "new")),
                " / ".join(templates) or None,
                ", ".join(names) or None,
                (f"{len(overlap)}: {', '.join(overlap)}" if overlap else "none") if novel else None,
            ]
        )
    table.add_group(rows)
    return table


def _own_template(result: RunResult) -> str | None:
    """The task's own prompt, where the settings leave it to the task: the prompt's card has it."""
    if result["config"].get("template"):
        return None
    try:
        template: str | None = json_value(file_of(result, "prompt.json") or "{}").get("template")
        return template
    except ValueError:
        return None


def _environments(results: Sequence[RunResult]) -> list[str]:
    return sorted({", ".join(f"{k} {v}" for k, v in r["environment"].items()) for r in results})
