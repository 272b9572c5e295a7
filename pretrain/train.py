"""Distil, then train both towers together; log, checkpoint, resume."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain import captions, collect, evaluate, packs, restyle, words
from pretrain.captions import Caption
from pretrain.model import Pretraining, Sizes, start_tokens

_DIRECTIONS = {"left", "right", "arrow", "turn", "forward", "back", "letter", "east", "west"}


@dataclass(frozen=True)
class Settings:
    """Of a run; chosen by short pilots on the validation pack."""

    nouns: int = 128  # per batch
    drawings: int = 2  # per noun in a batch
    phrases: int = 96  # text-only, per batch
    common_share: float = 0.6  # of those, common drawable nouns
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up: float = 0.02  # share of the run
    text_first: float = 0.03  # share of the run that only distils the text tower
    soft: float = 0.15  # share of the contrastive target that follows the teacher
    soft_temperature: float = 0.1
    bank: int = 2048  # phrases an image is told from in the teacher's space
    bank_weight: float = 0.5
    text_weight: float = 2.0
    alias_share: float = 0.2  # captions that use another name of the drawing
    ema: float = 0.998
    muon: bool = True
    seed: int = 7


class Corpus:
    """The prepared arrays in memory, and how a batch is drawn from them."""

    def __init__(self, cache: Path) -> None:
        from tokenizers import Tokenizer

        self.records = [r for r in collect.read(cache) if r.pack not in collect.VALIDATION_PACKS]
        self.mono, self.colour = (
            np.load(cache / f"{kind}.npy", mmap_mode="r") for kind in ("mono", "colour")
        )
        self.phrases: list[str] = json.loads((cache / "phrases.json").read_text(encoding="utf-8"))
        self.phrase_id = {p: i for i, p in enumerate(self.phrases)}
        self.teacher = F.normalize(torch.from_numpy(np.load(cache / "phrases.npy")).float(), dim=-1)
        self.tokenizer = Tokenizer.from_file(str(cache / "tokenizer.json"))
        self.sot: int = self.tokenizer.token_to_id(words.SOT) or 0
        self.eot: int = self.tokenizer.token_to_id(words.EOT) or 1
        self.by_noun: dict[str, list[int]] = defaultdict(list)
        for i, record in enumerate(self.records):
            self.by_noun[record.names[0]].append(i)
        nouns = words.wordnet(cache)
        self.nouns = sorted(self.by_noun)
        self.noun_weight = np.array([self._noun_weight(n, nouns) for n in self.nouns])
        self.noun_weight /= self.noun_weight.sum()
        self.within = {n: self._within(self.by_noun[n]) for n in self.nouns}
        self.common = sorted(
            self.phrase_id[n]
            for n, (file, tags) in nouns.items()
            if tags > 0 and file in words.DRAWABLE and " " not in n
        )
        named = {n for r in self.records for n in r.names}
        self.named = torch.tensor(sorted(self.phrase_id[n] for n in named))

    def _noun_weight(self, noun: str, nouns: dict[str, tuple[int, int]]) -> float:
        """Square root of the drawings; nouns of one word and things one can draw count more."""
        members = self.by_noun[noun]
        weight = math.sqrt(min(len(members), 64))
        length = noun.count(" ")
        if noun in nouns:
            weight *= 1.6 if nouns[noun][0] in words.DRAWABLE else 1.0
        else:
            weight *= (0.7, 0.4, 0.25, 0.2)[length]
        return weight * (1.6 if any(self.records[i].colour for i in members) else 1.0)

    def _within(self, members: Sequence[int]) -> np.ndarray:
        """Drawings of one noun: packs in balance, colour ones (few) more often."""
        per_pack = Counter(self.records[i].pack for i in members)
        weight = np.array(
            [
                (4.0 if self.records[i].colour else 1.0) / math.sqrt(per_pack[self.records[i].pack])
                for i in members
            ]
        )
        return weight / weight.sum()

    def draw(self, settings: Settings, rng: np.random.Generator) -> list[int]:
        """Record indices of a batch: `drawings` different ones of each noun where there are."""
        picked = rng.choice(len(self.nouns), settings.nouns, replace=False, p=self.noun_weight)
        batch: list[int] = []
        for k in picked:
            members, p = self.by_noun[self.nouns[k]], self.within[self.nouns[k]]
            few = len(members) < settings.drawings
            batch += [members[j] for j in rng.choice(len(members), settings.drawings, few, p=p)]
        return batch

    def pictures(self, batch: Sequence[int], g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Restyled pictures and their attributes, see `restyle.restyle`."""
        size = self.mono.shape[1]
        rgba = np.zeros((len(batch), 4, size, size), np.uint8)
        style, colour, handed = [], [], []
        for row, i in enumerate(batch):
            record = self.records[i]
            if record.colour:
                rgba[row] = self.colour[record.row].transpose(2, 0, 1)
            else:
                rgba[row, 3] = self.mono[record.row]
            named = {"colour": "colourful"}.get(record.style, record.style)
            style.append(restyle.STYLES.index(named) if named in restyle.STYLES else -1)
            colour.append(record.colour)
            handed.append(any(w in _DIRECTIONS for w in record.names[0].split()))
        return restyle.restyle(
            torch.from_numpy(rgba), torch.tensor(style), torch.tensor(colour),
            torch.tensor(handed), g,
        )  # fmt: skip

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token rows with start and end marks, cut at the context length."""
        encoded = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[self.sot, *e.ids[:22], self.eot] for e in encoded]


@dataclass
class Batch:
    """Everything a step needs but the model."""

    pictures: Tensor  # [b, 3, 48, 48], this worker's share of the B pictures
    nouns: Tensor  # [B] phrase id of each picture's own name
    texts: list[str]  # T sentences: the pictures' captions, then the text-only phrases
    text_nouns: Tensor  # [T] phrase ids
    plain: Tensor  # [T] bool: states nothing but its noun
    true: Tensor  # [B, T]
    unknown: Tensor  # [B, T]
    others: Tensor  # [bank] phrase ids that pictures are told from


def make_batch(corpus: Corpus, settings: Settings, step: int) -> Batch:
    """Batch number `step`; the same for the same seed, whatever ran before."""
    seed = settings.seed * 1_000_003 + step
    rng, words_rng = np.random.default_rng(seed), random.Random(seed)
    batch = corpus.draw(settings, rng)
    own = mine(len(batch))
    pictures, attributes = corpus.pictures(
        batch[own], torch.Generator().manual_seed(seed * 64 + own.start)
    )
    attributes = gather(attributes, share(len(batch)))
    rows = attributes.tolist()
    distinct: dict[tuple[Caption, str], int] = {}
    for i, values in zip(batch, rows, strict=True):
        names = corpus.records[i].names
        other = len(names) > 1 and words_rng.random() < settings.alias_share
        noun = words_rng.choice(names[1:]) if other else names[0]
        distinct.setdefault((captions.write(values, words_rng), noun), len(distinct))
    written = [*distinct, *plain_phrases(corpus, settings, settings.phrases, words_rng)]
    columns = defaultdict(list)
    for column, (_, noun) in enumerate(written):
        columns[noun].append(column)
    same = torch.zeros(len(batch), len(written), dtype=torch.bool)
    for row, i in enumerate(batch):
        for name in corpus.records[i].names:
            same[row, columns.get(name, [])] = True
    true, unknown = captions.truth(
        same, attributes, captions.stated_tensor([c for c, _ in written])
    )
    return Batch(
        pictures,
        torch.tensor([corpus.phrase_id[corpus.records[i].names[0]] for i in batch]),
        [c.template.format(noun) for c, noun in written],
        torch.tensor([corpus.phrase_id[noun] for _, noun in written]),
        torch.tensor([not c.stated for c, _ in written]),
        true,
        unknown,
        corpus.named[torch.from_numpy(rng.integers(0, len(corpus.named), settings.bank))],
    )


def plain_phrases(
    corpus: Corpus, settings: Settings, n: int, rng: random.Random
) -> list[tuple[Caption, str]]:
    """n phrases of the text-only list in templates that state nothing."""
    found = []
    for _ in range(n):
        common = rng.random() < settings.common_share
        i = rng.choice(corpus.common) if common else rng.randrange(len(corpus.phrases))
        template = captions.CANONICAL if rng.random() < 0.6 else rng.choice(captions.NEUTRAL)
        found.append((Caption(template), corpus.phrases[i]))
    return found


class _Gather(torch.autograd.Function):
    """Rows of all workers, in worker order; the gradient of one's own rows comes back.

    Every worker computes the whole loss from the gathered features, so the gradients summed over
    workers are those of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx, x: Tensor, sizes: list[int]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.sizes = sizes
        most = max(sizes)  # the transport wants equal shapes
        padded = F.pad(x, (0, 0, 0, most - len(x))).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        return grad.split(ctx.sizes)[dist.get_rank()], None


