"""Every method against a plain version written here by formula, in float64.

Nothing is shared with the package but the weights of a tiny CLIP and the tokens of class names:
one class and one image at a time, all 40 positions, explicit masks and layer norms, SGD and Adam
written out. Ten steps of training agree to 1e-8, with SAR and without.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.config import SAR, Training
from simprompt.sar import Regulariser
from simprompt.training.loop import train
from simprompt.utils.seeds import stream

pytestmark = pytest.mark.integration

NAMES = ("cat", "red fox", "zebra", "palm tree", "old house")
NOVEL = ("dog", "blue whale", "oak")
TEMPLATE = "a photo of a {}, a type of animal."
IMAGES, EPOCHS, BATCH, SEED = 8, 5, 4, 3  # two steps an epoch, ten in all
FOUR = ("a photo of a {}.", "a {} in a book.", "the plastic {}.", "art of a {}.")
Params = dict[str, Tensor]


# ---- the two towers, one sequence at a time


def layer_norm(x: Tensor, norm: Any) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(spread + 1e-5) * norm.weight + norm.bias


def block_of(x: Tensor, block: Any, heads: int, causal: bool) -> Tensor:
    """One transformer layer on x [L, W]."""
    length, width = x.shape
    qkv = layer_norm(x, block.ln_1) @ block.qkv.weight.T + block.qkv.bias
    q, k, v = qkv.view(length, 3, heads, width // heads).permute(1, 2, 0, 3)  # [heads, L, d]
    scores = q @ k.mT / math.sqrt(width // heads)
    if causal:
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -1e30)
    mixed = (torch.softmax(scores, dim=2) @ v).transpose(0, 1).reshape(length, width)
    x = x + mixed @ block.out.weight.T + block.out.bias
    hidden = layer_norm(x, block.ln_2) @ block.fc.weight.T + block.fc.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    return x + hidden @ block.proj.weight.T + block.proj.bias


def unit(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))


def read_text(clip: CLIP, x: Tensor, replaced: dict[int, Tensor] | None = None) -> Tensor:
    """Feature [E], not normalised, of one embedded prompt [L, W] whose last row is EOT.

    replaced[l] [M, W] takes positions 1..M before layer l. The sequence is filled up to the
    context length with rubbish, which a causal tower must not notice.
    """
    tower, end = clip.text, len(x) - 1
    filler = torch.full((clip.config.text.context_length - len(x), x.shape[1]), 0.3, dtype=x.dtype)
    x = torch.cat([x, filler]) + tower.positional_embedding
    for layer, block in enumerate(tower.blocks):
        if replaced and layer in replaced:
            new = replaced[layer]
            x = torch.cat([x[:1], new, x[1 + len(new) :]])
        x = block_of(x, block, clip.config.text.heads, causal=True)
    return layer_norm(x[end], tower.ln_final) @ tower.projection


def read_image(clip: CLIP, pixels: Tensor, extra: list[Tensor] | None = None) -> Tensor:
    """Feature [E], normalised, of one image [3, S, S]; extra[l] [M, W] stand last at layer l."""
    tower, p = clip.visual, clip.config.vision.patch_size
    kernel = tower.patch.weight.flatten(1)  # [W, 3 p p]
    rows = [
        kernel @ pixels[:, i : i + p, j : j + p].flatten()
        for i in range(0, pixels.shape[1], p)
        for j in range(0, pixels.shape[2], p)
    ]
    x = torch.stack([tower.class_embedding, *rows]) + tower.positional_embedding
    plain = len(x)
    if extra:
        x = torch.cat([x, extra[0]])
    x = layer_norm(x, tower.ln_pre)
    for layer, block in enumerate(tower.blocks):
        if extra and 0 < layer < len(extra):
            x = torch.cat([x[:plain], extra[layer]])
        x = block_of(x, block, clip.config.vision.heads, causal=False)
    return unit(layer_norm(x[0], tower.ln_post) @ tower.projection)


def embed(clip: CLIP, ids: list[int]) -> Tensor:
    return clip.text.token_embedding.weight[torch.tensor(ids, dtype=torch.long)]


def scale_of(clip: CLIP) -> float:
    return math.exp(clip.logit_scale.item())


@cache
def sentence(clip: CLIP, text: str) -> Tensor:
    """Feature [E], not normalised, of a sentence."""
    t = clip.tokenizer
    return read_text(clip, embed(clip, [t.sot, *t.encode(text), t.eot]))


def hand_crafted(clip: CLIP, names: tuple[str, ...], template: str = TEMPLATE) -> Tensor:
    return torch.stack([unit(sentence(clip, template.replace("{}", n))) for n in names])


def behind(
    clip: CLIP,
    ctx: Tensor,
    names: tuple[str, ...],
    replaced: dict[int, Tensor] | None = None,
    tail: str = ".",
    words: str = "",
) -> Tensor:
    """Normalised features [C, E] of [SOT][ctx][words][name][tail][EOT]."""
    return unit(unnormalized_behind(clip, ctx, names, replaced, tail, words))


def unnormalized_behind(
    clip: CLIP,
    ctx: Tensor,
    names: tuple[str, ...],
    replaced: dict[int, Tensor] | None = None,
    tail: str = ".",
    words: str = "",
) -> Tensor:
    """As `behind`, at the length that the tower gives."""
    t = clip.tokenizer
    rows = []
    for name in names:
        rest = embed(clip, [*t.encode(words), *t.encode(name + tail), t.eot])
        x = torch.cat([embed(clip, [t.sot]), ctx, rest])
        rows.append(read_text(clip, x, replaced))
    return torch.stack(rows)


# ---- losses


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros((), dtype=logits.dtype)
    for row, label in zip(logits, labels, strict=True):
        total = total + torch.log(torch.exp(row - row.max()).sum()) + row.max() - row[label]
    return total / len(logits)


def sar_by_formula(t: Tensor, h: Tensor, tau: float) -> Tensor:
    """mean_i sum_{j != i} P_ij log(P_ij / Q_ij)."""
    n, total = len(t), torch.zeros((), dtype=t.dtype)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        p = torch.softmax(torch.stack([h[i] @ h[j] for j in others]) / tau, 0)
        q = torch.softmax(torch.stack([t[i] @ t[j] for j in others]) / tau, 0)
        total = total + (p * (p.log() - q.log())).sum()
    return total / n


@dataclass
class Case:
    """A method written down again: text features, image features and loss from its parameters."""

    method: str
    text: Callable[[CLIP, Params, tuple[str, ...]], Tensor]
    image: Callable[[CLIP, Params, Tensor], Tensor] | None = None  # one image's pixels
    extra: Callable[[CLIP, Params, Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    teacher: Callable[[CLIP, tuple[str, ...]], Tensor] = hand_crafted

    def loss(self, clip: CLIP, p: Params, images: Tensor, labels: Tensor) -> Tensor:
        scale = scale_of(clip)
        t = self.text(clip, p, NAMES)
        x = images if self.image is None else torch.stack([self.image(clip, p, i) for i in images])
        logits = scale * torch.stack([torch.stack([xi @ tj for tj in t]) for xi in x])
        loss = cross_entropy(logits, labels)
        if self.extra:
            loss = loss + self.extra(clip, p, images, x, t, logits)
        return loss


def deep_of(p: Params) -> dict[int, Tensor]:
    return {i + 1: tokens for i, tokens in enumerate(p["deep"])}


def coop_text(clip: CLIP, p: Params, names: tuple[str, ...]) -> Tensor:
    return behind(clip, p["ctx"], names)


def middle_text(clip: CLIP, p: Params, names: tuple[str, ...]) -> Tensor:
    """Class-specific contexts on both sides of the name; unseen names take the mean context."""
    t, rows = clip.tokenizer, []
    for name in names:
        ctx = p["ctx"][NAMES.index(name)] if name in NAMES else sum(p["ctx"]) / len(NAMES)
        half = len(ctx) // 2
        word, end = embed(clip, t.encode(name)), embed(clip, [*t.encode("."), t.eot])
        x = torch.cat([embed(clip, [t.sot]), ctx[:half], word, ctx[half:], end])
        rows.append(unit(read_text(clip, x)))
    return torch.stack(rows)


def deep_text(clip: CLIP, p: Params, names: tuple[str, ...]) -> Tensor:
    return behind(clip, p["ctx"], names, deep_of(p))


def tokens_image(clip: CLIP, p: Params, pixels: Tensor) -> Tensor:
    return read_image(clip, pixels, list(p["tokens"]))


def kept_text(clip: CLIP, p: Params, names: tuple[str, ...]) -> Tensor:
    """Two tokens of "a photo of a" are learned; "of a" stays, as in the MaPLe repository."""
    return behind(clip, p["ctx"], names, deep_of(p), words="of a")


def maple_image(clip: CLIP, p: Params, pixels: Tensor) -> Tensor:
    texts = [p["ctx"], *p["deep"]]
    made = [v @ p[f"coupling.{i}.weight"].T + p[f"coupling.{i}.bias"] for i, v in enumerate(texts)]
    return read_image(clip, pixels, made)


def tcp_text(
    clip: CLIP,
    p: Params,
    names: tuple[str, ...],
    tail: str = ", a type of animal.",
    words: str = "",
) -> Tensor:
    rows = []
    for name in names:
        h = hand_crafted(clip, (name,))[0]
        hidden = p["down.weight"] @ h + p["down.bias"]
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        tokens = (p["up.weight"] @ hidden + p["up.bias"]).view(p["ctx"].shape)
        rows.append(behind(clip, p["ctx"], (name,), {2: tokens}, tail, words)[0])
    return torch.stack(rows)


def tcp_student_text(clip: CLIP, p: Params, names: tuple[str, ...]) -> Tensor:
    """Of "a photo of a person doing" the first four words are replaced, as on UCF101."""
    return tcp_text(clip, p, names, ", a type of car", "person doing")


def words_text(clip: CLIP, p: Params, names: tuple[str, ...]) -> Tensor:
    """ProGrad counts eight words in "a type of pet, a photo of a", which has nine tokens."""
    return behind(clip, p["ctx"], names, words="a")


def student_text(clip: CLIP, p: Params, names: tuple[str, ...]) -> Tensor:
    return behind(clip, p["ctx"], names, words="of a", tail=" icon")


def kg(weight: float) -> Callable[..., Tensor]:
    def extra(clip: CLIP, p: Params, i: Tensor, x: Tensor, t: Tensor, logits: Tensor) -> Tensor:
        h = hand_crafted(clip, NAMES)
        return weight * (1 - sum(t[c] @ h[c] for c in range(len(NAMES))) / len(NAMES))

    return extra


def ensemble(clip: CLIP, names: tuple[str, ...]) -> Tensor:
    """PromptSRC's teacher: the mean over templates before any normalisation."""
    rows = []
    for name in names:
        whole = [sentence(clip, template.replace("{}", name)) for template in FOUR]
        rows.append(unit(sum(whole) / len(whole)))
    return torch.stack(rows)


