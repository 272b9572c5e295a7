"""Every architecture in every layout through `simprompt run`, with every method that fits it.

The checkpoints are random and small: few layers and narrow, with the published patch, grid and
image sizes. `pytest -m slow -s tests/oracles/test_every_model.py` runs them all and prints what
became of each.
"""

from __future__ import annotations

import json
from pathlib import Path

import foreign
import pytest
import torch
from safetensors.torch import load_file, save_file

from simprompt import methods
from simprompt.cli.run import _fitting
from simprompt.clip.hub import load_clip
from simprompt.clip.layouts.open_clip import save_open_clip
from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.resnet import ResNetConfig
from simprompt.clip.text import TextConfig
from simprompt.data import catalogue
from simprompt.errors import SimpromptError
from simprompt.experiments.sweep.make import sweep
from simprompt.recipes import plan
from simprompt.utils.options import MethodOptions, ModelOptions

pytestmark = pytest.mark.integration

# sizes of `foreign.hf_model`; the text is narrower or wider than the joint space in all of them
VITS = {
    "ViT-B-32": {"image": 224, "patch": 32, "context": 77},
    "ViT-B-16": {"image": 224, "patch": 16, "context": 64, "act": "gelu"},
    "ViT-L-14-336": {"image": 336, "patch": 14, "context": 77},
    "TinyCLIP": {"image": 224, "patch": 16, "context": 77, "text": 16, "vision": 16, "layers": 3},
}
RESNET = "RN50"
TOKENS = {"ivlp", "maple", "promptsrc", "vpt", "vpt+text"}


def write(name: str, layout: str, folder: Path, **changes) -> Path:
    """A random checkpoint; what `--model` takes."""
    folder.mkdir(parents=True)
    words = load_clip("icons").tokenizer
    words.save(folder)
    vocab = words.fast.get_vocab_size()
    if name == RESNET:
        text = TextConfig(vocab_size=vocab, context_length=77, width=32, layers=2, heads=4,
                          embed_dim=24, sot=words.sot, eot=words.eot)  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            images = ResNetConfig(changes.get("image", 224), (1, 1, 1, 1), 8, 4, 24)
            save_open_clip(CLIP(CLIPConfig(text, images), words), folder)
        weights = load_file(folder / "open_clip_model.safetensors")
    else:
        model = foreign.hf_model(vocab, **(VITS[name] | changes))
        model.config.text_config.bos_token_id = words.sot
        model.config.text_config.eos_token_id = words.eot
        if layout == "hugging_face":
            model.save_pretrained(folder)
            return folder
        config = json.dumps(foreign.open_clip_config(model.config))
        (folder / "open_clip_config.json").write_text(config, encoding="utf-8")
        weights = foreign.openai_names(model.state_dict())
        save_file(weights, folder / "open_clip_model.safetensors")
    if layout == "openai":
        (folder / "open_clip_model.safetensors").unlink()
        torch.save(weights, folder / "model.pt")
        return folder / "model.pt"
    return folder


def four_classes(folder: Path) -> Path:
    """Three drawings of each of four classes: the models know nothing, whatever they are shown."""
    split = catalogue.load("icons/places").base.train
    for label in range(4):
        place = folder / split.classnames[label]
        place.mkdir(parents=True)
        for row in split.rows_by_label()[label][:3]:
            split.load(row).save(place / f"{row}.png")
    return folder


def run_all(model: Path, out: Path) -> dict[str, str]:
    """What became of each method, with SAR and without: "ok", or why it did not run."""
    settings = ["training.epochs=1", "training.max_steps=2", f"sar.novel={plan.OWN_SOURCE}"]
    configs = plan.plan(
        [str(four_classes(out.parent / "images"))], [1], ModelOptions(str(model)),
        MethodOptions(settings=settings, method="all", shots=1), max_test_per_class=1,
    )  # fmt: skip
    fit = _fitting(configs, leave_out=True)
    outcome = sweep(fit, out, quiet=True)
    became = {config.label: "left out" for config in configs}
    for config in fit:
        became[config.label] = outcome.failed.get(config.handle) or "ok"
        if became[config.label] == "ok":
            assert 0 <= outcome.results[config.handle]["base"] <= 100
    return became


def expected(name: str) -> dict[str, str]:
    left_out = TOKENS if name == RESNET else set()
    return {
        label: "left out" if method in left_out else "ok"
        for method in methods.names()
        for label in [method, *([f"{method}+sar"] if methods.find(method).text_moves else [])]
    }


LAYOUTS = [
    (name, layout)
    for name in (RESNET, *VITS)
    for layout in ("openai", "open_clip", "hugging_face")
    if (name, layout) != (RESNET, "hugging_face")  # transformers' CLIPModel has no ResNet
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_every_method_runs_on_every_model(name, layout, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    became = run_all(write(name, layout, tmp_path / "model"), tmp_path / "runs")
    with capsys.disabled():
        ok = sum(state == "ok" for state in became.values())
        others = {label: state for label, state in became.items() if state != "ok"}
        print(f"\n{name:14} {layout:13} {ok} ok {others or ''}")
    assert became == expected(name)


@pytest.mark.parametrize(
    ("name", "layout"), [(RESNET, "openai"), ("ViT-B-32", "hugging_face")]
)  # fmt: skip
def test_every_method_runs(name, layout, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    model = write(name, layout, tmp_path / "model", image=64)
    assert run_all(model, tmp_path / "runs") == expected(name)


def test_visual_prompts_on_a_resnet_are_refused_before_images_are_encoded(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    model = write(RESNET, "open_clip", tmp_path / "model", image=64)
    for method in sorted(TOKENS):
        configs = plan.plan(
            ["icons/animals"], [1], ModelOptions(str(model)), MethodOptions(method=method)
        )
        with pytest.raises(SimpromptError, match="is convolutional, and visual prompts"):
            _fitting(configs, leave_out=False)
    assert not (tmp_path / "cache" / "features").exists()
    configs = plan.plan(
        ["icons/animals"], [1], ModelOptions(str(model)), MethodOptions(method="coop,maple")
    )
    assert {c.method for c in _fitting(configs, leave_out=True)} == {"coop"}
    assert "Left out: maple. The image tower of" in capsys.readouterr().err
