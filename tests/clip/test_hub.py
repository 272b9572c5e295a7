"""A name becomes a CLIP: from a hub on loopback, from disk, offline, from a path."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from loopback import COMMIT
from simprompt.clip import catalogue, hub
from simprompt.clip.layouts.open_clip import save_open_clip
from simprompt.config import Training
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.prompt.learn import learn
from simprompt.prompt.loading import load_prompt
from simprompt.utils.files.hub_requests import FetchError

REPO = "timm/vit_base_patch16_clip_224.metaclip_400m"
NAME = "ViT-B-16/metaclip_400m"


@pytest.fixture
def served(hub: object, tiny_clip, tmp_path):
    """The loopback hub with a small model where ViT-B/16 is expected."""
    save_open_clip(tiny_clip, tmp_path / "written")
    files = {p.name: p for p in (tmp_path / "written").iterdir()}
    assert "tokenizer.json" in files
    hub.repos[REPO] = files
    return hub


def same_weights(a, b) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_a_name_is_downloaded_once_and_then_read_from_disk(served, tiny_clip, monkeypatch):
    assert catalogue.find("vit-b/16") is catalogue.find("ViT-B-16/openai")
    entry = catalogue.find("vit-b-16/METACLIP_400m")
    assert entry is not None
    assert entry.name == NAME
    assert entry.on_disk() is None
    clip = hub.load_clip(NAME)
    assert clip.name == NAME
    assert same_weights(tiny_clip, clip)
    assert entry.on_disk() is not None
    asked = len(served.log)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert same_weights(hub.load_clip("ViT-B-16/metaclip_400m"), clip)
    assert len(served.log) == asked
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE"):
        hub.load_clip("RN50")


def test_any_repository_and_commit(served, tiny_clip):
    served.repos["me/mine"] = served.repos[REPO]
    assert same_weights(hub.load_clip("hub:me/mine"), tiny_clip)
    assert same_weights(hub.load_clip(f"hub:me/mine@{COMMIT}"), tiny_clip)
    with pytest.raises(FetchError, match="private or gated"):
        hub.load_clip("hub:me/other")
    # only the older weights file, and a tokenizer in two files
    files = dict(served.repos[REPO])
    folder = files["tokenizer.json"].parent
    torch.save({k: v for k, v in read(files).items()}, folder / "open_clip_pytorch_model.bin")
    del files["open_clip_model.safetensors"]
    files["open_clip_pytorch_model.bin"] = folder / "open_clip_pytorch_model.bin"
    served.repos["me/old"] = files
    assert same_weights(hub.load_clip("hub:me/old"), tiny_clip)
    served.repos["me/empty"] = {"README.md": b""}
    with pytest.raises(FetchError, match=r"config\.json of me/empty"):
        hub.load_clip("hub:me/empty")


def test_weights_in_several_files(served, tiny_clip):
    from safetensors.torch import save_file

    files = dict(served.repos[REPO])
    weights, folder = read(files), files["tokenizer.json"].parent
    names = sorted(weights)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        name = f"open_clip_model-0000{number}-of-00002.safetensors"
        save_file({k: weights[k] for k in part}, folder / name)
        files[name] = folder / name
        places |= dict.fromkeys(part, name)
    del files["open_clip_model.safetensors"]
    index = "open_clip_model.safetensors.index.json"
    files[index] = json.dumps({"weight_map": places}).encode()
    served.repos["me/parts"] = files
    assert same_weights(hub.load_clip("hub:me/parts"), tiny_clip)
    places[names[0]] = "../../../../outside.safetensors"
    served.repos["me/harm"] = files | {index: json.dumps({"weight_map": places}).encode()}
    asked = len(served.log)
    with pytest.raises(SimpromptError, match="no file below its folder"):
        hub.load_clip("hub:me/harm")
    assert not any("outside" in path for _, path, _ in served.log[asked:])


def read(files) -> dict:
    from safetensors.torch import load_file

    return load_file(str(files["open_clip_model.safetensors"]))


def test_paths_and_unknown_names(tiny_clip, tiny_tokenizer, tmp_path):
    save_open_clip(tiny_clip, tmp_path / "foreign")
    assert same_weights(hub.load_clip(tmp_path / "foreign"), tiny_clip)
    file = tmp_path / "foreign" / "open_clip_model.safetensors"
    assert same_weights(hub.load_clip(str(file)), tiny_clip)
    hub.save(tiny_clip, tmp_path / "own")
    shutil.copy(tiny_tokenizer, tmp_path / "own" / "tokenizer.json")
    assert same_weights(hub.load_clip(tmp_path / "own"), tiny_clip)
    (tmp_path / "foreign" / "tokenizer.json").unlink()
    with_other = hub.load_clip(tmp_path / "foreign", tokenizer=tiny_tokenizer)
    assert with_other.tokenizer.encode("a cat") == tiny_clip.tokenizer.encode("a cat")
    with pytest.raises(SimpromptError, match=r"Did you mean 'ViT-B-16/openai'"):
        hub.load_clip("ViT-B-16/openay")
    with pytest.raises(SimpromptError, match="no dtype 'int8'"):
        hub.load_clip("icons", dtype="int8")


def test_a_prompt_remembers_the_path_of_its_model(tiny_clip, tiny_tokenizer, tmp_path, monkeypatch):
    save_open_clip(tiny_clip, tmp_path / "ViT-B-16")  # a name that the hub has as well
    (tmp_path / "ViT-B-16" / "tokenizer.json").unlink()
    monkeypatch.chdir(tmp_path)
    clip = hub.load_clip("./ViT-B-16", tokenizer=tiny_tokenizer)
    colours = Split(("red", "blue"), (0, 1), ("cat", "dog"), lambda c: Image.new("RGB", (9, 9), c))
    prompt = learn(clip, colours, training=Training(epochs=1))
    prompt.save("prompt")
    monkeypatch.chdir("/")
    again = load_prompt(tmp_path / "prompt")
    assert torch.equal(again.text_features(["fish"]), prompt.text_features(["fish"]))


def test_run_takes_a_tokenizer(tiny_clip, tiny_tokenizer, tmp_path, monkeypatch):
    from simprompt.cli.main import app

    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    save_open_clip(tiny_clip, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    arguments = [
        "run", "--model", str(tmp_path / "bare"), "--dataset", "icons/places", "--method",
        "zero-shot", "--seeds", "1", "--max-test-per-class", "1", "--json",
        "--out", str(tmp_path / "runs"),
    ]  # fmt: skip
    with pytest.raises(SimpromptError, match="--tokenizer FILE"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    found = CliRunner().invoke(app, [*arguments, "--tokenizer", str(tiny_tokenizer)])
    assert found.exit_code == 0, found.output
    (settings,) = json.loads(found.stdout)["settings"].values()
    assert settings["tokenizer"] == str(tiny_tokenizer)


def test_a_damaged_own_layout_and_a_wrong_tokenizer_are_named(tiny_clip, tiny_tokenizer, tmp_path):
    own = tmp_path / "own"
    hub.save(tiny_clip, own)
    shutil.copy(tiny_tokenizer, own / "tokenizer.json")
    config, weights = own / "model.json", own / "model.safetensors"
    for file, damage in (
        (config, b"nonsense"), (config, b"{}"), (weights, weights.read_bytes()[:999]),
    ):  # fmt: skip
        before = file.read_bytes()
        file.write_bytes(damage)
        with pytest.raises(SimpromptError, match="not a CLIP in simprompt's own layout"):
            hub.load_clip(own)
        file.write_bytes(before)
    (own / "tokenizer.json").unlink()
    assert same_weights(hub.load_clip(own, tokenizer=tiny_tokenizer), tiny_clip)
    for name in (own, "icons"):
        with pytest.raises(SimpromptError, match="no tokenizer at"):
            hub.load_clip(name, tokenizer=tmp_path / "missing.json")
        with pytest.raises(SimpromptError, match="not a tokenizer file"):
            hub.load_clip(name, tokenizer=weights)


def test_devices_and_repositories_that_are_none():
    with pytest.raises(SimpromptError, match="device 'gpu9'"):
        hub.load_clip("icons", device="gpu9")
    for name in ("hub:", "hub:word", "hub:a/b/c", "hub:../../b"):
        with pytest.raises(SimpromptError, match="names no repository"):
            hub.load_clip(name)


def test_half_precision_keeps_the_logit_scale(tiny_clip, tmp_path):
    save_open_clip(tiny_clip, tmp_path)
    clip = hub.load_clip(tmp_path, dtype="bfloat16")
    assert clip.visual.projection.dtype == torch.bfloat16
    assert clip.logit_scale.dtype == torch.float32
    assert clip.scale == tiny_clip.scale


def test_the_catalogue(hub):
    entries = catalogue.models()
    names = [e.name for e in entries]
    assert len(set(names)) == len(names)
    for family in ("RN50/openai", "RN101/openai", "RN50x4/openai", "RN50x16/openai",
                   "RN50x64/openai", "ViT-B-32/openai", "ViT-B-16/metaclip_400m", "ViT-L-14/openai",
                   "ViT-L-14-336/openai", "ViT-H-14/laion2b_s32b_b79k",
                   "ViT-B-16/datacomp_xl_s13b_b90k", "ViT-B-16/metaclip_400m",
                   "ViT-B-16/dfn2b"):  # fmt: skip
        assert family in names
    assert any(n.startswith("TinyCLIP") for n in names)
    assert catalogue.find("ViT-L/14@336px").name == "ViT-L-14-336/openai"
    assert catalogue.find("ViT-Z") is None
    assert all(e.layout in catalogue.FILES and e.licence and e.image_size for e in entries)


def test_models_list(served):
    from simprompt.cli.main import app

    run = CliRunner().invoke
    shown = run(app, ["list", "models"])
    assert shown.exit_code == 0
    line = next(x for x in shown.output.splitlines() if x.startswith(NAME))
    assert "150 M" in line
    assert "224" in line
    assert "CC-BY-NC-4.0" in line
    assert REPO in line
    assert not line.rstrip().endswith("yes")
    got = run(app, ["download", "ViT-B-16/metaclip_400m"])
    assert got.exit_code == 0, got.output
    assert "SHA-256" in got.output
    rows = {r["name"]: r for r in json.loads(run(app, ["list", "models", "--json"]).stdout)}
    assert rows[NAME]["on_disk"]
    assert not rows["RN50/openai"]["on_disk"]
    assert rows["icons"]["on_disk"]


def test_image_size_is_part_of_runs_prompts_and_features(tmp_path, monkeypatch):
    """`run --image-size` makes another run with other features; a prompt and `learn` keep it."""
    from simprompt.cli.main import app
    from simprompt.data import catalogue
    from simprompt.features import digests

    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    arguments = [
        "run", "--dataset", "icons/places", "--method", "coop", "--sar", "off", "--seeds", "1",
        "--max-test-per-class", "1", "--json", "--out", str(tmp_path / "runs"),
        "--set", "training.epochs=1", "--shots", "1",
    ]  # fmt: skip
    documents = []
    for more in ([], ["--image-size", "48"], ["--image-size", "96"]):
        made = CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False)
        assert made.exit_code == 0, made.output
        documents.append(json.loads(made.stdout))
    own, same, other = (next(iter(d["settings"].values())) for d in documents)
    assert (own["image_size"], same["image_size"], other["image_size"]) == (None, 48, 96)
    folders = sorted(p.parent for p in (tmp_path / "runs").rglob("result.json"))
    assert len(folders) == 2  # the model's own size is no other run
    results = [json.loads((f / "result.json").read_text(encoding="utf-8")) for f in folders]
    (folder,) = (f for f, r in zip(folders, results, strict=True) if r["config"]["image_size"])
    (result,) = (r for r in results if r["config"]["image_size"])
    assert any("interpolated to the" in warning for warning in result["warnings"])
    prompt = load_prompt(folder)
    assert prompt.clip.config.vision.image_size == 96
    assert prompt.card["image_size"] == 96
    assert any("interpolated" in note for note in prompt.card["notes"])
    with pytest.raises(SimpromptError):
        load_prompt(folder, hub.load_clip("icons"))
    test = catalogue.load("icons/places").all.test
    places = {digests.features_folder(clip, test) for clip in (hub.load_clip("icons"), prompt.clip)}
    assert len(places) == 2
    with pytest.raises(SimpromptError, match="use --image-size 96"):
        CliRunner().invoke(app, [*arguments, "--set", "image_size=96"], catch_exceptions=False)


def test_commands_tell_notes_on_stderr(tiny_clip, tmp_path):
    from safetensors.torch import load_file, save_file

    from simprompt.cli.main import app

    save_open_clip(tiny_clip, tmp_path)
    weights = tmp_path / "open_clip_model.safetensors"
    save_file(load_file(weights) | {"head.bias": torch.zeros(2)}, weights)
    shown = CliRunner().invoke(app, ["show", str(tmp_path), "--image-size", "32"])
    assert shown.exit_code == 0, shown.output
    notes = [line for line in shown.stderr.splitlines() if line.startswith("simprompt: ")]
    assert len(notes) == 2
    assert "head.bias" in notes[0]
    assert "interpolated to the 4 x 4" in notes[1]
    assert json.loads(shown.stdout[shown.stdout.index("{") :])["vision"]["image_size"] == 32
    twice = CliRunner().invoke(app, ["show", str(tmp_path), "--model", "icons"])
    assert isinstance(twice.exception, SimpromptError)


def test_the_list_has_parameters_and_whole_pins():
    """TinyCLIP's names say the millions of both towers' transformers; the sum agrees with them."""
    from simprompt.clip import catalogue

    for entry in catalogue.models():
        assert entry.parameters > 20e6
        assert entry.revision == "main" or re.fullmatch("[0-9a-f]{40}", entry.revision)
        assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in entry.sha256.values())
        assert entry.revision != "main" or not entry.sha256
        if towers := re.match(r"TinyCLIP-ViT-(\d+)M-\d+-Text-(\d+)M", entry.name):
            image, text = (int(m) * 1e6 for m in towers.groups())
            words = entry.parameters - image - text  # what is left is the token embedding
            width = 256 * round(text**0.5 / 2500) if image < 10e6 else 640 if image > 60e6 else 512
            assert abs(words - 49408 * max(width, 256)) < 1.5e6
    assert sum(entry.revision != "main" for entry in catalogue.models()) >= 16


def test_other_weights_than_the_pinned_ones_are_refused(hub, tmp_path, make_clip):
    from simprompt.clip import catalogue
    from simprompt.clip.layouts.open_clip import save_open_clip

    save_open_clip(make_clip(), tmp_path / "written")
    hub.repos["own/clip"] = {p.name: p for p in (tmp_path / "written").iterdir()}
    folder = catalogue.download("own/clip", "open_clip")
    name = "open_clip_model.safetensors"
    right = (folder / name).resolve().name
    assert catalogue.download("own/clip", "open_clip", sha256={name: right}) == folder
    with pytest.raises(FetchError, match="other weights"):
        catalogue.download("own/clip", "open_clip", sha256={name: "0" * 64})