def self_consistency(
    clip: CLIP, p: Params, images: Tensor, x: Tensor, t: Tensor, logits: Tensor
) -> Tensor:
    h = ensemble(clip, NAMES)
    x0 = torch.stack([read_image(clip, pixels) for pixels in images])
    z = scale_of(clip) * x0 @ h.T
    kl = torch.zeros((), dtype=t.dtype)
    for a, b in zip(z, logits, strict=True):
        pa, pb = torch.softmax(a, 0), torch.softmax(b, 0)
        kl = kl + (pa * (pa.log() - pb.log())).sum()
    return 25 * (t - h).abs().mean() + 10 * (x - x0).abs().mean() + kl / logits.numel()


CASES = [
    Case("coop", coop_text),
    Case("coop", middle_text, options={"class_specific": True, "position": "middle"}),
    Case("kgcoop", coop_text, extra=kg(8.0)),
    Case("language", deep_text),
    Case("language", kept_text, options={"n_ctx": 2}),
    Case("vpt", lambda c, p, n: hand_crafted(c, n, "a photo of a {}."), tokens_image),
    Case("vpt+text", coop_text, tokens_image),
    Case("ivlp", kept_text, tokens_image),
    Case("ivlp", deep_text, tokens_image, options={"n_ctx": 4}),
    Case("maple", kept_text, maple_image),
    Case("promptsrc", deep_text, tokens_image, self_consistency, teacher=ensemble),
    Case("promptsrc", kept_text, tokens_image, self_consistency, {"n_ctx": 2}, teacher=ensemble),
    Case("tcp", tcp_text, extra=kg(8.0)),
    Case(
        "tcp",
        tcp_student_text,
        extra=kg(8.0),
        options={"student": "a photo of a person doing {}, a type of car"},
    ),
    Case("coop", student_text, options={"n_ctx": 2, "student": "a photo of a {} icon"}),
]


