"""How far one step raises the peak of memory over the loaded model, ours and the published way.

Each step runs alone, after freed memory went back to the system, and the system's own count of
resident pages is read (allocated bytes on a GPU).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import groupby

from common import Row, arguments, emit, prepare
from step import CASES, measure, reference_of

CHOSEN = ("coop", "coop+sar", "cocoop, batch 4", "coop, 500 classes", "coop+sar, 500 classes")


def rows(options: argparse.Namespace) -> Iterator[Row]:
    wanted = [c for c in CASES if c.name in CHOSEN and (options.case or "") in c.name]
    for _, group in groupby(wanted, key=reference_of):
        for row in measure(list(group), options, repeats=0):
            assert row.ours_peak_mb is not None
            assert row.reference_peak_mb is not None
            row.more["share"] = row.ours_peak_mb / row.reference_peak_mb
            yield row


if __name__ == "__main__":
    given = arguments(__doc__ or "").parse_args()
    prepare(given)
    emit(rows(given), given, "Increase of peak memory by one step")
