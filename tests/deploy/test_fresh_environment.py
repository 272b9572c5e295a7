"""An exported folder in a new virtual environment that has onnxruntime, NumPy and Pillow alone.

python -m pytest -m slow tests/deploy/test_fresh_environment.py -s
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simprompt.clip.hub import load_clip
from simprompt.data import icons
from simprompt.deploy.export.write import export
from simprompt.prompt.learn import learn

pytestmark = pytest.mark.integration

PROGRAM = """
import importlib.util, json, sys
from pathlib import Path

missing = ("torch", "simprompt", "tokenizers", "ftfy", "safetensors")
assert not any(importlib.util.find_spec(name) for name in missing)
folder, images, names = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
sys.path.insert(0, str(folder))
from predict import Predictor

paths = sorted(images.rglob("*.png"))
predictor = Predictor(folder)
print(json.dumps({
    "paths": [str(path.relative_to(images)) for path in paths],
    "known": predictor.probabilities(paths).tolist(),
    "open": predictor.probabilities(paths, names).tolist(),
    "text": predictor.text_features(names).tolist(),
}))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*treespec")
def test_two_hundred_images_and_open_names_in_a_fresh_environment(tmp_path):
    began = time.perf_counter()

    def took(what: str) -> None:
        nonlocal began
        print(f"{what}: {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()

    data = icons.load("animals")
    base, test = data.base, data.base.test
    prompt = learn(load_clip("icons"), base.few_shot(16, 1))
    took("learn")
    images = tmp_path / "images"
    for i in np.linspace(0, len(test) - 1, 200).astype(int).tolist():
        name = base.classnames[test.labels[i]]
        (images / name).mkdir(parents=True, exist_ok=True)
        test.load(i).save(images / name / f"{i:05}.png")
    paths = sorted(images.rglob("*.png"))
    assert len(paths) == 200
    card = export(prompt, tmp_path / "out", int8=True, check=images)
    took(f"export, with 8 bits on {len(paths)} images")
    for file in sorted(tmp_path.joinpath("out").glob("*.*")):
        print(f"  {file.name} {file.stat().st_size:,} bytes")
    print(f"  largest differences when written: {card['differences']}; 8 bits: {card['check']}")

    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    packages = ["onnxruntime", "numpy", "pillow"]
    pinned = Path(__file__).parents[2] / "requirements" / "test.txt"
    constraints = tmp_path / "constraints.txt"  # without hashes, which would be asked of all
    versions = re.findall(r"^(\S+==.*) \\$", pinned.read_text(encoding="utf-8"), re.MULTILINE)
    constraints.write_text("\n".join(versions), encoding="utf-8")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", str(constraints), *packages], check=True
    )
    took("a new environment")
    new = [*data.new.classnames, "Café au lait", "t-shirt", "boeing_737"]
    run = subprocess.run(
        [python, "-c", PROGRAM, str(tmp_path / "out"), str(images), json.dumps(new)],
        capture_output=True, encoding="utf-8", check=True, env={"PATH": ""}, cwd=tmp_path,
    )  # fmt: skip
    took("its answers")
    made = json.loads(run.stdout)
    assert made["paths"] == [str(path.relative_to(images)) for path in paths]
    differences = {"text": np.array(made["text"]) - prompt.text_features(new).numpy()}
    for key, names in (("known", base.classnames), ("open", new)):
        rows = [row.probabilities for row in prompt.predict(paths, names)]
        differences[key] = np.array(made[key]) - np.array(rows)
    worst = {key: float(np.abs(value).max()) for key, value in differences.items()}
    print(f"largest differences in the fresh environment: {worst}")
    assert max(worst.values()) < 1e-4
