"""vocabulary, relate, select: checked on embeddings made by hand and by a tiny random CLIP."""

import math
import zlib

import pytest
import torch
import torch.nn.functional as F
from benchmarks.novel_lab.choose import select
from benchmarks.novel_lab.map import draw_map, plane
from benchmarks.novel_lab.relation import (
    bin_edges,
    distribution_overlap,
    histogram,
    relate,
    spread,
    without_diagonal,
)

from simprompt.errors import SimpromptError
from simprompt.novel import NovelNameError, novel_names
from simprompt.novel.nouns import noun_list
from simprompt.novel.vocabulary import closest_pair


def embeddings(names, seed=0, size=16):
    """Random unit vectors, always the same for the same name; `a+b` lies between a and b."""
    rows = []
    for name in names:
        parts = [
            torch.randn(size, generator=torch.Generator().manual_seed(hash_of(part) + seed))
            for part in name.split("+")
        ]
        rows.append(sum(parts))
    return F.normalize(torch.stack(rows), dim=1)


def hash_of(text):
    return zlib.crc32(text.encode())


BASE = ["cat", "dog", "fish", "bird", "horse", "cow"]
MANY = [f"thing {a}{b}" for a in "abcdefgh" for b in "abcdefgh"]


def test_histogram_counts_every_similarity_once():
    values = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    edges = bin_edges(values, bins=4)
    assert histogram(values, edges).tolist() == [0.25] * 4
    assert distribution_overlap(values, values, edges) == pytest.approx(1)
    assert distribution_overlap(values, values + 1, edges) == pytest.approx(0.25)


def test_without_diagonal():
    square = torch.arange(9.0).view(3, 3)
    assert without_diagonal(square).tolist() == [[1, 2], [3, 5], [6, 7]]


def test_spread_is_the_effective_share_of_different_directions():
    assert spread(torch.eye(8)) == pytest.approx(7 / 8, rel=1e-3)  # the centre costs one direction
    line = F.normalize(torch.tensor([[1.0, 0.1]] * 5 + [[1.0, -0.1]] * 5), dim=1)
    assert spread(line) == pytest.approx(1 / 10, rel=1e-3)


def test_relation_names_synonyms_repeats_and_what_is_far_off():
    listed = ["dog+dog", *MANY[:10], MANY[3] + "+" + MANY[3]]
    seen = relate(listed, BASE, embeddings, new=["lion", MANY[4]])
    problems = {(o.name, o.problem, o.other) for o in seen.offenders}
    assert ("dog+dog", "close to a base class", "dog") in problems
    assert (listed[-1], "close to another name", MANY[3]) in problems
    assert seen.count == 12
    assert seen.synonyms >= 1 / 12
    assert seen.repeats >= 1 / 12
    assert seen.exact_overlap == 1
    assert 0 <= seen.coverage <= 1
    assert 0 <= seen.new_coverage <= 1
    assert seen.offset == pytest.approx(seen.nearest - seen.base_nearest)


def test_relation_does_not_depend_on_the_order_of_base_classes_or_on_new_ones():
    one = relate(MANY, BASE, embeddings).to_json()
    two = relate(MANY, BASE[::-1], embeddings, new=["lion"]).to_json()
    for name in ("nearest", "spread", "synonyms", "reached", "coverage", "repeats"):
        assert one[name] == pytest.approx(two[name], abs=1e-6)


def test_base_classes_as_their_own_list_reach_everything():
    seen = relate(BASE, BASE, embeddings)
    assert seen.nearest == pytest.approx(1, abs=1e-5)
    assert seen.reached == 1
    assert seen.synonyms == 1


@pytest.mark.parametrize("criterion", ["coverage", "k-centre", "random"])
def test_choice_is_a_repeatable_subset_of_the_asked_size(criterion):
    chosen = select(MANY, BASE, embeddings, 20, criterion, seed=3)
    assert len(chosen) == len(set(chosen)) == 20
    assert set(chosen) <= set(MANY)
    assert chosen == select(MANY, BASE, embeddings, 20, criterion, seed=3)
    assert select(MANY, BASE, embeddings, 99, criterion) == MANY


