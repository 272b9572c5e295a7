"""Names of classes."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from typer.testing import CliRunner

from page_cases import case, check, classes, refusal
from simprompt.cli.main import app


@case("same-text")
def _(at: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    twins = (
        ("US", "us"), ("BMW", "Bmw"), (composed, apart), ("AT&T", "AT&amp;T"), ("ABC", "ＡＢＣ"),
        ("cat", "cat\u200b"), ("cat", "\ufeffcat"), ("cat", "c\u00adat"), ("cat", "cat\u200e"),
        ("sea lion", "sea_lion"), ("ﬁsh", "fish"),
    )  # fmt: skip
    for number, names in enumerate(twins):
        message = refusal(classes(at / str(number), *names, "star"))
        assert "both called" in message, names
        assert "--rename" in message


@case("same-text-new")
def _(at: Path) -> None:
    classes(at / "photos", "cat", "star")
    new = at / "new.txt"
    for text, words in (
        ("Cat\u200b\n", "there are images of it"),
        ("fox\nＦＯＸ\n", "named twice"),
    ):
        new.write_text(text, encoding="utf-8")
        result = CliRunner().invoke(
            app, ["learn", str(at / "photos"), "--new-classes", str(new), "--out", str(at / "out")]
        )
        assert words in str(result.exception)


@case("join")
def _(at: Path) -> None:
    classes(at / "photos", "heli copter (2)", "helicopter", "US", "us")
    (at / "names.txt").write_text(
        "heli copter (2) = helicopter\nUS = United States\nus = United States\n", encoding="utf-8"
    )
    own = check(at / "photos", "--rename", str(at / "names.txt"))
    assert own["class_names"] == ["United States", "helicopter"]
    assert own["images"] == {"train": 6, "test": 2}
    assert "'heli copter (2)' and 'helicopter' are one class, 'helicopter'" in " ".join(
        own["notes"]
    )


@case("silent-names")
def _(at: Path) -> None:
    for number, names in enumerate((
        ("0", "1", "10"), ("n02084071", "n02121808"), ("class_3", "class_4"), ("label 7", "A"),
        ("d41d8cd98f00b204", "0cc175b9c0f1b6a8"),
    )):  # fmt: skip
        own = check(classes(at / str(number), *names))
        (note,) = (note for note in own["notes"] if "nothing to CLIP" in note)
        assert f"{len(names)} class names say nothing to CLIP" in note
        assert "--rename FILE" in note
    own = check(classes(at / "words", "cat", "boeing_747", "iPhone"))
    assert own["notes"] == []


@case("counted-names")
def _(at: Path) -> None:
    own = check(classes(at / "a", "001.Black_footed_Albatross", "n02085620-Chihuahua"))
    assert own["class_names"] == ["black footed albatross", "chihuahua"]
    assert check(classes(at / "b", "1_circle", "2_square"))["class_names"] == ["circle", "square"]
    own = check(classes(at / "c", "737-MAX", "3-toed_sloth"))
    assert own["class_names"] == ["3-toed sloth", "737-MAX"]


@case("words-in-capitals")
def _(at: Path) -> None:
    own = check(classes(at, "iPhone", "WiFi", "McDonalds", "eBay", "MacBook", "goldenRetriever"))
    assert own["class_names"] == ["MacBook", "McDonalds", "WiFi", "eBay", "golden retriever",
                                  "iPhone"]  # fmt: skip
