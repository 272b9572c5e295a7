"""A Ray cluster: one task a piece."""

from __future__ import annotations

import warnings
from collections.abc import Container, Generator, Sequence
from pathlib import Path
from typing import Any

from simprompt.config import RunConfig
from simprompt.errors import SimpromptError, install
from simprompt.experiments.sweep.pieces import (
    Outcome,
    Piece,
    make_piece,
    parted,
    pieces_of,
    record,
)
from simprompt.utils.files.remote import url_of


def on_ray(
    configs: Sequence[RunConfig],
    waiting: Container[str],
    out: str | Path,
    address: str,
    together: bool,
) -> Generator[Outcome, None, None]:
    """One Ray task a piece; Ray places them, and starts those again whose worker or node died."""
    try:
        import ray
    except ImportError:
        raise SimpromptError(
            f"--ray needs Ray: {install('ray')}, here and on every node."
        ) from None
    location = out if url_of(out) else str(Path(out).resolve())
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False)
        except Exception as error:  # Ray raises bare ones where a node does not start in time
            message = str(error).partition("\n")[0]
            raise SimpromptError(
                f"No Ray cluster answers at {address!r}: {message} "
                "docs/studies.md says how to start one and what may keep it from starting."
            ) from None
    try:
        gpus = any(c.device == "cuda" for c in configs)
        node_cpus = max(
            (n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"]), default=0
        )
        if (threads_wanted := max(c.threads for c in configs)) > node_cpus:
            warnings.warn(
                f"A run asks for {threads_wanted} threads, and no node of the Ray cluster has "
                "more than "
                f"{node_cpus:g} cores: it waits for a larger one. --set threads=1 asks for less.",
                stacklevel=2,
            )
        if gpus and not any(n["Resources"].get("GPU") for n in ray.nodes() if n["Alive"]):
            warnings.warn(
                "Runs ask for a GPU, and no node of the Ray cluster has one: they wait for a node "
                "that has. --device cpu needs none.",
                stacklevel=2,
            )
        task = ray.remote(max_retries=3)(make_piece)

        def submit(piece: Piece) -> Any:
            first_run, suffix = piece[0], f" and {len(piece) - 1} more" if len(piece) > 1 else ""
            name = f"{first_run.dataset} {first_run.label} {first_run.seed}{suffix}"
            return task.options(
                num_cpus=first_run.threads, num_gpus=int(first_run.device == "cuda"), name=name
            ).remote(piece, location)

        cpus = ray.cluster_resources().get("CPU", 1) if together else 1
        at_once = max(1, int(cpus) // max(c.threads for c in configs))
        pieces = pieces_of(configs, waiting, at_once, together)
        tasks = {submit(piece): piece for piece in pieces}
        died: list[Piece] = []
        while tasks:
            (finished_task,), _ = ray.wait(list(tasks), num_returns=1)
            piece = tasks.pop(finished_task)
            try:
                outcomes = ray.get(finished_task)
            except ray.exceptions.RayError as error:
                if len(piece) > 1:
                    pieces_again = parted(piece, again=piece in died)
                    died.append(piece)
                    tasks |= {submit(piece_again): piece_again for piece_again in pieces_again}
                    continue
                message = f"Ray gave up on it: {str(error).splitlines()[0]}"
                record(out, piece[0], message, str(error))
                outcomes = [message]
            yield from zip(piece, outcomes, strict=True)
    finally:
        if ours:
            ray.shutdown()