def test_coverage_covers_better_than_most_random_draws():
    def coverage(names):
        return relate(names, BASE, embeddings).coverage

    drawn = [coverage(select(MANY, BASE, embeddings, 12, "random", seed)) for seed in range(20)]
    assert coverage(select(MANY, BASE, embeddings, 12, "coverage")) >= sorted(drawn)[17]


def test_k_centre_leaves_out_synonyms_and_spreads_wider_than_a_random_draw():
    crowd = [f"crowd+crowd+crowd+{name}" for name in MANY[:30]]
    names = ["cat+cat", "dog+dog", *crowd, *MANY[30:]]
    band = select(names, BASE, embeddings, 30, "k-centre")
    assert not {"cat+cat", "dog+dog"} & set(band)
    chosen = select(band, BASE, embeddings, 8, "k-centre")

    def crowding(of):
        features = embeddings(of)
        return float(without_diagonal(features @ features.T).amax(dim=1).mean())

    drawn = [crowding(select(band, BASE, embeddings, 8, "random", s)) for s in range(20)]
    assert crowding(chosen) < sum(drawn) / len(drawn)


def test_k_centre_takes_names_beside_the_band_when_it_is_too_small():
    names = [f"{name}+{name}" for name in BASE] + MANY[:4]
    assert len(select(names, BASE, embeddings, 9, "k-centre")) == 9


def test_bad_choices_are_told():
    with pytest.raises(NovelNameError, match="coverage, k-centre, random"):
        select(MANY, BASE, embeddings, 5, "best")
    with pytest.raises(NovelNameError, match="at least 3 base classes"):
        select(MANY, BASE[:2], embeddings, 5)


def test_closest_pair_of_one_class_is_one():
    assert closest_pair(embeddings(["cat"])) == 1
    two = embeddings(["cat", "dog"])
    assert closest_pair(two) == pytest.approx(float(two[0] @ two[1]))


def test_vocabulary_takes_near_nouns_but_no_other_words_for_a_base_class(tiny_clip):
    base = ["cat", "dog", "fish", "bird"]
    known = {}

    def encode(names):  # encodes the nouns once for the whole test
        key = tuple(names)
        if key not in known:
            known[key] = tiny_clip.encode_texts(names)
        return known[key]

    made = novel_names("vocabulary", base, n=40, encode=encode, new=["lion"])
    assert len(made) == 40
    assert not {"cat", "dog", "lion"} & set(made.names)
    ceiling = closest_pair(encode(base))
    near = (encode(made.names) @ encode(base).T).amax(dim=1)
    assert float(near.max()) <= ceiling + 1e-6
    pool = encode(noun_list(1)) @ encode(base).T
    assert float(near.mean()) > float(pool.amax(dim=1).mean())
    assert made == novel_names("vocabulary", base, n=40, encode=encode, new=["lion"])
    kept = novel_names("vocabulary[synonyms=keep]:40", base, encode=encode)
    assert made.names != kept.names


def test_vocabulary_needs_a_model_and_good_settings(tiny_clip):
    with pytest.raises(NovelNameError, match="needs a CLIP"):
        novel_names("vocabulary", ["cat"])
    with pytest.raises(NovelNameError, match="pool=tiny"):
        novel_names("vocabulary[pool=tiny]", ["cat"], encode=tiny_clip.encode_texts)


def test_a_map_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(SimpromptError, match="svg, png, pdf"):
        draw_map(tmp_path / "map.xyz", {}, {})


def test_map_is_drawn_with_names_that_are_no_formulas(tmp_path):
    groups = {"base": ["cat", "$5 bill"], "novel": MANY[:9], "new": ["a_b"]}
    features = {group: embeddings(names) for group, names in groups.items()}
    draw_map(tmp_path / "sub" / "map.svg", features, groups, title="a list")
    assert "</svg>" in (tmp_path / "sub" / "map.svg").read_text(encoding="utf-8")
    once, twice = plane(features), plane(features)
    assert all(torch.equal(once[group], twice[group]) for group in groups)
    # Distances in the plane are never larger than in the space.
    flat = torch.cat(list(once.values()))
    full = torch.cat(list(features.values()))
    assert (torch.cdist(flat, flat) <= torch.cdist(full, full) + 1e-4).all()
    assert math.isfinite(float(flat.sum()))
