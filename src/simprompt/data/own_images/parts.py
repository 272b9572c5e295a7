"""Your own images as they are learned from and tested on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simprompt.data.dataset import View
from simprompt.data.names import odd_names, says_nothing
from simprompt.data.own_images.folder import OwnImages
from simprompt.data.split import Split


@dataclass(frozen=True)
class Parts:
    """The parts of somebody's own images.

    Attributes:
        own: all of them.
        unseen: labelled images of new classes, to test on; None: there are none.
        known: the classes that have images.
    """

    own: OwnImages
    unseen: OwnImages | None
    known: View

    def everything(self, shots: int, seed: int) -> Split:
        """A draw of so many images a class from all that are labelled, those held out as well."""
        data = self.own.dataset
        both = Split(
            (*data.train.items, *data.test.items),
            (*data.train.labels, *data.test.labels),
            data.train.classnames,
            data.train.loader,
            origin=data.train.origin,
        )
        known = replace(self.known, dataset=replace(data, train=both))
        return known.few_shot(shots, seed)

    def divided(self, draw: Split, shots: int, hold_out: float) -> str:
        """How many images are learned from, a draw of at most `shots` a class, and how many are
        held out: the part `hold_out`, or a test split of the user's own."""
        train, test = self.own.dataset.train, self.own.dataset.test
        text = f"{len(draw):,} images to learn from"
        if len(draw) < len(train):
            text = f"{len(draw):,} of {len(train):,} images to learn from, {shots} a class at most"
        if not self.own.held_out:
            return f"{text}, {len(test):,} held out"
        return f"{text}, {len(test):,} held out ({100 * hold_out:g} % of each class)"

    def described(self) -> list[str]:
        """What was understood of the images, in sentences."""
        own, unseen, names = self.own, self.unseen, self.known.classnames
        sentences = []
        odd = [name for name in odd_names(names) if not says_nothing(name)]  # of these a note warns
        if odd:
            ellipsis = ", ..." if len(odd) > 10 else ""
            sentences.append(
                "These class names are not ordinary words: "
                f"{', '.join(map(repr, odd[:10]))}{ellipsis}. "
                "Rename them with --rename FILE (in Python rename=FILE); CLIP reads the names, so "
                "better names raise accuracy."
            )
        ordinary = [name for name in names if name not in odd]
        listed = ", ".join(ordinary[:40]) + (", ..." if len(ordinary) > 40 else "")
        sentences.append(f"{len(names)} classes: {listed}")
        if own.new_classes:
            sentences.append(f"{len(own.new_classes)} new classes without images")
        sentences += own.told()
        if unseen:
            count = sum(unseen.facts()["images"].values())
            sentences.append(f"{count} images of {len(unseen.known)} new classes to measure on")
            sentences += [f"  {line}" for line in unseen.told()]
        return sentences
