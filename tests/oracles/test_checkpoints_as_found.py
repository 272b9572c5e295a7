"""Checkpoints as people have them: wrapped, beside other things, in parts, at another size."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path

import foreign
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import hostile
from simprompt.clip import hub
from simprompt.clip.checkpoints import load_checkpoint
from simprompt.clip.layouts.common import CheckpointError
from simprompt.clip.layouts.open_clip import save_open_clip
from simprompt.clip.model import CLIP
from simprompt.clip.parts import INDEX
from simprompt.clip.positions import interpolated
from simprompt.errors import SimpromptError

transformers = pytest.importorskip("transformers")

TEXTS = ["a photo of a cat.", "sea or lake"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random CLIP as `transformers` writes it, with its tokenizer."""
    place = tmp_path_factory.mktemp("hf")
    vocabulary = foreign.write_vocabulary(place)
    foreign.hf_model(len(vocabulary)).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def whole(folder) -> CLIP:
    return load_checkpoint(folder)


@pytest.fixture(scope="module")
def theirs(folder) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def beside(folder, tmp_path):
    """beside(content): the model's folder with `content` in the place of its weights."""

    def write(content: object, name: str = "pytorch_model.bin") -> Path:
        place = tmp_path / "model"
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.safetensors"))
        if name.endswith(".safetensors"):
            save_file(content, place / name)
        else:
            torch.save(content, place / name)
        return place

    return write


def equal(a: CLIP, b: CLIP) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


PREFIXES = ["", "module.", "_orig_mod.", "model.", "clip.", "_orig_mod.module.",
            "module._orig_mod.", "model.clip.", "module.model._orig_mod.clip.",
            "model.module.model.", "clip_model."]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_taken_off(beside, theirs, whole, prefix):
    clip = load_checkpoint(beside({prefix + k: v for k, v in theirs.items()}))
    assert equal(clip, whole)
    assert clip.notes == ()


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_openai_names(tmp_path, folder, theirs, whole, prefix):
    shutil.copy(folder / "vocab.json", tmp_path)
    shutil.copy(folder / "merges.txt", tmp_path)
    config = foreign.open_clip_config(transformers.CLIPConfig.from_pretrained(folder))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = foreign.openai_names(theirs)
    # a tower that was compiled on its own
    named = {k.replace("visual.", "visual._orig_mod."): v for k, v in weights.items()}
    torch.save({"state_dict": {prefix + k: v for k, v in named.items()}}, tmp_path / "e.pt")
    assert equal(load_checkpoint(tmp_path / "e.pt"), whole)


def test_two_models_in_one_file_are_refused_and_the_same_twice_is_one(beside, theirs, whole):
    both = {f"{p}{k}": v for p in ("model.", "clip.") for k, v in theirs.items()}
    place = beside(both)
    assert equal(load_checkpoint(place), whole)
    both["clip.logit_scale"] = torch.tensor(1.0)
    torch.save(both, place / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"two models: model\.logit_scale and clip\.logit"):
        load_checkpoint(place)


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "module", "net"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_is_read_past_what_is_beside(beside, theirs, whole, name, zipped):
    place = beside({})
    content = {
        "epoch": 3, "best": np.float64(81.2), "args": argparse.Namespace(lr=1, name="x"),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(9)}}},
        name: {"module." + k: v for k, v in theirs.items()},
    }  # fmt: skip
    torch.save(content, place / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert equal(load_checkpoint(place), whole)


def test_a_whole_pickled_model_gives_its_weights(folder, beside, whole):
    model = transformers.CLIPModel.from_pretrained(folder)
    assert equal(load_checkpoint(beside(model)), whole)


def test_additional_tensors_are_left_out_with_a_note(beside, theirs, whole):
    extra = {"head.weight": torch.zeros(3, 24), "ema.decay": torch.tensor(math.nan)}
    clip = load_checkpoint(beside({f"model.{k}": v for k, v in (theirs | extra).items()}))
    assert equal(clip, whole)
    (note,) = clip.notes
    assert "2 tensors beside those of a CLIP" in note
    assert "ema.decay, head.weight" in note


def test_an_additional_tensor_of_a_tower_is_another_architecture(beside, theirs):
    with pytest.raises(CheckpointError, match="1 tensors are unknown"):
        load_checkpoint(beside(theirs | {"vision_model.register_tokens": torch.zeros(4, 48)}))


def test_a_missing_logit_scale_is_that_of_the_family(beside, theirs, whole):
    clip = load_checkpoint(beside({k: v for k, v in theirs.items() if k != "logit_scale"}))
    assert clip.scale == pytest.approx(100, rel=1e-6)
    assert torch.equal(clip.encode_texts(TEXTS), whole.encode_texts(TEXTS))
    (note,) = clip.notes
    assert "no logit_scale; the logits are scaled by 100" in note


# ------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.vision_model.encoder.layers.0.self_attn.v_proj.lora_B.default.weight",
        "text_model.encoder.layers.0.self_attn.q_proj.base_layer.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "visual.transformer.resblocks.0.adapter.down.weight",
    ],
)
def test_adapters_are_refused_with_the_way_to_merge(beside, theirs, key):
    for content in ({key: torch.zeros(4, 4)}, theirs | {key: torch.zeros(4, 4)}):
        place = beside(content)
        with pytest.raises(CheckpointError, match="adapter") as error:
            load_checkpoint(place)
        assert key in str(error.value)
        assert "merge_and_unload" in str(error.value)
        shutil.rmtree(place)


