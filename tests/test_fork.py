"""A forked worker answers with the prompt that its parent loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

SCRIPT = """
import os, sys, time
import numpy as np
from PIL import Image
from simprompt import methods
from simprompt.clip.hub import load_clip
from simprompt.prompt.prompt import Prompt

kind = methods.find("zero-shot")
learner = kind(load_clip("icons"), ("cat", "dog", "fish"), "a {}.", kind.Config())
prompt = Prompt(learner, {})
random = np.random.default_rng(1)
images = [Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(32)]
names = ("owl", "tree", "red fox")
answers = [list(one.probabilities) for one in prompt.predict(images, names)]
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    given = [list(one.probabilities) for one in prompt.predict(images, names)]
    new = prompt.predict(images[0], ("blue whale", "oak"))
    near = np.allclose(answers, given, atol=1e-5) and len(new.probabilities) == 2
    os.write(writer, b"1" if near else b"0")
    os._exit(0)
limit = time.monotonic() + 40
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > limit:
        os.kill(child, 9)
        sys.exit("the child hangs")
    time.sleep(0.02)
sys.exit(0 if os.read(reader, 1) == b"1" else "the child gives other answers")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one thread waits for no other")
def test_a_forked_worker_answers() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True, text=True, encoding="utf-8", timeout=180, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
