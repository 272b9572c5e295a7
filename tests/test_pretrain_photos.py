"""Properties of what teaches the CLIP for photographs; no network, a WordNet of nine senses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("pretrain", reason="pretrain/ stands beside the package in a checkout only")

from pretrain.photos import export, looks, train
from pretrain.photos.words import ROOT, Relations, WordNet, adjectives, nouns

from simprompt.clip.text import TextConfig, TextTower
from simprompt.clip.tokenizer import Tokenizer

# offset, kind, words, parents, gloss
SENSES = [
    (ROOT, 3, ["entity"], [], "that which is"),
    ("00000010", 5, ["animal"], [ROOT], "a living being; \"it ran\""),
    ("00000020", 5, ["cat"], ["00000010"], "a feline"),
    ("00000030", 5, ["leopard", "Panthera_pardus"], ["00000020"], "a large cat with spots"),
    ("00000040", 5, ["lion"], ["00000020"], "a large tawny cat"),
    ("00000050", 6, ["artifact"], [ROOT], "a thing that was made"),
    ("00000060", 6, ["leopard"], ["00000050"], "the pelt of a leopard"),
    ("00000070", 6, ["jug"], ["00000050"], "a vessel with a handle"),
    ("00000080", 9, ["leopard"], [ROOT], "an idea that nobody has"),
]  # fmt: skip


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory) -> WordNet:
    folder: Path = tmp_path_factory.mktemp("wordnet")
    data, meanings = ["  1 a licence"], {}
    for offset, kind, written, parents, gloss in SENSES:
        pairs = " ".join(f"{word} 0" for word in written)
        above = " ".join(f"@ {parent} n 0000" for parent in parents)
        data.append(
            f"{offset} {kind:02d} n {len(written):02x} {pairs} {len(parents):03d} {above} | {gloss}"
        )
        for word in written:
            meanings.setdefault(word.lower(), []).append(offset)
    # the pelt is the most frequent leopard
    meanings["leopard"] = ["00000080", "00000060", "00000030"]
    index = ["  1 a licence"]
    for word, own in meanings.items():
        index.append(f"{word} n {len(own)} 1 @ {len(own)} 0 {' '.join(own)}")
    files = {
        "data.noun": data, "index.noun": index, "cntlist.rev": ["cat%1:05:00:: 1 7"],
        "data.adj": ["00000001 00 a 01 banded 0 000 | marked with bands", "00000002 00 a 01 "
                     "odd 0 000 | strange"],
        "index.adj": ["banded a 1 0 1 1 00000001", "odd a 1 0 1 0 00000002"],
    }  # fmt: skip
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return WordNet(folder)


def test_senses_have_words_parents_and_the_first_part_of_their_gloss(wordnet) -> None:
    leopard = wordnet.senses["00000030"]
    assert leopard.words == ["leopard", "Panthera pardus"]
    assert leopard.parents == ["00000020"]
    assert wordnet.senses["00000010"].gloss == "a living being"
    assert wordnet.used["cat"] == 7
    assert wordnet.above("00000030") == {"00000030", "00000020", "00000010", ROOT}


def test_information_is_none_at_the_root_and_whole_at_a_leaf(wordnet) -> None:
    leaves = 5  # leopard, lion, pelt, jug, idea
    assert wordnet.information[ROOT] == 0
    assert wordnet.information["00000030"] == 1
    assert wordnet.information["00000020"] == pytest.approx(1 - math.log(2) / math.log(leaves))


def test_relations_are_the_information_of_what_two_senses_share(wordnet) -> None:
    relations = Relations(wordnet, ["00000040", "00000070"])  # lion, jug
    assert relations.to("00000030").tolist() == [wordnet.information["00000020"], 0]
    assert relations.to("00000040").tolist() == [1, 0]
    assert relations.to("00000060").tolist() == [0, wordnet.information["00000050"]]


def test_a_word_means_what_the_known_classes_are_near_to(wordnet) -> None:
    assert Relations(wordnet, ["00000040"]).sense_of("leopard") == "00000030"
    assert Relations(wordnet, ["00000070"]).sense_of("leopard") == "00000060"
    assert Relations(wordnet, ["00000040"]).sense_of("unicorn") is None


def test_what_is_taught_has_a_gloss(wordnet) -> None:
    found = {text.name: text for text in nouns(Relations(wordnet, ["00000040"]))}
    assert set(found) == {"animal", "cat", "leopard", "lion", "artifact", "jug", "panthera pardus"}
    assert found["leopard"].gloss == "leopard: a large cat with spots"
    (banded,) = adjectives(wordnet)  # running text has no odd one
    assert banded.gloss == "banded: marked with bands"


@pytest.fixture(scope="module")
def tower_and_words() -> tuple[TextTower, Tokenizer]:
    from simprompt.clip.catalogue import EMBEDDED

    words = Tokenizer(Path(str(EMBEDDED["icons"].folder)) / "tokenizer.json")
    torch.manual_seed(0)
    config = TextConfig(words.fast.get_vocab_size(), 24, 32, 2, 2, 16, words.sot, words.eot, "gelu")
    return TextTower(config), words


def test_names_share_the_prefix_of_a_prompt_exactly(tower_and_words) -> None:
    tower, words = tower_and_words
    names = ["cat", "leopard on a jug"]
    rows = [words.encode(name) for name in names]
    found = train.encode(tower, words, ("a photo of a", ", a type of pet."), rows)
    for one, name in zip(found, names, strict=True):
        ids = [words.sot, *words.encode(f"a photo of a {name}, a type of pet."), words.eot]
        expected = F.normalize(tower(torch.tensor([ids])), dim=-1)[0]
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-5)


def test_the_loss_is_zero_at_the_target_and_nowhere_below() -> None:
    g = torch.Generator().manual_seed(0)
    target, other, rows = (F.normalize(torch.randn(n, 8, generator=g), dim=-1) for n in (6, 6, 20))
    assert train.loss_of(target, target, rows, 14.0).abs() < 1e-5
    assert train.loss_of(other, target, rows, 14.0) > 1


def test_prompts_are_cut_around_the_name() -> None:
    pairs = train.plain_prompts()
    assert ("a photo of a", ".") in pairs
    assert ("", "") in pairs
    assert ("a photo of a", ", a type of pet.") in pairs
    seen = [prompt for prompt, _ in train.look_prompts()]
    assert ("a blurry photo of a", ".") in seen
    assert len({*pairs, *seen}) == len(pairs) + len(seen)


@pytest.mark.parametrize("look", looks.LOOKS)
def test_a_look_changes_the_picture_and_keeps_its_size(look: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((looks.SIDE,) * 2, Image.Resampling.BICUBIC)
    before = picture.tobytes()
    made = looks.LOOKS[look][0](picture)
    assert (made.size, made.mode) == (picture.size, "RGB")
    assert made.tobytes() != before == picture.tobytes()


@given(st.floats(-60_000, 60_000).filter(lambda x: abs(x) > 1e-3))
def test_a_rounded_weight_is_the_nearest_of_so_many_bits(x: float) -> None:
    (made,) = export.rounded(torch.tensor([x])).tolist()
    half = torch.tensor(x).half().item()
    step = 2.0 ** (math.frexp(half)[1] - 1 - export.MANTISSA)
    assert made / step == int(made / step)
    assert abs(made - half) <= step / 2


def test_simulated_images_are_right_as_often_as_the_published_model() -> None:
    g = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(200, 64, generator=g, dtype=torch.double), dim=-1)
    images = export._images(rows, torch.arange(200))
    truth = torch.arange(200).repeat(10)
    right = ((images @ rows.T).argmax(1) == truth).double().mean()
    assert right == pytest.approx(export.TOP1, abs=0.01)