def test_an_adapters_folder_names_its_base(tmp_path):
    settings = {"peft_type": "LORA", "base_model_name_or_path": "openai/clip-vit-base-patch16"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file({"x.lora_A.weight": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"'openai/clip-vit-base-patch16'\), ADAPTER"):
        load_checkpoint(tmp_path)


# ------------------------------------------------------------------------------- in parts


@pytest.fixture
def parts(folder, tmp_path) -> Path:
    """The model in several files, as `transformers` cuts it."""
    place = tmp_path / "parts"
    model = transformers.CLIPModel.from_pretrained(folder)
    model.save_pretrained(place, max_shard_size="40KB")
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(folder / file, place)
    assert len(list(place.glob("*.safetensors"))) > 3
    return place


def test_shards_of_safetensors(parts, whole):
    assert equal(load_checkpoint(parts), whole)
    assert equal(load_checkpoint(parts / f"model.safetensors{INDEX}"), whole)
    first = min(parts.glob("*.safetensors"))
    with pytest.raises(CheckpointError, match="one part of a checkpoint in several files"):
        load_checkpoint(first)


def test_shards_of_pickles_under_open_clips_names_too(parts, folder, theirs, whole, tmp_path):
    places = json.loads((parts / f"model.safetensors{INDEX}").read_text(encoding="utf-8"))
    names = places["weight_map"]
    for file in set(names.values()):
        part = {k: theirs[k] for k, where in names.items() if where == file}
        torch.save(part, parts / file.replace("safetensors", "bin"))
        (parts / file).unlink()
    places["weight_map"] = {k: v.replace("safetensors", "bin") for k, v in names.items()}
    (parts / f"model.safetensors{INDEX}").unlink()
    (parts / f"pytorch_model.bin{INDEX}").write_text(json.dumps(places), encoding="utf-8")
    assert equal(load_checkpoint(parts), whole)


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/passwd", "a/../../model.safetensors", "..\\model.safetensors",
     "C:\\model.safetensors", "C:model.safetensors", "", ".", "a\0b", 7, None, ["a"]],
)  # fmt: skip
def test_an_index_leads_nowhere_else(parts, name):
    shutil.copy(min(parts.glob("*.safetensors")), parts.parent / "model.safetensors")
    index = parts / f"model.safetensors{INDEX}"
    places = json.loads(index.read_text(encoding="utf-8"))
    places["weight_map"]["logit_scale"] = name
    index.write_text(json.dumps(places), encoding="utf-8")
    with pytest.raises(SimpromptError, match="no file below its folder"):
        load_checkpoint(parts)


