"""Properties of the pretraining code; no network, no packs, seconds."""

from __future__ import annotations

import random

import pytest
import torch

pytest.importorskip("pretrain", reason="pretrain/ stands beside the package in a checkout only")

from pretrain import captions, packs, restyle, words
from pretrain.captions import CANONICAL, Caption
from pretrain.model import NormedStem, Pretraining, Sizes

from simprompt.clip.vision import ConvStem, VisionConfig, VisionTower

SMALL = Sizes(
    embed_dim=16, text_width=24, text_layers=2, vision_width=24, vision_layers=2, heads=3,
    stem=((8, 2), (12, 2), (12, 1), (24, 2), (24, 1)),
)  # fmt: skip


def drawings(n: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    rgba = torch.zeros(n, 4, 56, 56, dtype=torch.uint8)
    rgba[:, :3] = torch.randint(0, 255, (n, 3, 1, 1), generator=g, dtype=torch.uint8)
    rgba[:, 3, 12:44, 16:40] = 255
    style = torch.arange(n) % 5 - 1
    colour = style == restyle.STYLES.index("colourful")
    handed = torch.zeros(n, dtype=torch.bool)
    return rgba, style, colour, handed


def restyled(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return restyle.restyle(*drawings(n), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("slug", "name"),
    [
        ("baseline-cake", "cake"),
        ("cat-24-filled", "cat"),
        ("dog-side-outline", "dog side"),
        ("arrow-left-bold", "arrow left"),
        ("panda-left", "panda"),
        ("outline-sports-soccer", "sports soccer"),
        ("cup2", "cup"),
        ("home-two-tone", "home"),
        ("3d", ""),
    ],
)
def test_slugs_become_noun_phrases(slug: str, name: str) -> None:
    assert packs.clean_name(slug) == name


def test_styles_are_read_from_slugs() -> None:
    assert packs.style_of("cat-24-filled") == "filled"
    assert packs.style_of("cat-outline") == "outline"
    assert packs.style_of("cat-bold-duotone") == "duotone"
    assert packs.style_of("cat-bold", "solar") == "filled"
    assert packs.style_of("cat") == ""


def test_no_family_is_on_both_sides() -> None:
    groups: dict[str, set[str]] = {}
    for pack in packs.PACKS.values():
        groups.setdefault(pack.group, set()).add(pack.role)
        assert pack.role == "held-out" or pack.licence in packs.TRAIN_LICENCES
    assert all(len(roles) == 1 for roles in groups.values())


def test_unseen_words_are_a_hundred_and_plurals_count() -> None:
    unseen = words.unseen_words(packs.DEFAULT_CACHE)  # from the file: nothing is fetched
    assert len(set(unseen)) == 100
    dropped = {"wolf", words.plural("wolf")}
    assert words.mentions(["pack of wolves"], dropped)
    assert not words.mentions(["wolfram"], dropped)


def test_restyling_repeats_with_its_seed_and_only_with_it() -> None:
    first, again, other = restyled(16, 1), restyled(16, 1), restyled(16, 2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (16, 3, 48, 48)
    assert float(first[0].min()) >= 0
    assert float(first[0].max()) <= 1


def test_stated_colours_are_the_colours_of_the_picture() -> None:
    pictures, attributes = restyled(300, 3)
    palette = torch.tensor(list(restyle.COLOURS.values())) / 255
    dark = restyle.luminance(palette) < 0.35
    corner = pictures[:, :, :3, :3].mean((2, 3))
    for picture, values in zip(corner, attributes.tolist(), strict=True):
        tone = values[restyle.SLOT["tone"]]
        if tone >= 0 and values[restyle.SLOT["size"]] == 0:  # small: the corner is background
            assert bool(restyle.luminance(picture) < 0.55) == bool(tone)
        if values[restyle.SLOT["background"]] == 1 and values[restyle.SLOT["size"]] == 0:
            assert restyle.luminance(picture) > 0.8
    assert dark.any()


@pytest.mark.parametrize("seed", range(5))
def test_a_caption_is_true_of_its_own_picture(seed: int) -> None:
    _, attributes = restyled(64, seed)
    rng = random.Random(seed)
    written = [captions.write(values, rng) for values in attributes.tolist()]
    same = torch.eye(64, dtype=torch.bool)
    true, unknown = captions.truth(same, attributes, captions.stated_tensor(written))
    assert true.diagonal().all()
    assert not unknown.any()


def test_what_a_caption_says_is_what_it_states() -> None:
    rng = random.Random(0)
    for _ in range(200):
        names = rng.sample(sorted(restyle.ATTRIBUTES), 3)
        stated = {n: rng.randrange(len(restyle.ATTRIBUTES[n])) for n in names}
        stated.pop("tone", None) if "background" in stated else None
        caption = captions.phrase(stated, rng)
        said = caption.template.replace(",", "").replace(".", "").split()
        assert said.count("{}") == 1
        for name, value in stated.items():
            assert restyle.ATTRIBUTES[name][value] in said
        assert len(caption.stated) == len(stated)


def test_truth_needs_the_noun_and_every_stated_value() -> None:
    slot = restyle.SLOT
    attributes = torch.full((3, len(slot)), -1)
    attributes[0, slot["style"]], attributes[0, slot["ink"]] = 0, 3
    attributes[1, slot["style"]], attributes[1, slot["ink"]] = 1, 3
    attributes[2, slot["ink"]] = 4  # style not known
    texts = [
        Caption(CANONICAL),
        Caption("an outline icon of a {}.", ((slot["style"], 0),)),
        Caption("an outline icon of a {} in red.", ((slot["style"], 0), (slot["ink"], 3))),
    ]
    same = torch.ones(3, 3, dtype=torch.bool)
    true, unknown = captions.truth(same, attributes, captions.stated_tensor(texts))
    assert true.tolist() == [[True, True, True], [True, False, False], [True, False, False]]
    assert unknown.tolist() == [[False] * 3, [False] * 3, [False, True, False]]
    nothing, _ = captions.truth(~same, attributes, captions.stated_tensor(texts))
    assert not nothing.any()


def test_folding_the_norms_is_exact() -> None:
    torch.manual_seed(0)
    normed = NormedStem(SMALL.stem)
    for norm in normed.norms:
        assert isinstance(norm, torch.nn.BatchNorm2d)
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
        torch.nn.init.normal_(norm.bias)
    normed.train()
    normed(torch.rand(64, 3, 48, 48))
    normed.eval()
    plain = ConvStem(SMALL.stem)
    plain.load_state_dict(normed.folded())
    pixels = torch.randn(4, 3, 48, 48)
    assert torch.allclose(normed(pixels), plain(pixels), atol=1e-4)


def test_the_training_towers_are_the_package_s_towers() -> None:
    from pretrain.export import weights

    torch.manual_seed(0)
    model = Pretraining(SMALL, vocabulary=40, sot=0, eot=1).eval()
    state = weights(model)
    config = model.visual.config
    assert isinstance(config, VisionConfig)
    tower = VisionTower(config)
    tower.load_state_dict(
        {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    )
    pictures = torch.rand(3, 3, 48, 48)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(tower((pictures - 0.5) / 0.5), dim=-1)
        assert torch.allclose(model.encode_image(pictures), expected, atol=1e-5)
        rows = [[0, 5, 1], [0, 7, 8, 9, 1], [0, 5, 1]]
        texts = model.encode_text(rows)
    assert torch.allclose(texts[0], texts[2], atol=1e-6)
    alone = model.encode_text(rows[1:2])
    assert torch.allclose(texts[1], alone[0], atol=1e-5)


def test_a_phrase_without_pictures_follows_the_teacher_alone() -> None:
    from pretrain.train import Batch, contrastive

    torch.manual_seed(0)
    true = torch.tensor([[True, False, False], [False, True, False]])
    near = torch.tensor([[4.0, 0.0, 3.0], [0.0, 4.0, -3.0]])  # the third is like the first picture
    nothing = torch.zeros(0)
    batch = Batch(nothing, nothing, [], nothing, nothing, true, torch.zeros_like(true), nothing)
    images = torch.eye(2, 4)
    towards, away = (torch.eye(2, 4)[[0, 1, k]] for k in (0, 1))
    scale = torch.tensor(5.0)
    assert contrastive(images, towards, scale, batch, near, 0.1) < contrastive(
        images, away, scale, batch, near, 0.1
    )


def test_an_unknown_pair_takes_no_part() -> None:
    from pretrain.train import Batch, contrastive

    true = torch.tensor([[True, False], [False, True]])
    unknown = torch.tensor([[False, True], [False, False]])
    nothing = torch.zeros(0)
    batch = Batch(nothing, nothing, [], nothing, nothing, true, unknown, nothing)
    texts = torch.eye(2, 4).requires_grad_()
    images = torch.eye(2, 4)[:1].repeat(2, 1)  # both pictures look like the first text
    contrastive(images, texts, torch.tensor(5.0), batch, torch.zeros(2, 2), 0.0).backward()
    assert texts.grad is not None
    assert torch.isfinite(texts.grad).all()


def test_blending_adds_the_head_s_similarity() -> None:
    from pretrain.export import blend

    torch.manual_seed(0)
    model = Pretraining(SMALL, vocabulary=40, sot=0, eot=1).eval()
    pictures, rows = torch.rand(3, 3, 48, 48), torch.tensor([[0, 5, 1], [0, 6, 1]])
    with torch.no_grad():
        f, g = model.visual((pictures - 0.5) / 0.5), model.text(rows)
        w = model.head.weight
        mean_square = w.square().sum() / w.shape[1]
        expected = f @ g.T + 2 * (f @ w.T) @ (g @ w.T).T / mean_square
        blend(model, 2.0)
        found = model.visual((pictures - 0.5) / 0.5) @ model.text(rows).T
    assert torch.allclose(found, expected, atol=1e-4)
