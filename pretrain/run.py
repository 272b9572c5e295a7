"""Rebuild the embedded icon CLIP: collect, prepare, train, evaluate, export; stages resume."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

# Read by glibc and OpenMP when a process starts, hence the re-execution in `main`. Without them a
# third of the time goes to returning memory to the system and asking for it again, and one thread
# a process keeps the workers from disturbing each other.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
}


def main() -> None:
    """Command line."""
    if any(os.environ.get(k) != v for k, v in ENVIRONMENT.items()):
        os.environ.update(ENVIRONMENT)
        os.execv(sys.executable, [sys.executable, "-m", "pretrain.run", *sys.argv[1:]])
    from pretrain import collect, export, packs, prepare, train
    from pretrain.model import Sizes
    from simprompt.clip.hub import load

    parser = argparse.ArgumentParser(prog="python -m pretrain", description=__doc__)
    parser.add_argument("--cache", type=Path, help="downloads and arrays; default under ~/.cache")
    parser.add_argument("--minutes", type=float, default=67, help="training time")
    parser.add_argument("--steps", type=int, default=0, help="a repeatable budget instead")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=export.EMBEDDED, help="where the files go")
    parser.add_argument("--export-only", action="store_true", help="export the latest checkpoint")
    parser.add_argument("--figures", action="store_true", help="measure the shipped files, no more")
    args = parser.parse_args()
    cache = packs.cache_dir(args.cache)
    run = cache / "run"
    start = time.monotonic()
    if not args.export_only:
        collect.collect(cache)
        prepare.prepare(cache)
        print(f"prepared after {time.monotonic() - start:.0f} s", flush=True)
        if not args.figures and not (run / "average.pt").exists():
            train.run(cache, run, args.minutes, args.steps, train.Settings(), Sizes(), args.workers)
    if args.figures:
        found, read = export.figures(load(args.out, name="icons"), cache)
        print(json.dumps({"zero-shot": found, "captions": read}, indent=1))
        return
    facts = export.export(cache, run, args.out)
    print(json.dumps({"zero-shot": facts.figures, "captions": facts.statements}, indent=1))


if __name__ == "__main__":
    main()