def gather(x: Tensor, sizes: list[int]) -> Tensor:
    """x [sizes[rank], E] of every worker -> [sum(sizes), E]."""
    return _Gather.apply(x, sizes) if dist.is_initialized() else x


def share(n: int) -> list[int]:
    """n rows in near-equal parts, one a worker."""
    workers = dist.get_world_size() if dist.is_initialized() else 1
    return [n // workers + (i < n % workers) for i in range(workers)]


def mine(n: int) -> slice:
    """This worker's part of n rows."""
    sizes, rank = share(n), dist.get_rank() if dist.is_initialized() else 0
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def distillation(predicted: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine, plus the squared difference of all pairwise cosines."""
    cosine = (predicted * teacher).sum(-1)
    relations = predicted @ predicted.T - teacher @ teacher.T
    return (1 - cosine).mean() + 4 * relations.square().mean()


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of - sum target log softmax; target rows sum to one."""
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def contrastive(
    images: Tensor, texts: Tensor, scale: Tensor, batch: Batch, near: Tensor, soft: float
) -> Tensor:
    """Symmetric cross-entropy to multi-positive targets; unknown pairs take no part.

    A text-only phrase has no true picture: its target is the teacher's alone. That is how a noun
    without pictures finds its place among the pictures of its neighbours.

    Args:
        images: unit features [B, E].
        texts: unit features [T, E].
        scale: what cosines are multiplied by.
        near: the teacher's similarity [B, T] of the nouns, divided by the soft temperature.
        soft: share of the target that is softmax(near).
    """
    logits = (scale * images @ texts.T).masked_fill(batch.unknown, -1e4)
    near = near.masked_fill(batch.unknown, -1e4)
    true = batch.true.float()
    loss = logits.new_zeros(())
    for x, t, s in ((logits, true, near), (logits.T, true.T, near.T)):
        count = t.sum(1, keepdim=True)
        share = torch.where(count > 0, soft, 1.0)
        target = (1 - share) * t / count.clamp_min(1) + share * s.softmax(1)
        loss = loss + soft_cross_entropy(x, target) / 2
    return loss


def losses(
    model: Pretraining, corpus: Corpus, batch: Batch, settings: Settings, half: bool
) -> dict[str, Tensor]:
    """The parts of the loss, already weighted."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        images = model.encode_image(batch.pictures)
        texts = model.encode_text(corpus.tokens(batch.texts[mine(len(batch.texts))]), buckets=4)
    images = gather(images, share(len(batch.nouns)))
    texts = gather(texts, share(len(batch.texts)))
    teacher_text = corpus.teacher[batch.text_nouns]
    near = corpus.teacher[batch.nouns] @ teacher_text.T / settings.soft_temperature
    scale = model.logit_scale.exp().clamp(max=100)
    parts = {"pair": contrastive(images, texts, scale, batch, near, settings.soft)}
    # The image in the teacher's space: told from the batch's nouns and many others.
    bank = corpus.teacher[torch.cat([batch.nouns, batch.others]).unique()]
    target = (corpus.teacher[batch.nouns] @ bank.T / 0.04).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = (model.to_teacher(images) @ bank.T).float()
    logits = logits * model.teacher_scale.exp().clamp(max=60)
    parts["bank"] = settings.bank_weight * soft_cross_entropy(logits, target)
    plain = batch.plain
    parts["text"] = settings.text_weight * distillation(
        model.to_teacher(texts[plain]), teacher_text[plain]
    )
    return parts


class Optimiser:
    """Muon for the blocks' matrices (if asked for), AdamW for the rest.

    Workers add up their gradients; each runs Muon on its share of the matrices and hands the
    result to the others, because Muon costs a tenth of a step.
    """

    def __init__(self, model: Pretraining, settings: Settings) -> None:
        matrices: list[Tensor] = []
        decayed: list[Tensor] = []
        plain: list[Tensor] = []
        for name, p in model.named_parameters():
            if settings.muon and p.ndim == 2 and ".blocks." in name:
                matrices.append(p)
            elif p.ndim >= 2 and "embedding" not in name:
                decayed.append(p)
            else:
                plain.append(p)
        self.model = model
        self.shared = {id(model.head.weight), id(model.logit_scale), id(model.teacher_scale)}
        self.workers = dist.get_world_size() if dist.is_initialized() else 1
        self.shares = [matrices[rank :: self.workers] for rank in range(self.workers)]
        rank = dist.get_rank() if dist.is_initialized() else 0
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                groups,
                lr=settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay,
            )
        ]  # fmt: skip
        if matrices:
            self.parts.append(
                torch.optim.Muon(
                    self.shares[rank], lr=settings.lr, weight_decay=settings.weight_decay,
                    momentum=0.95, adjust_lr_fn="match_rms_adamw",
                )
            )  # fmt: skip

    def step(self, rate: float) -> float:
        """Update from the gradients of all workers, clipped to norm 5; returns the norm before."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.workers > 1:
            for p, g in zip(parameters, gradients, strict=True):
                if id(p) in self.shared:  # behind the gathering: every worker has all of it
                    g.div_(self.workers)
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            sizes = [g.numel() for g in gradients]
            for g, total in zip(gradients, flat.split(sizes), strict=True):
                g.copy_(total.view_as(g))
        norm = nn.utils.clip_grad_norm_(parameters, 5.0)
        if torch.isfinite(norm):
            for optimiser in self.parts:
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.step()
            self._exchange()
        for p in parameters:
            p.grad = None
        return norm.item()

    @torch.no_grad()
    def _exchange(self) -> None:
        if self.workers == 1:
            return
        for rank, matrices in enumerate(self.shares):
            if not matrices:
                continue
            flat = torch.cat([p.flatten() for p in matrices])
            dist.broadcast(flat, rank)
            for p, values in zip(matrices, flat.split([p.numel() for p in matrices]), strict=True):
                p.copy_(values.view_as(p))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Exponential moving average of parameters and of batch-norm statistics."""
    for a, p in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if a.is_floating_point():
            a.lerp_(p, 1 - decay)
        else:
            a.copy_(p)


def report(model: Pretraining, corpus: Corpus, tasks: Sequence[evaluate.Task]) -> dict[str, float]:
    """Zero-shot accuracy of each task, in percent."""
    model.eval()
    found = {
        task.name: round(
            evaluate.accuracy(
                task, model.encode_image, lambda t: model.encode_text(corpus.tokens(t))
            ),
            1,
        )
        for task in tasks
    }
    model.train()
    return found


def save(path: Path, state: dict) -> None:
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def learning_rate(progress: float, settings: Settings) -> float:
    """Linear warm-up, then a cosine to 2% over the share `progress` of the run."""
    ramp = min(1.0, progress / settings.warm_up)
    return settings.lr * ramp * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def agreed(value: float) -> float:
    """The first worker's value."""
    if dist.is_initialized():
        box = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(box, 0)
        value = box.item()
    return value


def train(
    rank: int, workers: int, cache: Path, out: Path, minutes: float, steps: int,
    settings: Settings, sizes: Sizes,
) -> None:  # fmt: skip
    """One worker, to the end of the budget: `steps` if positive (repeatable), else `minutes`."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    torch.manual_seed(settings.seed)
    if workers > 1:
        meeting = out / "meeting"
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers
        )
    first, parent = rank == 0, os.getppid()
    corpus = Corpus(cache)
    model = Pretraining(sizes, corpus.tokenizer.get_vocab_size(), corpus.sot, corpus.eot)
    teacher = torch.from_numpy(np.load(cache / "tokens.npy")).float()
    start_tokens(model.text.token_embedding.weight, teacher)
    average = copy.deepcopy(model)
    optimiser = Optimiser(model, settings)
    tasks = [evaluate.validation(cache), *evaluate.tasks(cache)] if first else []
    step, before, joint = 0, 0.0, 0
    checkpoint, own = out / "checkpoint.pt", out / f"optimiser-{rank}.pt"
    if checkpoint.exists():
        state, optim = (torch.load(p, weights_only=False) for p in (checkpoint, own))
        if state["step"] != optim["step"]:
            raise RuntimeError(f"{own} is of another step than {checkpoint}; start afresh")
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for part, values in zip(optimiser.parts, optim["parts"], strict=True):
            part.load_state_dict(values)
        step, before, joint = state["step"], state["seconds"], state["joint"]

    def log(**values: object) -> None:
        if not first:
            return
        with (out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        print(*(f"{k}={v}" for k, v in values.items()), flush=True)

    log(nouns=len(corpus.nouns), images=len(corpus.records), phrases=len(corpus.phrases),
        parameters=sum(p.numel() for p in model.parameters()), workers=workers,
        settings=settings.__dict__, sizes=sizes.__dict__)  # fmt: skip
    agreed(0.0)  # all workers are here
    start = saved = evaluated = time.monotonic()
    sums: dict[str, float] = defaultdict(float)
    counted = 0
    while True:
        seconds = agreed(before + time.monotonic() - start)
        progress = step / steps if steps else seconds / (60 * minutes)
        if progress >= 1:
            break
        if os.getppid() != parent:  # the launcher was killed: do not train on as an orphan
            os._exit(1)
        if progress < settings.text_first:
            rng = random.Random(settings.seed * 7919 + step)
            written = plain_phrases(corpus, settings, 256, rng)
            texts = [caption.template.format(noun) for caption, noun in written]
            ids = [corpus.phrase_id[noun] for _, noun in written]
            features = model.encode_text(corpus.tokens(texts[mine(len(texts))]))
            features = gather(features, share(len(texts)))
            parts = {"text": distillation(model.to_teacher(features), corpus.teacher[ids])}
        else:
            parts = losses(model, corpus, make_batch(corpus, settings, step), settings, half=True)
            joint += 1
        torch.stack(list(parts.values())).sum().backward()
        rate = learning_rate(progress, settings)
        norm = optimiser.step(rate)
        step += 1
        if first:
            update_average(average, model, min(settings.ema, (1 + step) / (10 + step)))
        for name, value in parts.items():
            sums[name] += value.item()
        counted += 1
        if step % 25 == 0:
            log(step=step, seconds=round(seconds), rate=round(rate, 6), norm=round(norm, 2),
                scale=round(model.logit_scale.exp().item(), 1),
                **{k: round(v / counted, 3) for k, v in sums.items()})  # fmt: skip
            sums, counted = defaultdict(float), 0
        if first and time.monotonic() - evaluated > 240:
            evaluated = time.monotonic()
            log(step=step, zero_shot=report(average, corpus, tasks))
        if agreed(float(time.monotonic() - saved > 180)):
            saved = time.monotonic()
            state = {"step": step, "parts": [part.state_dict() for part in optimiser.parts]}
            save(own, state)
            agreed(0.0)  # every worker has written before the common part follows
            if first:
                save(checkpoint, {
                    "model": model.state_dict(), "average": average.state_dict(), "step": step,
                    "joint": joint, "seconds": before + time.monotonic() - start,
                    "sizes": sizes.__dict__, "settings": settings.__dict__,
                })  # fmt: skip
    if first:
        log(step=step, zero_shot=report(average, corpus, tasks), finished=True)
        save(out / "average.pt", {
            "average": average.state_dict(), "sizes": sizes.__dict__,
            "settings": settings.__dict__, "step": step, "joint": joint,
            "seconds": before + time.monotonic() - start,
        })  # fmt: skip
    if workers > 1:
        dist.destroy_process_group()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, help="run folder; default: `run` in the cache")
    parser.add_argument("--minutes", type=float, default=68)
    parser.add_argument("--steps", type=int, default=0, help="a repeatable budget, in steps")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    chosen = {k: json.loads(v) for k, v in (pair.split("=", 1) for pair in args.set)}
    sizes = Sizes(**{k: chosen.pop(k) for k in list(chosen) if hasattr(Sizes, k)})
    cache = packs.cache_dir(args.cache)
    run(cache, args.out or cache / "run", args.minutes, args.steps, Settings(**chosen), sizes,
        args.workers)  # fmt: skip


def run(
    cache: Path, out: Path, minutes: float, steps: int, settings: Settings, sizes: Sizes,
    workers: int,
) -> None:  # fmt: skip
    """Train with one process a core: faster than threads, for these small operations."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "meeting").unlink(missing_ok=True)
    torch.multiprocessing.spawn(
        train, (workers, cache, out, minutes, steps, settings, sizes), nprocs=workers
    )


if __name__ == "__main__":
    main()