def test_an_index_that_is_wrong_is_said(parts):
    index = parts / f"model.safetensors{INDEX}"
    places = json.loads(index.read_text(encoding="utf-8"))
    files = sorted(set(places["weight_map"].values()))
    tensor = next(k for k, v in places["weight_map"].items() if v == files[0])
    wrong = {**places, "weight_map": {**places["weight_map"], tensor: files[1]}}
    index.write_text(json.dumps(wrong), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{tensor} is in {files[1]}, which lacks it"):
        load_checkpoint(parts)
    index.write_text(json.dumps(places), encoding="utf-8")
    (parts / files[1]).unlink()
    with pytest.raises(CheckpointError, match=f"{files[1]}, which is not there"):
        load_checkpoint(parts)
    for content in ("{}", '{"weight_map": []}', "[" * 100_000):
        index.write_text(content, encoding="utf-8")
        with pytest.raises(SimpromptError, match=r"index\.json"):
            load_checkpoint(parts)


# ------------------------------------------------------------------------------- image size


def cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def matrix(n: int, side: int) -> np.ndarray:
    """[side, n]: bicubic resampling of a line with antialiasing, pixel centres at halves."""
    scale = n / side
    wide = max(scale, 1)
    centres = (np.arange(side)[:, None] + 0.5) * scale
    kernel = cubic((np.arange(n)[None] + 0.5 - centres) / wide, -0.5)
    return kernel / kernel.sum(1, keepdims=True)


@pytest.mark.parametrize(("n", "side"), [(4, 6), (4, 8), (7, 12), (12, 7), (14, 24), (5, 5)])
def test_positions_are_interpolated_as_the_formula_says(n, side):
    """open_clip's: bicubic (a = -0.5), antialiased, in float64 by matrices here."""
    torch.manual_seed(n)
    positions = torch.randn(1 + n * n, 5)
    made = interpolated(positions, side)
    grid = positions[1:].double().numpy().reshape(n, n, 5)
    weights = matrix(n, side)
    wanted = np.einsum("ai,bj,ijw->abw", weights, weights, grid).reshape(-1, 5)
    assert torch.equal(made[0], positions[0])
    assert np.abs(made[1:].numpy() - wanted).max() < 1e-5
    # and open_clip's own lines
    image = positions[1:].reshape(1, n, n, -1).permute(0, 3, 1, 2)
    image = F.interpolate(
        image, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    assert torch.equal(made[1:], image.permute(0, 2, 3, 1).reshape(side * side, -1))


def smooth(model: torch.nn.Module) -> None:
    """Positions that change slowly from patch to patch, as trained ones do."""
    table = model.vision_model.embeddings.position_embedding.weight
    n = math.isqrt(len(table) - 1)
    with torch.no_grad():
        table[1:] = interpolated(torch.cat([table[:1], table[1:10]]), n)[1:]


@pytest.mark.parametrize("size", [16, 48, 64])
def test_another_image_size_beside_transformers(folder, tmp_path, size):
    """The same but for the kernel: `transformers` does not antialias, and its cubic has a = -0.75.

    With its kernel in the place of open_clip's the features are equal to 1e-5; with open_clip's
    own, features of positions as smooth as trained ones differ by less than 1 % of their length
    where the image is larger, and by more where it is smaller and antialiasing does something.
    """
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    model = foreign.hf_model(len(vocabulary))
    smooth(model)
    model.save_pretrained(tmp_path)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(folder / file, tmp_path)
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tower = model.vision_model(pixels, interpolate_pos_encoding=True)
        wanted = F.normalize(model.visual_projection(tower.pooler_output), dim=-1)
    clip = load_checkpoint(tmp_path, image_size=size)
    assert clip.config.vision.image_size == clip.preprocess.size == size
    ours = clip.encode_pixels(pixels)
    difference = float((ours - wanted).norm(dim=-1).max())
    assert difference < (0.01 if size > 32 else 0.2)
    trained = load_checkpoint(tmp_path).visual.positional_embedding
    clip.visual.positional_embedding.copy_(interpolated(trained, size // 8, antialias=False))
    assert float((clip.encode_pixels(pixels) - wanted).abs().max()) < 1e-5
    (note,) = clip.notes
    assert f"4 x 4 patches; its positional embedding is interpolated to the {size // 8}" in note


def test_a_checkpoint_trained_at_another_size_than_its_configuration(folder, beside, theirs):
    """Refused with the size it has; taken as it is at that size."""
    key = "vision_model.embeddings.position_embedding.weight"
    trained = interpolated(theirs[key], 6)
    place = beside(theirs | {key: trained})
    with pytest.raises(CheckpointError, match="images of 48 pixels, not 32: choose"):
        load_checkpoint(place)
    clip = load_checkpoint(place, image_size=48)
    assert torch.equal(clip.visual.positional_embedding, trained)
    assert clip.notes == ()
    assert load_checkpoint(place, image_size=32).config.vision.image_size == 32


def test_its_own_size_changes_nothing(folder, whole):
    clip = load_checkpoint(folder, image_size=32)
    assert equal(clip, whole)
    assert clip.notes == ()


@pytest.mark.parametrize("size", [0, 7, 33, -8])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(folder, size):
    with pytest.raises(CheckpointError, match=r"multiple of 8 to --image-size, such as (8|32)\."):
        load_checkpoint(folder, image_size=size)


def test_a_resnets_attention_pool_is_interpolated(tmp_path):
    from simprompt.clip.model import CLIPConfig
    from simprompt.clip.resnet import ResNetConfig
    from simprompt.clip.text import TextConfig
    from simprompt.clip.tokenizer import Tokenizer

    vocabulary = foreign.write_vocabulary(tmp_path)
    tokenizer = Tokenizer(tmp_path / "vocab.json")
    text = TextConfig(len(vocabulary), 20, 64, 1, 1, 16, tokenizer.sot, tokenizer.eot)
    clip = CLIP(CLIPConfig(text, ResNetConfig(64, (1, 1, 1, 1), 8, 4, 16)), tokenizer)
    save_open_clip(clip, tmp_path / "rn")
    larger = load_checkpoint(tmp_path / "rn", image_size=96)
    before = clip.visual.attnpool.positional_embedding
    assert torch.equal(larger.visual.attnpool.positional_embedding, interpolated(before, 3))
    assert larger.encode_pixels(torch.zeros(1, 3, 96, 96)).isfinite().all()
    with pytest.raises(CheckpointError, match="multiple of 32"):
        load_checkpoint(tmp_path / "rn", image_size=100)


def test_our_own_layout_and_the_embedded_clip_take_a_size():
    clip = hub.load_clip("icons", image_size=96)
    own = hub.load_clip("icons")
    assert clip.preprocess.size == 96
    assert clip.source["image_size"] == 96
    step = own.config.vision.patch_size
    assert torch.equal(
        clip.visual.positional_embedding,
        interpolated(own.visual.positional_embedding, 96 // step),
    )


def test_openais_names_at_another_size_need_no_configuration():
    from simprompt.clip.layouts.openai import OPENAI_MODELS, openai_towers, towers_of_shapes

    class Marks:
        sot, eot = 49406, 49407

    shape = next(s for s, name in OPENAI_MODELS.items() if name == "ViT-B-16")
    towers = openai_towers(shape)
    towers.vision["image_size"] = 384
    with torch.device("meta"):
        clip = CLIP(towers.config(Marks, Path("a.pt")), Marks)  # type: ignore[arg-type]
    assert towers_of_shapes(clip.state_dict(), Path("a.pt")) == towers


# ------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("tower", "values"),
    [
        ("vision_config", {"image_size": 1_000_000_000}),
        ("vision_config", {"hidden_size": 4_000_000, "num_attention_heads": 1}),
        ("vision_config", {"num_hidden_layers": 1_000_000_000}),
        ("vision_config", {"num_hidden_layers": 1_000_000_000, "hidden_size": 0,
                           "intermediate_size": 0}),
        ("vision_config", {"patch_size": 0}),
        ("vision_config", {"hidden_size": -48}),
        ("vision_config", {"num_attention_heads": 0}),
        ("vision_config", {"image_size": math.inf}),
        ("text_config", {"max_position_embeddings": 1 << 60}),
        ("text_config", {"intermediate_size": 1 << 50}),
    ],
)  # fmt: skip
def test_a_configuration_larger_than_its_weights_takes_no_memory(
    under_limits, folder, tmp_path, tower, values
):
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    config[tower] |= values
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    result = under_limits("checkpoint", place)
    assert hostile.harmless(result), result
    assert str(place) in result["message"]


def test_configurations_in_configurations(folder, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    (place / "config.json").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        load_checkpoint(place)
    assert sys.getrecursionlimit() < 200_000
