"""Make the text tower of the CLIP for photographs: prepare, train, export; stages resume."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path


def main() -> None:
    """Command line."""
    import torch

    from pretrain import packs
    from pretrain.photos import export, train

    parser = argparse.ArgumentParser(prog="python -m pretrain.photos", description=__doc__)
    parser.add_argument("--cache", type=Path, help="downloads and arrays; default under ~/.cache")
    parser.add_argument("--steps", type=int, default=train.Settings.steps)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=export.EMBEDDED, help="where the files go")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cache = packs.cache_dir(args.cache) / "photos"
    cache.mkdir(exist_ok=True)
    settings, start = replace(train.Settings(), steps=args.steps), time.monotonic()
    train.prepare(cache, settings)
    print(f"prepared after {time.monotonic() - start:.0f} s", flush=True)
    tower = train.train(cache, settings)
    print(f"trained after {time.monotonic() - start:.0f} s", flush=True)
    print(json.dumps(export.export(cache, tower, args.out), indent=1))


if __name__ == "__main__":
    main()
