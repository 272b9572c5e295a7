"""The words that go with the weights: model card and attribution."""
# ruff: noqa: E501 (a line with a placeholder is longer here than on the page)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain import captions, packs, words


@dataclass(frozen=True)
class Facts:
    """What a run left behind; see `export.export`."""

    finished: bool
    step: int
    joint: int
    seconds: float
    settings: Mapping[str, Any]
    sizes: Mapping[str, Any]
    nouns: int
    phrases: int
    images: Mapping[str, int]
    colour_images: int
    parameters: Mapping[str, int]
    megabytes: float
    scale: float
    blend: float
    figures: Mapping[str, Mapping[str, float]]
    statements: Mapping[str, tuple[float, int, int]]
    validation: list[str]
    remark: str = ""


def _licences(prefixes: Iterable[str]) -> str:
    found: dict[str, list[str]] = {}
    for prefix in sorted(prefixes):
        found.setdefault(packs.PACKS[prefix].licence, []).append(prefix)
    return "\n".join(f"- {licence}: {', '.join(found[licence])}" for licence in sorted(found))


def _table(figures: Mapping[str, Mapping[str, float]]) -> str:
    templates = [k for k in next(iter(figures.values())) if k not in ("n", "classes")]
    head = "| task | pictures | classes | " + " | ".join(f"`{t}`" for t in templates) + " |"
    rows = [
        f"| {name} | {values['n']:.0f} | {values['classes']:.0f} | "
        + " | ".join(f"{values[t]:.1f}" for t in templates)
        + " |"
        for name, values in figures.items()
    ]
    return "\n".join([head, "|" + "---|" * (3 + len(templates)), *rows])