class CoCoOpCase(Case):
    """Text features of every class anew for every image."""

    def loss(self, clip: CLIP, p: Params, images: Tensor, labels: Tensor) -> Tensor:
        rows = []
        for x in images:
            hidden = torch.relu(p["meta_net.0.weight"] @ x + p["meta_net.0.bias"])
            pi = p["meta_net.2.weight"] @ hidden + p["meta_net.2.bias"]
            t = behind(clip, p["ctx"] + pi, NAMES)
            rows.append(scale_of(clip) * t @ x)
        return cross_entropy(torch.stack(rows), labels)


class DePTCase(Case):
    """A host, a linear head on scaled text and image features, and KgCoOp's term for that host.

    What is scaled has the length that the towers give, which differs from image to image.
    """

    def loss(self, clip: CLIP, p: Params, images: Tensor, labels: Tensor) -> Tensor:
        inner = {k.removeprefix("host."): v for k, v in p.items()}
        unnormalized = unnormalized_behind(clip, inner["ctx"], NAMES)
        t = unit(unnormalized)
        logits = scale_of(clip) * unit(images) @ t.T
        told = [p["text_scale"] * unnormalized[label] + p["text_bias"] for label in labels]
        seen = [p["image_scale"] * x + p["image_bias"] for x in images]
        linear = torch.stack(told + seen) @ p["head.weight"].T + p["head.bias"]
        loss = 0.3 * cross_entropy(logits, labels)
        loss = loss + 0.7 * cross_entropy(linear, torch.cat([labels, labels]))
        x = unit(images)
        return loss + self.extra(clip, inner, x, x, t, logits) if self.extra else loss


