"""How near a training step comes to what the machine can do.

The floating-point operations that a step cannot avoid are counted from the class names: only
tokens that some feature depends on, only gradients that reach the prompt. Divided by the step's
time and by the rate of a large matrix product measured between the steps, they give the share of
the machine that does needed work. Everything else lowers it: small matrices, normalisation,
activation functions, softmax, packing, the losses, Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from common import Call, Row, arguments, compare, device, emit, prepare
from step import CASES, Case, learner_of, model_of, names_of, ours

from simprompt.clip.text import TextConfig


def needed(lengths: list[int], prefix: int, c: TextConfig) -> float:
    """Fewest operations of one CoOp step, a multiplication and an addition being two.

    Args:
        lengths: tokens of each class's suffix, with full stop and EOT.
        prefix: tokens of the shared prefix.
    """
    w, hidden = c.width, c.mlp or 4 * c.width
    n, classes, tokens = c.layers, len(lengths), sum(lengths)
    both = tokens + prefix
    after = 2 * w * w + 4 * w * hidden  # a token's way through attention's output and the MLP
    linear = (n - 1) * both * after + classes * after
    linear += (n - 2) * both * 6 * w * w  # queries, keys, values of the middle layers
    linear += both * 4 * w * w + classes * 2 * w * w  # the last layer's, queries of EOT alone
    linear += classes * 2 * w * c.embed_dim
    frozen = prefix * 6 * w * w  # layer 0: suffix tokens never change, their projections are known
    seen = sum(n_ * prefix + n_ * (n_ + 1) // 2 for n_ in lengths) + prefix * (prefix + 1) // 2
    last = sum(n_ + prefix for n_ in lengths)
    attention = 4 * w * ((n - 1) * seen + last)
    back = 2 * 4 * w * ((n - 2) * seen + last)  # two products for each of the forward's
    return 2 * (linear + frozen) + attention + back


def gemm_calls() -> tuple[dict[str, Call], float]:
    """Large matrix products, and the operations of each; the quickest of them sets the rate."""
    tall, wide = torch.randn(1024, 512).to(device()), torch.randn(2048, 512).to(device())
    square = torch.randn(1024, 1024).to(device())
    calls: dict[str, Call] = {
        "1024x512 by 512x2048": lambda: tall @ wide.T,
        "1024x1024 squared": lambda: square @ square,
    }
    return calls, 2.0 * 1024**3


def rows(options: argparse.Namespace) -> Iterator[Row]:
    wanted = ("coop", "coop+sar", "coop, 500 classes", "icons: coop+sar, 40 + 200 classes")
    for case in CASES:
        if case.name not in wanted or (options.case and options.case not in case.name):
            continue
        yield share(case, options)


def share(case: Case, options: argparse.Namespace) -> Row:
    clip = model_of(case, options.tiny)
    learner = learner_of(case, clip)
    prompts = learner.prompts(names_of(case))
    lengths = [len(ids) for ids in prompts.ids]
    base, novel = lengths[: case.base], lengths[case.base :]
    drawn = 64 * len(novel) / len(lengths) if case.sar else 0.0
    operations = needed(base, 1 + case.n_ctx, clip.config.text)
    if case.sar:  # as many novel classes as a draw has on average, of average length
        all_novel = needed(base + novel, 1 + case.n_ctx, clip.config.text)
        operations += (all_novel - operations) * drawn / len(novel)
    gemms, cost = gemm_calls()
    steps = 4 if case.model == "icons" else 1
    found, peaks = compare({"ours": ours(case, clip, steps), **gemms}, options.repeats)
    found["ours"].seconds = [s / steps for s in found["ours"].seconds]
    rate = max(cost / found[name].median for name in gemms)
    reached = operations / found["ours"].median
    return Row(
        case.name,
        found["ours"],
        ours_peak_mb=peaks["ours"],
        more={
            "needed_gflop": operations / 1e9,
            "gemm_gflops": rate / 1e9,
            "step_gflops": reached / 1e9,
            "share": reached / rate,
        },
    )


if __name__ == "__main__":
    given = arguments(__doc__ or "").parse_args()
    prepare(given)
    emit(rows(given), given, "Needed operations against the rate of a matrix product")
