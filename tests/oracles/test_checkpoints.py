"""Checkpoints written by others load here and give the same features, in all three layouts."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import foreign
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from simprompt.clip.checkpoints import _Uninitialised, canonical, load_checkpoint, read_weights
from simprompt.clip.layouts.common import CheckpointError
from simprompt.clip.layouts.open_clip import save_open_clip
from simprompt.clip.layouts.openai import OPENAI_MODELS, openai_towers
from simprompt.clip.model import CLIP

transformers = pytest.importorskip("transformers")

TEXTS = [
    "a photo of a cat.",
    "a centered satellite photo of Highway or Road.",
    "",
    "Café NAÏVE  façade 2024!!",
    "a texture of braided hair, a type of pet, a person doing apply eye makeup, sea or lake",
]


def pictures(count: int = 4) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(32, 32), (50, 36), (31, 64), (128, 90)]
    return [
        Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes[:count]
    ]


CASES = {
    "quick_gelu": {"act": "quick_gelu"},
    "gelu": {"act": "gelu"},
    "wide": {"text": 48, "vision": 64, "heads": 8, "layers": 3, "patch": 16, "joint": 40},
    "narrow mlp": {"act": "gelu", "text_mlp": 100, "vision_mlp": 150},
}


@pytest.fixture(scope="module", params=list(CASES))
def written(request, tmp_path_factory):
    """(folder in Hugging Face's layout, the model that was written)."""
    folder = tmp_path_factory.mktemp("hf")
    vocabulary = foreign.write_vocabulary(folder)
    model = foreign.hf_model(len(vocabulary), **CASES[request.param])
    model.save_pretrained(folder)
    size = model.config.vision_config.image_size
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    processor.save_pretrained(folder)
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder, model


def their_features(folder: Path, model) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised text and image features as `transformers` computes them, end to end."""
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    ids = tokenizer(TEXTS, padding=True, return_tensors="pt")
    pixels = processor(pictures(), return_tensors="pt")
    with torch.no_grad():
        out = model(**ids, **pixels)
    return out.text_embeds, out.image_embeds


def our_features(clip: CLIP) -> tuple[torch.Tensor, torch.Tensor]:
    return clip.encode_texts(TEXTS), clip.encode_images(pictures())


def largest(a, b) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def test_three_layouts_give_the_same_features(written, tmp_path, record_property):
    folder, model = written
    theirs = their_features(folder, model)
    ours = load_checkpoint(folder)
    error = largest(our_features(ours), theirs)
    record_property("largest error", float(error))
    assert error < 1e-5
    assert float(ours.logit_scale) == pytest.approx(4.1)
    # The same weights under OpenAI's names: open_clip's files, and OpenAI's own two forms.
    weights = foreign.openai_names(model.state_dict())
    config = json.dumps(foreign.open_clip_config(model.config))
    tokenizer = (folder / "tokenizer.json").read_bytes()

    def layout(name: str) -> Path:
        other = tmp_path / name
        other.mkdir()
        (other / "open_clip_config.json").write_text(config, encoding="utf-8")
        (other / "tokenizer.json").write_bytes(tokenizer)
        return other

    save_file(weights, str(layout("safetensors") / "open_clip_model.safetensors"))
    torch.save(weights, layout("bin") / "open_clip_pytorch_model.bin")
    torch.save({"state_dict": {"module." + k: v for k, v in weights.items()}, "epoch": 3},
               layout("training") / "epoch.pt")  # fmt: skip
    extra = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(40)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.jit.script(foreign.Tree(weights | extra)).save(layout("jit") / "model.pt")
    for path in (tmp_path / "safetensors", tmp_path / "bin", tmp_path / "training" / "epoch.pt",
                 tmp_path / "jit" / "model.pt"):  # fmt: skip
        other = load_checkpoint(path)
        for key, value in ours.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), (path, key)
    assert largest(our_features(other), theirs) < 1e-5


def test_open_clip_round_trip_is_bit_equal(written, tmp_path):
    ours = load_checkpoint(written[0])
    save_open_clip(ours, tmp_path)
    again = load_checkpoint(tmp_path, name=ours.name)
    assert again.config == ours.config
    for key, value in ours.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert largest(our_features(again), our_features(ours)) == 0
    theirs = foreign.openai_names(written[1].state_dict())
    assert set(read_weights(tmp_path / "open_clip_model.safetensors")) == set(theirs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_prompts_stay_float32(written, dtype):
    ours = load_checkpoint(written[0])
    exact = our_features(ours)
    ours.text.to(getattr(torch, dtype))
    ours.visual.to(getattr(torch, dtype))
    half = our_features(ours)
    assert all(f.dtype == torch.float32 for f in half)
    cosine = min(float((a * b).sum(-1).min()) for a, b in zip(half, exact, strict=True))
    assert cosine > (0.999 if dtype == "bfloat16" else 0.99999)
    prefix = ours.embed_prefix("a photo of a").clone().requires_grad_()
    assert prefix.dtype == torch.float32
    ours.text.encode(prefix, ours.suffixes(["cat", "dog"])).sum().backward()
    assert prefix.grad.dtype == torch.float32
    assert prefix.grad.abs().sum() > 0
    extra = torch.zeros(2, ours.config.vision.width)
    pixels = torch.zeros(1, 3, 32, 32)
    assert ours.visual(pixels, [extra, extra]).dtype == torch.float32


def test_names_are_inverse_for_a_resnet(tmp_path):
    from simprompt.clip.model import CLIPConfig
    from simprompt.clip.resnet import ResNetConfig
    from simprompt.clip.text import TextConfig
    from simprompt.clip.tokenizer import Tokenizer

    vocabulary = foreign.write_vocabulary(tmp_path)
    tokenizer = Tokenizer(tmp_path / "vocab.json")
    text = TextConfig(len(vocabulary), 20, 64, 1, 1, 16, tokenizer.sot, tokenizer.eot)
    vision = ResNetConfig(64, (1, 2, 1, 1), 8, 4, 16)
    clip = CLIP(CLIPConfig(text, vision), tokenizer)
    save_open_clip(clip, tmp_path / "out")
    again = load_checkpoint(tmp_path / "out", name=clip.name)
    assert again.config.vision == vision
    for key, value in clip.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])


# ------------------------------------------------------------------ what is refused


def test_openai_shapes_are_known_and_others_ask_for_a_configuration(tmp_path):
    from simprompt.clip.layouts.openai import towers_of_shapes

    class Marks:
        sot, eot = 49406, 49407

    for shape, name in OPENAI_MODELS.items():
        with torch.device("meta"):
            clip = CLIP(openai_towers(shape).config(Marks), Marks)  # type: ignore[arg-type]
        assert towers_of_shapes(clip.state_dict(), Path(name)) == openai_towers(shape)
        assert clip.config.text.activation == "quick_gelu"
        if name == "ViT-B-16":
            assert sum(p.numel() for p in clip.parameters()) == 149_620_737
            assert (clip.config.vision.heads, clip.config.text.heads) == (12, 8)
        if name == "RN50":
            assert sum(p.numel() for p in clip.parameters()) == 102_007_137
            assert clip.config.vision.heads == 32
    vocabulary = foreign.write_vocabulary(tmp_path)
    small = foreign.openai_names(foreign.hf_model(len(vocabulary)).state_dict())
    torch.save(small, tmp_path / "small.pt")
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json or config\.json"):
        load_checkpoint(tmp_path / "small.pt")


def hf_folder(tmp_path, **config) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"model_type": "siglip"}, "sigmoid loss"),
        ({"model_type": "chinese_clip"}, "BERT"),
        ({"model_type": "llama"}, "'llama', not 'clip'"),
        ({"model_type": "clip", "text_config": {"hidden_act": "relu"}}, "activation is 'relu'"),
        ({"model_type": "clip", "vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps"),
    ],
)
def test_what_is_not_clip_is_refused_with_the_difference(tmp_path, config, match):
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(hf_folder(tmp_path, **config))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"init_logit_bias": -10}, "sigmoid loss"),
        ({"text_cfg": {"hf_model_name": "roberta-base"}}, "roberta-base, not CLIP's causal"),
        ({"text_cfg": {"no_causal_mask": True}}, "not causal"),
        ({"text_cfg": {"pool_type": "last"}}, "pooled by 'last'"),
        ({"vision_cfg": {"timm_model_name": "convnext_base"}}, "timm's convnext_base"),
        ({"vision_cfg": {"no_ln_pre": True}}, "sets no_ln_pre"),
        ({"multimodal_cfg": {}}, "CoCa"),
    ],
)
def test_open_clip_variants_are_refused_with_the_difference(tmp_path, changes, match):
    config = {"embed_dim": 24, "vision_cfg": {}, "text_cfg": {}} | changes
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config}), encoding="utf-8"
    )
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("config.json", {"model_type": "clip", "text_config": {"hidden_size": None}}),
        ("config.json", {"model_type": "clip", "vision_config": 7}),
        ("open_clip_config.json", {"embed_dim": 8, "vision_cfg": {"width": "x"}, "text_cfg": {}}),
        ("open_clip_config.json", {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"width": "x"}}),
    ],
)
def test_a_configuration_of_the_wrong_kind_is_named(tmp_path, file, config):
    (tmp_path / file).write_text(json.dumps(config), encoding="utf-8")
    save_file({"a": torch.zeros(1)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        load_checkpoint(tmp_path)


def test_a_sigmoid_head_is_seen_in_bare_weights():
    with pytest.raises(CheckpointError, match="logit bias"):
        canonical({"logit_bias": torch.zeros(()), "visual.proj": torch.zeros(1)})


def test_loading_draws_no_random_weights():
    before = torch.get_rng_state()
    with _Uninitialised():
        torch.nn.Linear(40, 50)
        torch.nn.init.normal_(torch.empty(9))
    assert torch.equal(torch.get_rng_state(), before)


def test_damaged_files_are_named(tmp_path):
    for name in ("a.pt", "a.safetensors", "a.bin"):
        (tmp_path / name).write_bytes(b"\x93 not weights")
        with pytest.raises(CheckpointError, match=name):
            read_weights(tmp_path / name)
    vocabulary = foreign.write_vocabulary(tmp_path)
    model = foreign.hf_model(len(vocabulary))
    weights = foreign.openai_names(model.state_dict())
    config = foreign.open_clip_config(model.config)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    whole = tmp_path / "open_clip_model.safetensors"
    save_file({k: v for k, v in weights.items() if "ln_final" not in k}, str(whole))
    with pytest.raises(CheckpointError, match="2 tensors are missing"):
        load_checkpoint(tmp_path)
    save_file(weights | {"visual.surplus": torch.zeros(1)}, str(whole))
    with pytest.raises(CheckpointError, match=r"1 tensors are unknown \(visual\.surplus"):
        load_checkpoint(tmp_path)
    save_file(weights | {"positional_embedding": torch.zeros(39, 32)}, str(whole))
    with pytest.raises(CheckpointError, match=r"shape \[39, 32\]"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="no CLIP in a layout"):
        load_checkpoint(tmp_path.parent)
