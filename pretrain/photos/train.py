"""The text tower is taught to put many prompts of a name where the teacher puts the name.

A batch is one prompt around many names, so that the names share its prefix. Stages are skipped
where their files are there, and training goes on from its checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain import words as sentences
from pretrain.model import start_residuals, start_tokens
from pretrain.photos import looks, words
from pretrain.photos.teacher import Teacher, imagenet
from pretrain.train import save, update_average
from simprompt.clip.suffixes import Suffixes
from simprompt.clip.text import TextConfig, TextTower
from simprompt.clip.tokenizer import Tokenizer

OWN = (
    "{}", "{}.", "a photo of {}.", "a photo of a {}.", "a photo of the {}.", "a picture of a {}.",
    "an image of a {}.", "a photograph of one {}.", "photo of some {}.", "a good photo of a {}.",
    "this is a {}.", "there is a {} in the scene.", "an aerial photo of {}.", "a {} from above.",
    "{} surface.", "a pattern that is {}.", "a type of {}.", "my {}.",
)  # fmt: skip
OF_LOOKS = 0.25
"""Share of batches whose prompt says something of the picture."""
MOST_TOKENS = 12
"""Of a name; longer ones are left out of training."""


@dataclass(frozen=True)
class Settings:
    """Of the tower and of its training."""

    embed_dim: int = 512
    width: int = 192
    layers: int = 4
    heads: int = 6
    context_length: int = 32
    vocabulary: int = 10_000
    steps: int = 9_000
    batch: int = 160
    lr: float = 2e-3
    weight_decay: float = 0.02
    warm_up: float = 0.03
    average: float = 0.999
    scale: float = 14.0
    compounds: int = 12_000
    held_out: int = 1_000
    seed: int = 0


@dataclass
class Corpus:
    """What is taught.

    Attributes:
        names: N; `ids` are their tokens.
        target: unit vectors [N, E], float32.
        weight: how often a name is drawn, up to a factor; 0 for those that are held out.
        held_out: positions of the nouns that no batch has.
        rows: ImageNet's class vectors [1000, E], unit length.
        looks: how each of `looks.LOOKS` moves unit features [looks, E].
        basis: [1280, E], from centred features to the joint space.
    """

    names: list[str]
    ids: list[list[int]]
    target: Tensor
    weight: Tensor
    held_out: list[int]
    rows: Tensor
    looks: Tensor
    basis: Tensor


def around(text: str) -> tuple[str, str]:
    """What stands in front of the name in a prompt, and behind it."""
    before, _, after = text.partition("{}")
    return before.strip(), after


def plain_prompts() -> list[tuple[str, str]]:
    """Prompts that say nothing of the picture: ours and the published hand-crafted ones."""
    texts = set(OWN)
    for file in (resources.files("simprompt.data") / "templates").iterdir():
        values = json.loads(file.read_text(encoding="utf-8"))
        texts |= {values["default"], *values["datasets"].values()}
    return sorted(set(map(around, texts)))


def look_prompts() -> list[tuple[tuple[str, str], int]]:
    """Prompts that say how the picture looks, with the number of the look."""
    lists = enumerate(texts for _, texts in looks.LOOKS.values())
    return [(around(text), i) for i, texts in lists for text in texts]


def prepare(cache: Path, settings: Settings) -> None:
    """Write the corpus and the tokenizer into `cache`."""
    if (cache / "corpus.pt").exists():
        return
    wordnet = words.WordNet(sentences.dictionary(cache))
    senses, _ = imagenet()
    relations = words.Relations(wordnet, senses)
    teacher = Teacher(relations)
    nouns, adjectives = words.nouns(relations), words.adjectives(wordnet)
    phrases = words.compounds(wordnet, nouns, adjectives, settings.compounds)
    texts = [*teacher.classes, *nouns, *adjectives, *phrases]
    own = [set(map(str.lower, wordnet.senses[s].words)) for s in senses]
    weight = [12.0] * len(senses)
    for noun in nouns:
        below = relations.below.get(noun.sense or "", ())
        plain = 1 + math.log2(1 + wordnet.used[noun.name])
        if len(below) == 1 and noun.name in own[int(below[0])]:
            plain *= 4
        elif len(below):
            plain *= 2
        weight.append(plain)
    weight += [1.0] * len(adjectives) + [0.5] * len(phrases)
    # names held out of training: nouns that are no ImageNet class and above none
    eligible = [
        i for i, text in enumerate(texts) if text.sense and text.sense not in relations.below
    ]
    order = torch.randperm(len(eligible), generator=torch.Generator().manual_seed(1)).tolist()
    held_out = [eligible[i] for i in order[: settings.held_out]]
    for i in held_out:
        weight[i] = 0.0
    counts: Counter[str] = Counter()
    for text, times in zip(texts, weight, strict=True):
        for word in text.name.replace("-", " ").replace("'", " ").replace(".", " ").split():
            counts[word] += math.ceil(times)
    for before, after in [*plain_prompts(), *(prompt for prompt, _ in look_prompts())]:
        counts.update(
            {word: 100 for word in (before + after).replace(",", " ").split() if word.isalpha()}
        )
    sentences.train_tokenizer(counts, settings.vocabulary, cache / "tokenizer.json")
    print(f"{len(texts)} texts, {len(nouns)} of them nouns", flush=True)
    vectors = teacher(texts)
    basis = torch.linalg.svd(teacher.rows, full_matrices=False)[2][: settings.embed_dim].T
    moved, seen = looks.shifts(basis.float())
    print(json.dumps({"looks": seen}), flush=True)
    state = {
        "names": [t.name for t in texts],
        "target": F.normalize(vectors @ basis, dim=-1).float(),
        "weight": torch.tensor(weight),
        "held_out": held_out,
        "rows": F.normalize(teacher.rows @ basis, dim=-1).float(),
        "looks": moved,
        "basis": basis.float(),
    }
    save(cache / "corpus.pt", state)


def load(cache: Path) -> tuple[Corpus, Tokenizer]:
    """What `prepare` wrote; names of too many tokens are not drawn."""
    tokenizer = Tokenizer(cache / "tokenizer.json")
    state = torch.load(cache / "corpus.pt", weights_only=True)
    corpus = Corpus(ids=[tokenizer.encode(name) for name in state["names"]], **state)
    for i, ids in enumerate(corpus.ids):
        if not 0 < len(ids) <= MOST_TOKENS:
            corpus.weight[i] = 0
    return corpus, tokenizer


def encode(
    tower: TextTower, tokenizer: Tokenizer, prompt: tuple[str, str], rows: Sequence[Sequence[int]]
) -> Tensor:
    """Unit features [B, E] of names given as tokens, in a prompt."""
    before, after = prompt
    ids = [tokenizer.sot, *tokenizer.encode(before)]
    end = (*tokenizer.encode(after), tokenizer.eot)
    suffixes = Suffixes(("",) * len(rows), tuple((*row, *end) for row in rows))
    features = tower.encode(tower.token_embedding(torch.tensor(ids)), suffixes)
    return F.normalize(features, dim=-1)


def loss_of(features: Tensor, target: Tensor, rows: Tensor, scale: float) -> Tensor:
    """2 (1 - cosine), KL of the similarities to ImageNet's classes, 0.3 KL of the batch's own."""

    def divergence(to: Tensor) -> Tensor:
        wanted = F.log_softmax(scale * target @ to.T, dim=-1)
        found = F.log_softmax(scale * features @ to.T, dim=-1)
        return F.kl_div(found, wanted, log_target=True, reduction="batchmean")

    return (
        2 * (1 - (features * target).sum(-1).mean()) + divergence(rows) + 0.3 * divergence(target)
    )


def train(cache: Path, settings: Settings) -> TextTower:
    """The averaged tower after `settings.steps`."""
    corpus, tokenizer = load(cache)
    torch.manual_seed(settings.seed)
    config = TextConfig(
        tokenizer.fast.get_vocab_size(), settings.context_length, settings.width, settings.layers,
        settings.heads, settings.embed_dim, tokenizer.sot, tokenizer.eot, "gelu",
    )  # fmt: skip
    tower, average = TextTower(config), TextTower(config)
    checkpoint = cache / "checkpoint.pt"
    plain = [p for p in tower.parameters() if p.dim() < 2]
    decayed = [p for p in tower.parameters() if p.dim() > 1]
    optimiser = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.98),
    )
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["settings"] != asdict(settings):
            raise SystemExit(
                f"{checkpoint} was made with other settings; delete it to begin afresh"
            )
        tower.load_state_dict(state["tower"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first, spent = state["step"], state["seconds"]
    else:
        start_residuals(tower.blocks)
        opinion = torch.from_numpy(sentences.token_table(tokenizer.fast.get_vocab()))
        start_tokens(tower.token_embedding.weight, opinion.float())
        average.load_state_dict(tower.state_dict())
    plainly, looking = plain_prompts(), look_prompts()
    begun = said = time.monotonic()
    for step in range(first, settings.steps):
        draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        index = torch.multinomial(corpus.weight, settings.batch, replacement=True, generator=draw)
        target = corpus.target[index]
        if torch.rand((), generator=draw) < OF_LOOKS:
            prompt, look = looking[int(torch.randint(len(looking), (), generator=draw))]
            target = F.normalize(target + corpus.looks[look], dim=-1)
        else:
            prompt = plainly[int(torch.randint(len(plainly), (), generator=draw))]
        progress = step / settings.steps
        rate = min(1.0, progress / settings.warm_up) * (
            0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        )
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * rate
        features = encode(tower, tokenizer, prompt, [corpus.ids[i] for i in index.tolist()])
        loss = loss_of(features, target, corpus.rows, settings.scale)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimiser.step()
        decay = min(settings.average, (step + 1) / (step + 10))
        update_average(average, tower, decay)
        now = time.monotonic()
        if now - said > 60 or step + 1 == settings.steps:
            seconds, said = spent + now - begun, now
            print(
                json.dumps(
                    {
                        "step": step + 1,
                        "seconds": round(seconds),
                        "loss": round(loss.item(), 3),
                        **report(average, corpus, tokenizer),
                    }
                ),
                flush=True,
            )
            save(checkpoint, {
                "settings": asdict(settings), "step": step + 1, "seconds": seconds,
                "tower": tower.state_dict(), "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
            })  # fmt: skip
    return average.eval()


@torch.no_grad()
def report(tower: TextTower, corpus: Corpus, tokenizer: Tokenizer) -> dict[str, float]:
    """How near the tower comes to its teacher, in one prompt.

    `classes`: share of ImageNet's names whose own class vector is the nearest of 1,000;
    `held_out`: share of held-out nouns that are nearest to their own target among all of those.
    """
    prompt = ("a photo of a", ".")
    found = encode(tower, tokenizer, prompt, corpus.ids[: len(corpus.rows)])
    positions = [i for i in corpus.held_out if 0 < len(corpus.ids[i]) <= MOST_TOKENS]
    unseen = encode(tower, tokenizer, prompt, [corpus.ids[i] for i in positions])
    wanted = corpus.target[positions]
    right = (corpus.rows @ found.T).argmax(1) == torch.arange(len(found))
    again = (wanted @ unseen.T).argmax(1) == torch.arange(len(unseen))
    return {
        "cosine": round((found * corpus.rows).sum(-1).mean().item(), 3),
        "classes": round(right.float().mean().item(), 3),
        "held_out_cosine": round((unseen * wanted).sum(-1).mean().item(), 3),
        "held_out": round(again.float().mean().item(), 3),
    }