class TipCase(Case):
    """Zero-shot logits plus the cache's."""

    def loss(self, clip: CLIP, p: Params, images: Tensor, labels: Tensor) -> Tensor:
        h = hand_crafted(clip, NAMES)
        logits = scale_of(clip) * images @ h.T
        rows = []
        for x, row in zip(images, logits, strict=True):
            for key, label in zip(p["keys"], self.options["labels"], strict=True):
                hot = torch.tensor([float(c == label) for c in range(len(NAMES))]).to(row)
                row = row + torch.exp(-5.5 * (1 - x @ key)) * hot
            rows.append(row)
        return cross_entropy(torch.stack(rows), labels)


class ProbeCase(Case):
    def loss(self, clip: CLIP, p: Params, images: Tensor, labels: Tensor) -> Tensor:
        scale = scale_of(clip)
        return cross_entropy(scale * images @ p["weight"].T + p["bias"], labels)


def dept_text(clip: CLIP, p: Params, names: tuple[str, ...]) -> Tensor:
    return coop_text(clip, {"ctx": p.get("ctx", p.get("host.ctx"))}, names)


CASES += [
    CoCoOpCase("cocoop", coop_text),
    DePTCase("dept", dept_text),
    DePTCase("dept", dept_text, extra=kg(2.0), options={"host": "kgcoop"}),
]


# ---- optimisers and the loop


