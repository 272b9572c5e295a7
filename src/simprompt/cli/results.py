"""What is printed of finished runs: a table, or one JSON document."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.config import RunConfig
    from simprompt.experiments.result_file import RunResult


def emit(
    results: list[RunResult], configs: list[RunConfig], started: float, as_json: bool, out: Path
) -> None:
    """The table, or one JSON document and nothing else."""
    from simprompt.cli import warn
    from simprompt.experiments.summary import finite, summarise
    from simprompt.report import tables

    if as_json:
        document = summarise(results)
        document["settings"] = settings_of(configs)
        document["seconds"] = time.perf_counter() - started
        say(json.dumps(finite(document), indent=1, ensure_ascii=False))
    else:
        say(tables.text(results))
        for line in overlaps(results):
            say(line)
        say(f"{len(results)} runs in {out}")
        warn.show(results)


def overlaps(results: list[RunResult]) -> list[str]:
    """One line a dataset: how many novel names SAR had, and which were real new classes."""
    lines = {}
    for r in results:
        if r["novel"]:
            overlap = r["novel"]["overlap"]
            treatment = "kept" if r["config"]["sar"]["keep_overlap"] else "left out"
            lines[r["dataset"]] = (
                f"{r['dataset']}: {r['novel']['count']} novel names ({r['novel']['source']}); "
                f"{len(overlap)} that are real new classes were {treatment}"
            )
    return list(lines.values())


def settings_of(configs: list[RunConfig]) -> dict[str, Any]:
    """What each method was run with, once: the settings that do not differ between its runs."""
    return {
        c.label: c.model_dump(mode="json", exclude={"dataset", "seed", "protocol"})
        for c in reversed(configs)
    }