def _statements(found: Mapping[str, tuple[float, int, int]]) -> str:
    rows = [
        f"| {name} | {hits:.1f} | {100 / choices:.1f} | {n} |"
        for name, (hits, choices, n) in found.items()
    ]
    head = "| attribute | accuracy | chance | pictures |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def model_card(facts: Facts, cache: Path) -> str:
    """`MODEL_CARD.md`."""
    total = sum(facts.images.values())
    held_out = [p.prefix for p in packs.PACKS.values() if p.role == "held-out"]
    unseen = words.unseen_words(cache)
    remark = f"\n\n{facts.remark.strip()}" if facts.remark else ""
    state = "" if facts.finished else "\n> Intermediate weights, from the middle of the run.\n"
    text, image = (f"{facts.parameters[k] / 1e6:.1f} M" for k in ("text", "image"))
    sizes, settings = facts.sizes, facts.settings
    stem = ", ".join(f"{c}/{s}" for c, s in sizes["stem"])
    return f"""# Icon CLIP
{state}
A small CLIP of pictograms and emoji, made for studying prompt learning on a CPU. It knows icons,
not photographs.

| | |
|---|---|
| image tower | ViT, {image} parameters, 48x48 RGB; stem of 3x3 convolutions (channels/stride) |
| | {stem}; then {sizes["vision_layers"]} blocks of width {sizes["vision_width"]} over 37 tokens |
| text tower | causal, {text} parameters, {sizes["text_layers"]} blocks of width {sizes["text_width"]}, |
| | context {sizes["context_length"]}, its own BPE of 8,000 entries |
| joint space | {sizes["embed_dim"]} dimensions, logit scale {facts.scale:.1f} |
| size | {facts.megabytes:.1f} MB with the tokenizer, float16 |

## Zero-shot accuracy on families it never saw

Top-1 in percent, one clean 48x48 picture a concept, black on white or in its own colours, computed
from the shipped files. A seen concept is a one-word WordNet noun that names some training picture
of another family; 100 of them per family, chosen by a seeded hash. With n pictures and accuracy p
the standard error is sqrt(p (100 - p) / n): about 4.5 points at n = 100.

{_table(facts.figures)}

"Unseen concepts" are {len(unseen)} nouns drawn by a seeded hash from {words.eligible_count()} eligible
ones before any training (`pretrain/unseen.json`); the pictures are all their drawings in the three
families. Every training image whose name, alias or tag has the word or its plural was dropped from
image-text training. The words themselves stayed in the text-only list that teaches the text tower
general noun meaning. So the figure says: no picture was ever shown with this word, but the word was
known, and related words were shown with pictures. Synonyms were not removed ("automobile" stays
when "car" goes).

Does the text tower read its template? Phosphor's regular and fill drawings of 100 seen concepts,
restyled with a fixed seed; of the sentences that differ in one attribute ("an outline icon of a
cat.", "a filled icon of a cat."), the one most like the picture:

{_statements(facts.statements)}

## Data

{total:,} drawings ({facts.colour_images:,} in colour) of {facts.nouns:,} names from {len(facts.images)} icon
packs, the npm packages `@iconify-json/<prefix>`; versions, counts and authors are in `NOTICE.md`.
By licence:

{_licences(facts.images)}

Held out with all their drawings, for the benchmark and the figures above:
{", ".join(sorted(held_out))}.
Kept for choosing settings: {", ".join(facts.validation)}. Packs of brand logos and of flags were not
used, and icons filed under brands, logos or flags were skipped.

Text only: {facts.phrases:,} phrases (names, tags, and the nouns of WordNet 3.0 that are common or
drawable), as all-MiniLM-L6-v2 (Apache-2.0) sees them.

Held out means that no drawing of a family was used. Families still share conventions: all emoji
sets illustrate one standard, and icon packs copy ideas from each other.

## Training

{facts.step:,} steps ({facts.joint:,} with images) in {facts.seconds / 60:.0f} minutes on two CPU cores (two
processes, bfloat16 autocast); {settings["nouns"]} nouns with {settings["drawings"]} drawings each a step; AdamW
(beta 0.9, 0.98), Muon for the blocks' matrices; peak rate {settings["lr"]}, weight decay
{settings["weight_decay"]}, cosine; averaged weights (decay {settings["ema"]}); seed {settings["seed"]}. By default the
cosine follows the clock (`--minutes`), so a rebuild gives a sibling, not a copy; `--steps` makes it
follow the steps.{remark}

1. Token embeddings start from the principal components of MiniLM's embeddings of single words; the
   first {100 * settings["text_first"]:.0f}% of the run distils the text tower alone.
2. Every picture is restyled by a seeded generator (ink, background, tilt, size, mirror, line
   thickness, blur, noise) and gets a caption that truthfully states up to three of these
   attributes, or none (`{captions.CANONICAL}` in {100 * captions.CANONICAL_SHARE:.0f}%). A caption is a
   positive of every picture in the batch with that noun and the stated attributes; pairs of
   uncertain truth are left out of the loss. {100 * settings["soft"]:.0f}% of the target follows MiniLM's
   similarity of the nouns.
3. A linear head takes both towers' features to MiniLM's space: images are told from
   {settings["bank"]:,} phrases there, text is distilled there.
4. Batch norm in the stem during training is folded into the convolutions at export; the
   similarity in MiniLM's space is blended into the joint one with weight {facts.blend:g} (a change of both
   projections), and the logit scale is fitted anew on training batches. The weight was chosen
   among 0, 0.5, 1 and 3: it gains on names without pictures in the validation pack and costs
   little of the table of captions above. The held-out figures had been seen by then and did not
   decide: weight 3 would have given 76 / 83 / 70 and 14 on unseen concepts, with "ink" at 41.

## Known failures

- The text tower is weak on words without pictures: a few of them ("ship", "phone") are the nearest
  text of many pictures. Four minutes more of the text tower alone against the finished image tower
  did not mend it on the validation pack, and were dropped.
- Photographs, scenes, text in images, persons by name: never trained for.
- Concepts whose word it never saw with a picture are hard (the last row above).
- User-interface metaphors crowd the space: "home" may mean a start page, "bug" a defect.
- Things drawn alike at 48 pixels (balls, round fruits, globes) are confused.
- Digits and punctuation have no token and are dropped: "3d printer." reads as "d printer".
- Names are English; a long name is understood as a bag of its words.
- The main template says "a" before every noun, as in training.
"""


def notice(used: Mapping[str, int], cache: Path) -> str:
    """`NOTICE.md`: who drew what the weights were trained on, as CC-BY asks."""
    lines = [
        "# Notice",
        "",
        "The weights in this folder were trained on drawings from the packs below. No drawing is",
        "contained in this folder. Drawings were rendered to 56x56 pixels and restyled at random for",
        "training. Licence texts are at the addresses given and in the upstream packs.",
        "",
        "| pack | version | images | author | licence |",
        "|---|---|---|---|---|",
    ]
    for prefix in sorted(used):
        about = packs.info(prefix, cache)
        author, licence = about["author"], about["license"]
        lines.append(
            f"| {about['name']} (`{prefix}`) | {packs.version(prefix, cache)} | {used[prefix]:,} | "
            f"[{author['name']}]({author.get('url', '')}) | "
            f"[{licence.get('spdx') or licence['title']}]({licence.get('url', '')}) |"
        )
    lines += [
        "",
        "Search tags: `lucide-static` (ISC) and `@tabler/icons` (MIT).",
        "Noun list: WordNet 3.0, Princeton University (WordNet licence).",
        "Text teacher: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), used in training only.",
        "",
    ]
    return "\n".join(lines)