def rate(epoch: int, lr: float) -> float:
    return 1e-5 if epoch == 0 else lr * (1 + math.cos(math.pi * (epoch - 1) / EPOCHS)) / 2


def sgd(p: Params, grads: Params, state: Params, lr: float, times: Callable[[str], float]) -> None:
    for name, value in p.items():
        g = grads[name] + 5e-4 * value
        state[name] = g if name not in state else 0.9 * state[name] + g
        p[name] = (value - lr * times(name) * state[name]).detach().requires_grad_()


def one(name: str) -> float:
    return 1.0


def head_rate(name: str) -> float:
    """DePT's own parameters learn 6.5 times as fast as its host's, after the warm-up epoch."""
    return 1.0 if name.startswith("host.") else 6.5


def adam(
    p: Params, grads: Params, state: dict, lr: float, eps: float, l2: float, decay: float
) -> None:
    """Adam with an L2 gradient `l2` and decoupled decay `decay`."""
    for name, value in p.items():
        m, v, n = state.get(name, (0.0, 0.0, 0))
        g, n = grads[name] + l2 * value, n + 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        state[name] = (m, v, n)
        step = m / (1 - 0.9**n) / (torch.sqrt(v / (1 - 0.999**n)) + eps)
        p[name] = (value * (1 - lr * decay) - lr * step).detach().requires_grad_()


def gradients(loss: Tensor, p: Params) -> Params:
    found = torch.autograd.grad(loss, list(p.values()), allow_unused=True, retain_graph=True)
    return {
        n: torch.zeros_like(v) if g is None else g
        for (n, v), g in zip(p.items(), found, strict=True)
    }


