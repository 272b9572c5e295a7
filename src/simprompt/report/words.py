"""What the numbers say, in words that follow from them, and what a reader should be wary of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from simprompt.experiments.result_file import RunResult
from simprompt.experiments.summary import averages, paired
from simprompt.report.selection import (
    USUAL,
    ZERO_SHOT,
    datasets_of,
    methods_of,
    of_method,
    pairs_of,
    pretty,
)
from simprompt.report.table import MARK, signed

SMALL = 0.05  # what one decimal would print as zero
H = (
    "H, the harmonic mean of base and new accuracy, is high only where both are: methods are "
    "compared by it."
)


def learned_methods(results: Sequence[RunResult]) -> list[str]:
    """The method, or the pair host and host+sar, that prose, heatmaps and images are about."""
    pairs = pairs_of(results)
    if pairs:
        return list(pairs[0])
    methods_left = [m for m in methods_of(results) if m != ZERO_SHOT]
    # a linear probe has no answer on new classes: rather speak of a method that has
    methods_left.sort(key=lambda m: math.isnan(averages(of_method(results, m))["new"]))
    return methods_left[:1]


def explanation(results: Sequence[RunResult]) -> list[str]:
    """Three sentences or fewer, each only where the runs it speaks of are there, and what H is.

    Args:
        results: of one protocol.
    """
    if results[0]["protocol"] != USUAL:
        return [f"Results of the protocol {results[0]['protocol']}, {len(results)} runs."]
    labels, methods_shown = methods_of(results), learned_methods(results)
    n = len(datasets_of(results))
    tasks = f"{n} tasks" if n > 1 else f"the task {results[0]['dataset']}"
    models = sorted({r["config"]["model"] for r in results})
    sentences = []
    if ZERO_SHOT in labels:
        a = averages(of_method(results, ZERO_SHOT))
        sentences.append(
            f"A frozen CLIP ({', '.join(models)}) that is given each class name in a hand-crafted "
            f"prompt names {a['base']:.1f}% of the test images right among the base classes and "
            f"{a['new']:.1f}% among the new ones, averaged over {tasks}."
        )
    if methods_shown:
        sentences.append(_of_host(results, methods_shown[0], ZERO_SHOT in labels))
    if len(methods_shown) == 2:
        sentences.append(_of_sar(results, *methods_shown))
    return [*sentences, H]


def _of_host(results: Sequence[RunResult], host: str, compared: bool) -> str:
    runs = of_method(results, host)
    shots = sorted({r["config"]["training"]["shots"] for r in runs})
    a = averages(runs)
    start = (
        f"{pretty(host)} learns from {_range(shots)} images of each base class and none of the "
        f"new ones: it reaches {a['base']:.1f}% on base and {a['new']:.1f}% on new classes"
    )
    if not compared:
        return start + "."
    gains = paired(results, host, ZERO_SHOT)
    base, new_gain = gains["base"]["diff"], gains["new"]["diff"]
    if math.isnan(base) or math.isnan(new_gain):
        return start + "."
    if base > SMALL and new_gain < -SMALL:
        ending = "it overfits the classes it saw"
    elif base > SMALL and new_gain > SMALL:
        ending = "here it gains on both sides"
    elif base < -SMALL and new_gain < -SMALL:
        ending = "here it loses on both sides"
    else:
        ending = "here it does not show the usual gain on base and loss on new"
    scope_text = "" if gains["over"] == "all runs" else " on the tasks and seeds that both have"
    points = f"{signed(base)} and {signed(new_gain)} points"
    return f"{start}, {points} against zero-shot{scope_text}, so {ending}."


def _of_sar(results: Sequence[RunResult], host: str, sar: str) -> str:
    gains = paired(results, sar, host)
    new_gain, base, h = (gains[m] for m in ("new", "base", "h_of_means"))
    start = (
        f"SAR, which also keeps the similarities between class texts as the hand-crafted prompts "
        f"have them, changes {pretty(host)} by {signed(new_gain['diff'])} points on new"
    )
    middle = f", {signed(base['diff'])} on base and {signed(h['diff'])} in H of the means"
    if new_gain["ci95"] is None:
        return f"{start}{middle}; one task gives no interval."
    low, high = new_gain["ci95"]
    start += f" (95% interval {signed(low)} to {signed(high)})"
    if low > 0:
        harm = paired(results, host, ZERO_SHOT)
        loss = -harm["new"]["diff"]
        is_same = gains["over"] == harm["over"] == "all runs"
        share = new_gain["diff"] / loss if is_same and loss > SMALL else math.nan
        if math.isnan(share):
            ending = "it helps on new classes"
        elif share >= 1:
            ending = "it gives back all that was lost on new classes"
        else:
            ending = f"it gives back {100 * share:.0f}% of what was lost on new classes"
    elif high < 0:
        ending = "it hurts on new classes"
    else:
        ending = "these runs do not show that it helps on new classes"
    return f"{start}{middle}: {ending}."


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def notes(results: Sequence[RunResult]) -> list[str]:
    """What makes numbers of these runs less comparable than they look."""
    sentences = []
    datasets = datasets_of(results)
    for method in methods_of(results):
        datasets_here = datasets_of(of_method(results, method))
        missing = [d for d in datasets if d not in datasets_here]
        if missing:
            sentences.append(
                f"{pretty(method)} was run on {len(datasets_here)} of {len(datasets)} tasks (not "
                "on "
                f"{_some(missing)}): its averages are over other tasks. Differences are over "
                f"the tasks and seeds that both have; where these are not all, {MARK} marks them."
            )
    counts = Counter((r["dataset"], r["method"], r["seed"]) for r in results)
    doubled = sorted({m for (_, m, _), count in counts.items() if count > 1})
    if doubled:
        sentences.append(
            f"{_some([pretty(m) for m in doubled])}: several runs with other settings share one "
            "name, task and seed and are averaged together. Give their directories apart."
        )
    seeds = {m: {r["seed"] for r in of_method(results, m)} for m in methods_of(results)}
    most_seeds = max(map(len, seeds.values()))
    fewer_seeds = [pretty(m) for m, seed_set in seeds.items() if len(seed_set) < most_seeds]
    if fewer_seeds:
        sentences.append(
            f"Fewer seeds than the others ({most_seeds}): {_some(fewer_seeds)}. Differences are "
            "over the seeds "
            f"that both have; where these are not all, {MARK} marks them."
        )
    models = sorted({r["config"]["model"] for r in results})
    if len(models) > 1:
        sentences.append(f"Runs on different CLIPs ({_some(models)}) are averaged together.")
    protocols = sorted({r["config"].get("protocol", "base-to-new") for r in results})
    if protocols != ["base-to-new"]:
        sentences.append(
            f"Runs of the protocols {_some(protocols)}: Base is then the accuracy on what was "
            "learned from and New the one on what was not; see docs/studies.md."
        )
    limits = sorted({r["config"].get("max_test_per_class") or 0 for r in results})
    if limits != [0]:
        sentences.append(
            "Some runs were tested on at most "
            f"{_range([limit for limit in limits if limit])} images a class, not on all."
        )
    signs = Counter(sign for r in results for sign in r.get("warnings") or ())
    if signs:
        warned = [r for r in results if r.get("warnings")]
        sign, _ = signs.most_common(1)[0]
        names = [f"{pretty(r['method'])} on {r['dataset']}, seed {r['seed']}" for r in warned]
        sentences.append(
            f"{len(warned)} of {len(results)} runs carry warnings, such as: {sign} "
            f"They are: {_some(names, most=12, between='; ')}."
        )
    return sentences


def _some(names: Sequence[str], most: int = 6, between: str = ", ") -> str:
    extra_count = len(names) - most
    return between.join(names[:most]) + (f" and {extra_count} more" if extra_count > 0 else "")
