"""An exported map answers as the package does, and is no linear head."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import simprompt
from simprompt.clip.model import CLIP
from simprompt.deploy.export.head import head
from simprompt.deploy.export.write import export
from simprompt.errors import SimpromptError

pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("one_registry"),
    pytest.mark.filterwarnings("ignore:.*treespec", "ignore:# The axis name"),
]


@pytest.mark.parametrize("host", ["coop", pytest.param("tcp", marks=pytest.mark.slow)])
def test_its_graphs_answer_for_any_names(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shallow: CLIP
) -> None:
    data = simprompt.load_dataset("icons/animals")
    prompt = simprompt.learn(
        shallow, data.base.few_shot(4, seed=1), "image-map", sar=True,
        options={"host": host, "host_options": {"n_ctx": 4}},
        training={"epochs": 2, "batch_size": 32},
    )  # fmt: skip
    assert prompt.learner.weight.abs().max() > 0
    with pytest.raises(SimpromptError, match="not a linear function"):
        head(prompt.learner, data.base.classnames)
    export(prompt, tmp_path / "ex", "onnx", None)
    monkeypatch.syspath_prepend(tmp_path / "ex")
    spec = importlib.util.spec_from_file_location("map_predict", tmp_path / "ex" / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    predictor = module.Predictor(str(tmp_path / "ex"))
    images = [data.base.test.load(row) for row in range(6)]
    for names in (None, ["stone", "lion", "river"]):
        given = predictor.probabilities(images, names) if names else predictor.probabilities(images)
        ours = torch.tensor([one.probabilities for one in prompt.predict(images, names)])
        assert (torch.tensor(given) - ours).abs().max() < 1e-5