def reference_run(
    case: Case, clip: CLIP, p: Params, images: Tensor, labels: Tensor, sar: SAR | None
) -> tuple[Params, list[float]]:
    """Ten steps by formula; the batches are drawn as the package says it draws them."""
    generator, draws = stream(SEED, "images"), stream(SEED, "sar")
    everyone = (*NAMES, *NOVEL)
    h = case.teacher(clip, everyone).detach()
    state: dict = {}
    average: Params = {}
    losses = []
    lr = methods.find(case.method).schedule.lr
    # PromptSRC's Gaussian, mean 15 and deviation 1, over epochs 1..5
    exponents = [-((e - 15) ** 2) / 2 for e in range(1, EPOCHS + 1)]
    shares = [math.exp(a - max(exponents)) for a in exponents]
    shares = [s / sum(shares) for s in shares]
    for epoch in range(EPOCHS):
        order, total = torch.randperm(IMAGES, generator=generator), 0.0
        for step in range(IMAGES // BATCH):
            rows = order[step * BATCH : (step + 1) * BATCH]
            views = torch.randint(images.shape[1], (BATCH,), generator=generator)
            x, y = images[rows, views], labels[rows]
            loss = case.loss(clip, p, x, y)
            total += loss.item()
            grads = gradients(loss, p)
            if case.method == "prograd":
                grads = projected(clip, p, x, grads, case)
            if sar:
                drawn = (
                    torch.randperm(len(everyone), generator=draws)[: sar.classes_per_step]
                    .sort()
                    .values
                )
                t = case.text(clip, p, tuple(everyone[i] for i in drawn))
                penalty = sar_by_formula(t, h[drawn], sar.temperature)
                extra = gradients(sar.weight * penalty, p)
                grads = {name: g + extra[name] for name, g in grads.items()}
            if case.method in ("tcp", "linear-probe"):
                eps = 1e-3 if case.method == "tcp" else 1e-8
                adam(p, grads, state, rate(epoch, lr), eps, 5e-4, 0.0)
            elif case.method == "tip-adapter":
                adam(p, grads, state, rate(epoch, lr), 1e-4, 0.0, 0.01)
            else:
                times = head_rate if case.method == "dept" and epoch else one
                sgd(p, grads, state, rate(epoch, lr), times)
        losses.append(total / (IMAGES // BATCH))
        for name, value in p.items():
            average[name] = average.get(name, 0) + shares[epoch] * value.detach()
    return (average if case.method == "promptsrc" else p), losses


def projected(clip: CLIP, p: Params, x: Tensor, grads: Params, case: Case) -> Params:
    scale = scale_of(clip)
    target = torch.softmax(scale * x @ hand_crafted(clip, NAMES).T, dim=1)
    logits = scale * x @ case.text(clip, p, NAMES).T
    kl = -(target * torch.log_softmax(logits, dim=1)).sum() / len(x)
    general, own = gradients(kl, p)["ctx"], grads["ctx"]
    along = float((own * general).sum())
    if along < 0:
        length = float(general.norm())
        own = own - along / length * general / length
    return {"ctx": own}


CASES.append(Case("prograd", coop_text))
CASES.append(
    Case("prograd", words_text, options={"count": "words", "init": "a type of pet, a photo of a"})
)
SMALL = {"ivlp": {"n_tokens": 3}, "promptsrc": {"templates": FOUR}, "vpt": {"n_tokens": 2}}
RUNS = [(case, with_sar) for case in CASES for with_sar in (False, True)]
RUNS = [(case, s) for case, s in RUNS if not (s and case.method == "vpt")]
RUNS += [(ProbeCase("linear-probe", coop_text), False), (TipCase("tip-adapter", coop_text), False)]


def name_of(run: tuple[Case, bool]) -> str:
    own = "-".join(str(value) for key, value in run[0].options.items() if key != "labels")
    return f"{run[0].method}{'-' + own if own else ''}{'+sar' if run[1] else ''}"


@pytest.mark.parametrize("run", RUNS, ids=name_of)
def test_ten_steps(run: tuple[Case, bool], tiny_clip: CLIP) -> None:
    case, with_sar = run
    clip = tiny_clip.double()
    learner_class = methods.find(case.method)
    options = {k: v for k, v in case.options.items() if k != "labels"}
    config = learner_class.Config(**{**SMALL.get(case.method, {}), **options})
    learner = learner_class(clip, NAMES, TEMPLATE, config, seed=SEED)

    random = torch.Generator().manual_seed(7)
    labels = torch.randint(len(NAMES), (IMAGES,), generator=random)
    shape = (3, 16, 16) if learner.image_input == "pixels" else (clip.embed_dim,)
    images = torch.randn(IMAGES, 2, *shape, generator=random, dtype=torch.float64)
    if learner.image_input == "unnormalized":
        images = images * torch.linspace(0.5, 2, IMAGES, dtype=torch.float64)[:, None, None]
    elif learner.image_input != "pixels":
        images = unit(images)

    # the published schedule, but five epochs of two steps
    published = learner_class.schedule.model_dump()
    settings = Training(**{**published, "epochs": EPOCHS, "batch_size": BATCH})
    if case.method == "tip-adapter":
        case.options["labels"] = labels.tolist()
        start = {"keys": unit((images[:, 0] + images[:, 1]) / 2)}
    else:
        start = {n: v.detach().clone() for n, v in learner.named_parameters()}
    start = {n: v.requires_grad_() for n, v in start.items()}

    sar, plug = None, None
    if with_sar:
        sar = SAR(weight=0.5, temperature=0.05, classes_per_step=5)
        everyone = [*NAMES, *NOVEL]
        regulariser = Regulariser(sar, learner.teacher(everyone), len(NAMES), SEED)
        plug = (regulariser, learner.prompts(everyone))
    noted = with_sar and case.method == "cocoop"
    with pytest.warns(UserWarning, match="not regularised") if noted else nullcontext():
        curves = train(learner, images, labels, settings, SEED, plug)

    expected, losses = reference_run(case, clip, dict(start), images, labels, sar)
    moved = 0.0
    for name, value in learner.named_parameters():
        difference = (value - expected[name]).abs().max().item()
        assert difference < 1e-8, f"{name} differs by {difference}"
        moved = max(moved, (value - start[name]).abs().max().item())
    assert moved > 1e-6, "nothing was learned"
    assert curves.loss == pytest.approx(losses, abs=1e-8)
