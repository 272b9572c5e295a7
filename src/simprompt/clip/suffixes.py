"""What differs between the prompts of classes, laid out without padding for the text tower.

Whole classes stand side by side in rows of about 32 tokens; a mask keeps them apart. See `text` for
why this is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.utils.devices import to_device
from simprompt.utils.gradients import frozen_mode

ROW = 32  # tokens in a row of `Packed`, where no class is longer


@dataclass(frozen=True)
class Suffixes:
    """What stands after the shared prefix, one row of token ids a class, each ending in EOT."""

    names: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, index: Sequence[int]) -> Suffixes:
        """The classes at `index`, in that order."""
        return Suffixes(tuple(self.names[i] for i in index), tuple(self.ids[i] for i in index))

    def chunks(self, size: int) -> Iterator[Suffixes]:
        """Consecutive pieces of at most `size` classes."""
        for start in range(0, len(self), size):
            yield self.select(range(start, min(start + size, len(self))))

    @cached_property
    def packed(self) -> Packed:
        """These classes in rows, on the CPU."""
        return self.pack()

    def pack(self, width: int = 0) -> Packed:
        """These classes in rows of `width` tokens; 0 chooses one that leaves little over."""
        with frozen_mode():  # training may use them after a caller's inference mode
            flat = torch.tensor([token for ids in self.ids for token in ids])
            return Packed.lay_out(flat, torch.tensor([len(ids) for ids in self.ids]), width)


@dataclass(frozen=True)
class Packed:
    """Suffixes of C classes as R rows of L tokens: a row holds several classes, none is cut.

    The few places left over at the end of a row are filled with token 0, which no class sees.
    """

    tokens: Tensor  # [R, L] token ids
    offsets: Tensor  # [R, L] position within the suffix
    owners: Tensor  # [R, L] number of the class, -1 for filling
    starts: Tensor  # [C] where each class begins, counting through the rows
    lengths: Tensor  # [C]
    prefix: Tensor  # [R] which prefix a row stands behind

    @classmethod
    def lay_out(cls, flat: Tensor, lengths: Tensor, width: int = 0) -> Packed:
        """Rows from the tokens of all classes, one class behind the other [T], on the CPU."""
        begins, rows, width = _places(lengths.tolist(), width)
        starts = torch.tensor(begins)
        owners = torch.arange(len(lengths)).repeat_interleave(lengths)
        # each token's place minus the place where its class begins in `flat`
        offsets = torch.arange(len(flat)) - (lengths.cumsum(0) - lengths)[owners]
        positions = starts[owners] + offsets

        def in_rows(values: Tensor, filling: int = 0) -> Tensor:
            laid = torch.full((rows * width,), filling)
            laid[positions] = values
            return laid.view(rows, width)

        row_starts = torch.zeros(rows, dtype=torch.long)
        return cls(
            in_rows(flat), in_rows(offsets), in_rows(owners, -1), starts, lengths, row_starts
        )

    @classmethod
    def stack(cls, packs: Sequence[Packed]) -> Packed:
        """Packs of one width below each other; the rows of pack b stand behind prefix b."""
        tensors = []
        rows = classes = 0
        for b, p in enumerate(packs):
            owners = torch.where(p.owners < 0, -1, p.owners + classes)
            starts = p.starts + rows * p.tokens.shape[1]
            prefix = torch.full_like(p.prefix, b)
            tensors.append((p.tokens, p.offsets, owners, starts, p.lengths, prefix))
            rows += len(p.tokens)
            classes += len(p.starts)
        return cls(*(torch.cat(field) for field in zip(*tensors, strict=True)))

    def to(self, device: torch.device) -> Packed:
        """The same on another device, all of it in one copy."""
        if device.type == "cpu":
            return self
        tensors = [getattr(self, field.name) for field in fields(self)]  # all are int64
        flat = to_device(torch.cat([t.flatten() for t in tensors]), device)
        pieces_there = flat.split([t.numel() for t in tensors])
        return Packed(
            *(piece.view(t.shape) for piece, t in zip(pieces_there, tensors, strict=True))
        )

    @property
    def ends(self) -> Tensor:
        """[C] where each class's EOT stands, counting through the rows."""
        return self.starts + self.lengths - 1

    def mask(self, prefix_length: int, dtype: torch.dtype) -> Tensor:
        """[R, 1, L, P+L], 0 or -inf: a token sees the prefix, and its own class up to itself."""
        same_owner = (self.owners[:, :, None] == self.owners[:, None, :]).tril()
        hidden = ~F.pad(same_owner, (prefix_length, 0), value=True)[:, None]
        zeros = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
        return zeros.masked_fill_(hidden, float("-inf"))

    def behind(self, m: int) -> Packed:
        """Rows with m more tokens in front of every class.

        Its `tokens` are places: they count through the rows of this pack, and go on with the m
        tokens of class 0, of class 1, ... Its offsets mean nothing. Both are on the CPU.
        """
        longer = self.lengths + m
        owners = torch.arange(len(longer)).repeat_interleave(longer)
        within = torch.arange(len(owners)) - (longer.cumsum(0) - longer)[owners]
        old_positions = self.starts[owners] + within - m
        new_positions = self.tokens.numel() + owners * m + within
        return Packed.lay_out(torch.where(within < m, new_positions, old_positions), longer)


def _places(lengths: list[int], width: int) -> tuple[list[int], int, int]:
    """(where each class starts, rows, width): into each row goes the longest class that fits.

    Without a width, the narrowest is taken that does with as many rows as `ROW` suggests.
    """
    longest, total = max(lengths), sum(lengths)
    # -(-a // b) is a / b rounded up
    row_count = -(-total // max(ROW, longest))
    width, fixed_width = width or max(longest, -(-total // row_count)), bool(width)
    while True:
        waiting: dict[int, list[int]] = {n: [] for n in sorted(set(lengths), reverse=True)}
        for i in reversed(range(len(lengths))):  # `pop` then gives equal lengths in class order
            waiting[lengths[i]].append(i)
        starts = [0] * len(lengths)
        rows = placed = 0
        while placed < len(lengths):
            row_start, end = rows * width, (rows + 1) * width
            for n, classes in waiting.items():
                while classes and row_start + n <= end:
                    starts[classes.pop()] = row_start
                    row_start += n
                    placed += 1
            rows += 1
        if fixed_width or rows <= row_count:
            return starts, rows, width
        width += 1
