"""The bundled noun graph and the relatives of base classes in it."""

import pytest

from simprompt.novel import NovelNameError, novel_names
from simprompt.novel.names import name_key
from simprompt.novel.nouns import noun_list, synsets
from simprompt.novel.wordnet import look_up

DOGS = ["beagle", "boxer", "basset hound", "chihuahua", "great_pyrenees", "japanese_chin"]


def test_graph_has_parents_before_children_and_one_root():
    table = synsets()
    assert all(parent < i for i, synset in enumerate(table) for parent in synset.parents)
    assert [i for i, synset in enumerate(table) if not synset.parents] == [0]
    assert len(table) > 40_000


def test_noun_list_is_plain_and_unique():
    nouns = noun_list()
    assert len(nouns) > 20_000
    assert len(set(nouns)) == len(nouns)
    assert all(noun.isascii() and noun == noun.strip().lower() for noun in nouns)
    assert len(noun_list(minimum_count=1)) > 4_000


def nouns_of(meanings):
    return {name: {noun.text for noun in synsets()[i].nouns} for name, i in meanings.items()}


def test_the_meaning_that_fits_the_other_classes_is_taken():
    dogs = look_up(DOGS)
    assert synsets()[dogs["boxer"]].kind == "animal"
    assert "japanese_chin" not in dogs  # known by its last word alone, which is no dog
    assert synsets()[look_up(["boxer", "wrestler", "referee"])["boxer"]].kind == "person"
    animals = look_up(["crane", "heron", "stork"])
    assert synsets()[animals["crane"]].kind == "animal"
    machines = look_up(["crane", "bulldozer", "excavator"])
    assert synsets()[machines["crane"]].kind == "artifact"


def test_plurals_brackets_and_last_words_are_understood():
    found = nouns_of(look_up(["daisies", "crane (bird)", "giant white arum lily", "wolves"]))
    assert "daisy" in found["daisies"]
    assert "crane" in found["crane (bird)"]
    assert "arum lily" in found["giant white arum lily"]
    assert "wolf" in found["wolves"]


def test_siblings_come_first_and_neither_ancestors_nor_base_classes_come_at_all():
    made = novel_names("wordnet", DOGS, n=60)
    assert len(made) == 60
    names = {name_key(name) for name in made.names}
    assert not names & {name_key(dog) for dog in DOGS}
    assert not names & {"dog", "hound", "animal", "carnivore", "mammal"}
    assert {"bloodhound", "foxhound"} & names
    assert made.provenance["base_unknown"] == ["japanese_chin"]
    # A sibling is one that `distance=2` finds.
    siblings = novel_names("wordnet[distance=2]", DOGS)
    assert set(map(name_key, siblings.names[:5])) <= names
    assert siblings.provenance["distance"] == 2


def test_settings_change_the_reach_and_the_seed_the_draw():
    near = novel_names("wordnet[distance=2]", DOGS)
    far = novel_names("wordnet[distance=6]", DOGS, n=2000)
    assert len(near) < len(far)
    low = novel_names("wordnet[distance=6,depth=11]", DOGS, n=2000)
    assert len(low) < len(far)
    assert far == novel_names("wordnet[distance=6]", DOGS, n=2000)
    assert far.names != novel_names("wordnet[distance=6]", DOGS, n=2000, seed=1).names


@pytest.mark.parametrize(
    "spec", ["wordnet[distance=1]", "wordnet[distance=far]", "wordnet[depth=-1]"]
)
def test_bad_settings_are_told(spec):
    with pytest.raises(NovelNameError, match=r"distance|depth"):
        novel_names(spec, DOGS)


def test_classes_wordnet_does_not_know():
    with pytest.raises(NovelNameError, match="knows none of the 2 base classes"):
        novel_names("wordnet", ["A330-200", "qwertz"])
