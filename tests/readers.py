"""Everything of simprompt that reads what others wrote: for each a few right inputs, and the call.

An input is a dictionary of file names and contents; a reader is given the folder that holds them.
The one file of an input that is no file but an argument is called `text`.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
import os
import random
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save, save_file

import hostile
import pickles
import requested
from damage import Files, damaged
from oracles.foreign import hf_model, open_clip_config, openai_names, write_vocabulary
from report.synthetic import write_runs
from simprompt import methods, recipes
from simprompt.clip import hub
from simprompt.clip.checkpoints import canonical, load_checkpoint, read_weights
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.parts import files_of
from simprompt.clip.pickled import read_pickled
from simprompt.clip.resnet import ResNetConfig
from simprompt.clip.tokenizer import Tokenizer
from simprompt.data import coop
from simprompt.data.catalogue import listed
from simprompt.data.images import check_image, inspect_image
from simprompt.data.names import overrides, read_names
from simprompt.data.own_images import folder
from simprompt.experiments.store import read_runs
from simprompt.features.digests import CODE
from simprompt.features.store import Store
from simprompt.novel.endpoint import decode
from simprompt.novel.llm import _read as read_stored
from simprompt.novel.names import hash_names
from simprompt.novel.parsing import message_text, parse_names
from simprompt.novel.sources import novel_names
from simprompt.prompt import storage
from simprompt.prompt.loading import load_prompt
from simprompt.prompt.sklearn import PromptClassifier
from simprompt.report import published, tables, words
from simprompt.studies.tuning import parse_grid
from simprompt.utils.checkpoint import Checkpoint, keys_in
from simprompt.utils.environ import seconds
from simprompt.utils.files.archive import top_level, unpack
from simprompt.utils.files.atomic import checksum
from simprompt.utils.files.hub_requests import FetchError

NAMES = ("cat", "red panda", "Zebra crossing", "oak")
KEYS = ["a/1", "a/2", "b/3"]


@dataclass(frozen=True)
class Reader:
    """What reads one kind of input.

    Attributes:
        name: for tables and the corpus.
        seeds: right inputs, made once.
        read: the call; it may raise SimpromptError and nothing else.
        make: an input by a grammar; none: right inputs are damaged.
        damage: which part of the inputs are damaged right ones where there is a grammar.
        share: how many times the others' time it gets.
    """

    name: str
    seeds: Callable[[], list[Files]]
    read: Callable[[Path], object]
    make: Callable[[random.Random], Files] | None = None
    damage: float = 0.3
    share: int = 1

    def input(self, seeds: list[Files], rng: random.Random) -> Files:
        """An input by chance, of these right inputs or of the grammar."""
        if self.make is not None and rng.random() >= self.damage:
            return self.make(rng)
        return damaged(rng.choice(seeds), rng)


def below(place: Path) -> Files:
    """The files of a folder by their paths in it."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def written(*fillers: Callable[[Path], object]) -> list[Files]:
    """What each of these writes into a folder of its own."""
    made = []
    for fill in fillers:
        with tempfile.TemporaryDirectory() as place:
            fill(Path(place))
            made.append(below(Path(place)))
    return made


def text_of(place: Path) -> str:
    """An argument, as Python makes it of a command line."""
    with suppress(FileNotFoundError):
        return (place / "text").read_bytes().decode("utf-8", errors="surrogateescape")
    return ""


def argument(name: str, texts: list[str], read: Callable[[str], object]) -> Reader:
    """A reader of an argument."""
    return Reader(
        name, lambda: [{"text": text.encode()} for text in texts], lambda at: read(text_of(at))
    )


@cache
def icons() -> CLIP:
    return load_clip("icons")


# ---------------------------------------------------------------------------- files that arrive


def archives() -> list[Files]:
    members = {"d/split.json": b'{"train": []}', "d/images/a.jpg": b"\xff\xd8" + bytes(40),
               "d/long" + "e" * 120: b"x", "__MACOSX/a": b"y"}  # fmt: skip
    made: list[Files] = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as file:
            for name, contents in members.items():
                file.writestr(name, contents)
        made.append({"a.zip": out.getvalue()})
    for mode, suffix in (("", "tar"), ("gz", "tgz"), ("bz2", "tbz"), ("xz", "txz")):
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode=f"w:{mode}", format=form) as tarred:  # type: ignore[call-overload]
                for name, contents in members.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(contents)
                    tarred.addfile(member, io.BytesIO(contents))
            made.append({f"a.{suffix}": out.getvalue()})
    return made


def read_archive(place: Path) -> None:
    for path in place.iterdir():
        with suppress(FetchError):
            top_level(path)
        unpack(path, place / "out", max_bytes=1 << 26)


def images() -> list[Files]:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    sixteen = Image.fromarray(rng.integers(0, 65536, (6, 5)).astype(np.uint16))
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("png", colours, {}), ("png", sixteen, {}), ("png", colours.convert("P"), {}),
        ("png", colours.convert("LA"), {"dpi": (72, 72)}), ("png", colours.convert("1"), {}),
        ("jpg", colours, {"exif": exif}), ("jpg", colours, {"progressive": True}),
        ("jpg", colours.convert("CMYK"), {}), ("gif", colours, {}),
        ("gif", colours, {"save_all": True, "append_images": [colours.rotate(90)]}),
        ("webp", colours, {"exif": exif}), ("webp", colours, {"lossless": True}),
        ("bmp", colours, {}), ("tiff", colours, {}), ("tiff", sixteen, {}),
        ("tiff", colours, {"compression": "tiff_lzw"}), ("ppm", colours, {}),
        ("tiff", Image.fromarray(rng.random((4, 5), dtype=np.float32)), {}),
        ("png", colours, {"save_all": True, "append_images": [colours.rotate(90)]}),
    ]  # fmt: skip
    made = []
    for suffix, image, more in kinds:
        out = io.BytesIO()
        form = {"jpg": "JPEG"}.get(suffix, suffix.upper())
        image.save(out, form, **more)
        made.append({f"a.{suffix}": out.getvalue()})
    return made


def read_picture(path: Path) -> None:
    check_image(path)
    inspect_image(path, upright=True)


# ---------------------------------------------------------------------------- datasets


def splits() -> list[Files]:
    rows = [[f"{name}/{i}.jpg", label, name.lower()] for label, name in enumerate(NAMES)
            for i in range(2)]  # fmt: skip
    return [{"split.json": json.dumps({p: rows for p in ("train", "val", "test")}).encode()}]


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(out, "PNG")
    return out.getvalue()


def own_images() -> list[Files]:
    picture = png()
    shown = {f"i/{i}.png": picture + bytes([i]) for i in range(4)}
    rows = [(f"i/{i}.png", NAMES[i % 2], ("train", "test")[i // 2]) for i in range(4)]
    lines = ["image,label,split", *(",".join(row) for row in rows)]
    objects = [{"file_name": f, "label": n, "split": s} for f, n, s in rows]
    coco = {
        "images": [{"id": i, "file_name": row[0]} for i, row in enumerate(rows)],
        "annotations": [{"id": i, "image_id": i, "category_id": i % 2} for i in range(4)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "red panda"}],
    }
    return [
        {"labels.csv": "\n".join(lines).encode(), **shown},
        {"labels.tsv": "\n".join(lines).replace(",", "\t").encode("utf-16"), **shown},
        {"labels.txt": "\n".join(f"{f} {i % 2}" for i, (f, _, _) in enumerate(rows)).encode(),
         **shown},
        {"labels.json": json.dumps(objects).encode(), **shown},
        {"metadata.jsonl": "\n".join(map(json.dumps, objects)).encode(), **shown},
        {"coco.json": json.dumps(coco).encode(), **shown},
        {"cat/0.png": picture, "cat/1.png": picture + b"1", "dog/0.png": picture + b"2",
         "dog/1.png": picture + b"3", "names.txt": b"cat = tom cat\ndog = dog\n"},
    ]  # fmt: skip


def parquet() -> list[Files]:
    with suppress(ImportError):
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({
            "image": [{"bytes": png(), "path": f"{i}.png"} for i in range(4)],
            "label": [0, 1, 0, 1],
        })  # fmt: skip
        out = io.BytesIO()
        pyarrow.parquet.write_table(table, out)
        return [{"data.parquet": out.getvalue()}]
    return []


def read_own_images(place: Path) -> None:
    named = place / "names.txt"
    folder.load(place, names=named if named.exists() else None)


def lists_of_names() -> list[Files]:
    return [{"names.txt": b"# names\ncat\nred_panda\n\n01_Zebra crossing\noak\n"}]


def other_names() -> list[Files]:
    named = json.dumps(dict.fromkeys(NAMES, "cat")).encode()
    return [{"names.txt": b"cat = tom cat\nred_panda=panda\n# no\n"}, {"names.json": named}]


def each(read: Callable[[Path], object]) -> Callable[[Path], None]:
    """Reads every file of an input."""

    def call(place: Path) -> None:
        for path in sorted(place.iterdir()):
            read(path)

    return call


# ---------------------------------------------------------------------------- novel names


def novel_lists() -> list[Files]:
    value = {"names": [*NAMES, "dog", "elm"], "provenance": {"model": "m", "date": "2026-01-01"}}
    return [
        {"names.txt": b"# names\ndog\nelm # a tree\nbeech\n"},
        {"names.json": json.dumps(value).encode()},
        {"names.json": json.dumps(value["names"]).encode()},
    ]


def stored_lists() -> list[Files]:
    names = ["dog", "elm", "beech"]
    value = {"names": names, "sha256": hash_names(names), "provenance": {"model": "m", "calls": 1}}
    return [{"list.json": json.dumps(value).encode()}]


def answers() -> list[Files]:
    said = ['["dog", "elm"]', '{"names": ["dog", "elm"]}', "1. dog\n2. elm (a tree)\n- beech",
            '```json\n{"names": [{"name": "dog"}]}\n```', "Sure: dog, elm, beech."]  # fmt: skip
    made = [{"text": text.encode()} for text in said]
    for text in said:
        body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        made.append({"answer.json": json.dumps(body).encode()})
    return made


def read_answer(place: Path) -> None:
    for path in place.iterdir():
        body = decode(path.read_bytes())
        parse_names(message_text(body) if path.suffix else body)


SPECS = ["bundled:10+wordnet[depth=6]:5", "file:names.txt:80", "random-nouns[pool=all]:7",
         "oracle", "vocabulary:3", "wordnet", "none", "llm[model=m]:5",
         "bundled+random-nouns:3"]  # fmt: skip


def read_spec(text: str) -> None:
    novel_names(text, ["cat", "dog", "horse"], dataset="icons/animals", new=["cow", "bee"],
                store=Path(tempfile.gettempdir()) / "no lists")  # fmt: skip


# ---------------------------------------------------------------------------- settings


def all_recipes() -> list[Files]:
    place = Path(recipes.__file__).parent
    return [{"r.yaml": path.read_bytes()} for path in sorted(place.glob("*.yaml"))]


def read_recipe(place: Path) -> None:
    path = str(place / "r.yaml")
    values = recipes.load(path)
    for sar in (False, True):
        recipes.build(values, sar, dataset="icons/animals", model="icons", seed=1)
    recipes.of_run(recipes.method_of(path), "icons", path)


SETTINGS = ["training.lr=0.01", "sar.weight=0.2", "options.n_ctx=16", "training.max_steps=200",
            "sar.novel=wordnet:20", "template=a photo of a {}.", "seed=3", "training.views=random",
            "options.position=middle", "sar.temperature=0.07\nlr=0.1\nshots=4"]  # fmt: skip


def read_settings(text: str) -> None:
    values = recipes.assign({}, text.split("\n"))
    for method in ("coop", "promptsrc"):
        recipes.build(values, True, dataset="icons/animals", model="icons", method=method)


def read_grid(text: str) -> None:
    for point in parse_grid(text.split("\n"))[:3]:
        recipes.build(recipes.assign({}, point), True, dataset="icons/animals", model="icons")


def read_seconds(text: str) -> None:
    with suppress(ValueError):  # of the system: a null byte, or half a surrogate pair
        os.environ["SIMPROMPT_CHECKPOINT_EVERY"] = text
    try:
        seconds("SIMPROMPT_CHECKPOINT_EVERY", 1.0)
    finally:
        os.environ.pop("SIMPROMPT_CHECKPOINT_EVERY", None)


# ---------------------------------------------------------------------------- results


def results() -> list[Files]:
    def some(place: Path) -> None:
        write_runs(place, {"toys/cups": 4}, seeds=(1,))

    (made,) = written(some)
    return [{name: contents for name, contents in made.items() if name.endswith("result.json")}]


def read_results(place: Path) -> None:
    found = read_runs([place])
    shown = [*tables.tables(found, per_seed=True), *published.tables(found)]
    for form in ("text", "markdown", "latex"):
        tables.written(shown, form)
    tables.as_csv(found, per_seed=True)
    json.loads(tables.as_json(found, published=published.records(found)))
    words.notes(found)
    words.explanation(found)


# ---------------------------------------------------------------------------- prompts, models


def learned(method: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    kind = methods.find(method)
    learner = kind(icons(), NAMES, "an icon of a {}.", kind.Config(), 1)
    card = {
        "format": storage.FORMAT, "method": method, "options": learner.config.model_dump(),
        "model": "icons", "classnames": list(NAMES), "new_classes": ["dog"],
        "template": "an icon of a {}.", "seed": 1, "shots": 4, "code": CODE,
        "calibration": {
            "temperature": 1.5, "images": 4, "source": "val", "ece_before": 9.0, "ece_after": 3.0,
            "unknown": 0.3, "known_kept": 95.0, "unknown_refused": 60.0,
        },
        "metrics": {"known": {"prompt": 75.0}}, "upright": True, "dataset": "photos", "sar": None,
    }  # fmt: skip
    return {k: v.clone() for k, v in learner.state_dict().items()}, card


def prompts() -> list[Files]:
    made = []
    for method in ("coop", "kgcoop", "maple", "cocoop", "tcp"):
        state, card = learned(method)
        files = {"prompt.safetensors": save(state), "card.json": json.dumps(card).encode()}
        made.append(files)
    made += written(lambda place: storage.write(place / "p", *learned("coop")))
    return made


@cache
def _saved_prompt(method: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return learned(method)


ODD_VALUES = (
    None, True, 0, -1, 2**31, 2**64, 0.5, 1e308, float("nan"), float("inf"), "", " ", "0", "nan",
    "{}", "{", "a {} {}", "{0}", "{x}", "x" * 3000, "\ud800", "\x00", "../..", "/dev/zero",
    "hf://a/b", "C:\\a", "ViT-B-16/openai", "icons", "dept", [], [""], ["cat"] * 3, [1, None],
    [["cat"]], ["cat", "Cat"], ["x" * 3000], ["\ud800"], {}, {"a": 1}, {"temperature": 0}, [{}],
)  # fmt: skip


def made_prompt(rng: random.Random) -> Files:
    """A prompt whose checksum is right: odd values at any depth of its card, odd tensors."""
    state, card = _saved_prompt(rng.choice(("coop", "kgcoop", "maple", "cocoop", "tcp", "dept")))
    state, card = dict(state), json.loads(json.dumps(card))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        holder = card
        key = rng.choice(sorted(holder))
        while isinstance(holder[key], dict) and holder[key] and rng.random() < 0.7:
            holder = holder[key]
            key = rng.choice(sorted(holder))
        if rng.random() < 0.15:
            del holder[key]
        elif rng.random() < 0.1:
            holder[key] = rng.choice(sorted(map(str, holder)))
        else:
            holder[key] = deepcopy(rng.choice(ODD_VALUES))
    if rng.random() < 0.4:
        name = rng.choice(sorted(state))
        tensor = state[name]
        state[name] = rng.choice((
            lambda: tensor.half(), lambda: tensor.double(), lambda: tensor.to(torch.int64),
            lambda: tensor.bfloat16(), lambda: tensor[:0], lambda: tensor.flatten(),
            lambda: tensor[None], lambda: torch.full_like(tensor, rng.choice((math.nan, 1e38))),
            lambda: torch.cat([tensor, tensor]), lambda: torch.zeros(()),
        ))().contiguous()  # fmt: skip
        if rng.random() < 0.2:
            state[rng.choice(("x", "", "logit_scale", "ctx"))] = state.pop(name)
    weights = save(state)
    card["checksum"] = checksum(weights)
    return {"prompt.safetensors": weights, "card.json": json.dumps(card).encode()}


def read_prompt(place: Path) -> None:
    at = place / "p" if (place / "p").is_dir() else place
    prompt = load_prompt(at, icons())
    prompt.predict(Image.new("RGB", (8, 8), "red"))
    repr(prompt)
    prompt._repr_html_()
    storage.page(prompt.card)


@cache
def _classifier() -> Files:
    shades = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "white", "black")]
    made = PromptClassifier(training={"epochs": 1}, new_classes=["teapot"])
    made.fit(shades, ["red", "blue", "red", "blue"])
    return written(lambda place: made.save(place / "c"))[0]


def read_classifier(place: Path) -> None:
    made = PromptClassifier.load(place / "c")
    made.predict([Image.new("RGB", (8, 8), "red")])
    repr(made)


def _folder_of_hugging_face(place: Path) -> None:
    vocabulary = write_vocabulary(place)
    model = hf_model(len(vocabulary), text=16, vision=16, heads=2, layers=1, joint=8, context=20)
    model.save_pretrained(place)


def _folder_of_open_clip(place: Path) -> None:
    vocabulary = write_vocabulary(place)
    model = hf_model(len(vocabulary), text=16, vision=16, heads=2, layers=1, joint=8, context=20)
    (place / "open_clip_config.json").write_text(
        json.dumps(open_clip_config(model.config)), encoding="utf-8"
    )
    save_file(openai_names(model.state_dict()), str(place / "open_clip_model.safetensors"))


def _pickled(place: Path) -> None:
    _folder_of_hugging_face(place)
    file = place / "model.safetensors"
    torch.save(load_file(file), place / "pytorch_model.bin")
    file.unlink()


@cache
def checkpoints() -> list[Files]:
    return written(_folder_of_hugging_face, _folder_of_open_clip, _pickled)


def _own_layout(place: Path) -> None:
    with tempfile.TemporaryDirectory() as other:
        _folder_of_hugging_face(Path(other))
        clip = load_checkpoint(other)
    hub.save(clip, place)
    clip.tokenizer.fast.save(str(place / "tokenizer.json"))


def _own_resnet(place: Path) -> None:
    _own_layout(place)
    text = hub.load(place).config.text
    vision = ResNetConfig(32, (1, 1, 1, 1), 8, 4, text.embed_dim)
    words = Tokenizer.find(place, text.vocab_size)
    hub.save(CLIP(CLIPConfig(text, vision), words, "small"), place)


@cache
def own_models() -> list[Files]:
    return written(_own_layout, _own_resnet)


def read_clip(place: Path) -> None:
    clip = load_clip(place)
    clip.encode_texts(["a photo of a cat"])
    clip.encode_images([Image.new("RGB", (9, 7), "red")])


@cache
def weights() -> list[Files]:
    tensors = {"visual.weight": torch.ones(2, 3), "visual.b": torch.zeros(4, dtype=torch.float16)}
    made: list[Files] = [{"m.safetensors": save(tensors)}]
    for zipped in (True, False):
        for content in (tensors, {"state_dict": tensors, "epoch": 3, "args": {"lr": 0.1}}):
            out = io.BytesIO()
            torch.save(content, out, _use_new_zipfile_serialization=zipped)
            made.append({"m.pt": out.getvalue()})
    fine = hostile.state_dict({"visual.w": hostile.view((2, 2), (2, 1))})
    made += [{"m.pt": hostile.archive(fine)}, {"m.pt": hostile.row(fine, ["0"], 4)}]
    return made


def hostile_pickle(rng: random.Random) -> Files:
    if rng.random() < 0.6:
        return {"m.pt": pickles.hostile(rng)}
    return damaged({"m.pt": pickles.right(rng)[0]}, rng)


def read_right_pickle(place: Path) -> None:
    """The input is a number, and the file follows from it: torch may read it."""
    data, wanted = pickles.right(random.Random(text_of(place)))
    path = place / "a.pt"
    path.write_bytes(data)
    read = read_pickled(path)
    assert read.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert pickles.same_bits(read[name], tensor), f"{name} is not what torch reads"


@cache
def tokenizers() -> list[Files]:
    (pair,) = written(write_vocabulary)
    merges = b"#version\n" + b"\n".join(pair["merges.txt"].splitlines()[1:])

    def whole(place: Path) -> None:
        icons().tokenizer.save(place)

    return [pair, {"bpe_simple_vocab_16e6.txt.gz": gzip.compress(merges)}, *written(whole)]


def read_tokenizer(place: Path) -> None:
    Tokenizer(next(iter(sorted(place.iterdir())), place)).encode("a photo of a café")
    Tokenizer.find(place).encode("two cats")


def indexes() -> list[Files]:
    value = {"metadata": {"total_size": 40}, "weight_map": {"a": "m-1.bin", "b": "m-2.bin"}}
    return [{"m.bin.index.json": json.dumps(value).encode()}]


# ---------------------------------------------------------------------------- requests


@cache
def served() -> Callable[[dict[str, Any], bytes], Any]:
    """The server's application in this process; its answer to a request."""
    from simprompt.deploy.engine import Engine
    from simprompt.deploy.server import Limits, app

    state, card = learned("coop")
    with tempfile.TemporaryDirectory() as place:
        storage.write(Path(place) / "p", state, card)
        engine = Engine([load_prompt(Path(place) / "p", icons())])
    limits = Limits(bytes=400_000, pixels=50_000, images=3, names=20, seconds=5)
    api, loop = app(engine, limits), asyncio.new_event_loop()
    life = api.router.lifespan_context(api)
    loop.run_until_complete(life.__aenter__())
    return lambda about, body: loop.run_until_complete(requested.ask(api, about, body))


def some_requests() -> list[Files]:
    rng = random.Random(0)
    return [requested.request(rng) for _ in range(30)]


def read_request(place: Path) -> None:
    """Every answer has a status below 500, and what is refused has one sentence."""
    try:
        about = json.loads((place / "request.json").read_bytes())
        body = (place / "body").read_bytes()
        cuts = [min(max(int(cut), 0), len(body)) for cut in about["cuts"]]
        headers = [[str(k).encode("latin-1", "replace").decode("latin-1"),
                    str(v).encode("latin-1", "replace").decode("latin-1")]
                   for k, v in about["headers"]]  # fmt: skip
        path = str(about["path"]).encode("utf-8", "replace").decode()
        about = {"method": str(about["method"]), "path": path, "headers": headers,
                 "cuts": sorted(cuts), "leaves": bool(about["leaves"])}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return  # damage left no request
    status, _, answer = served()(about, body)
    if status is None:
        assert about["leaves"], "no answer"
        return
    assert status < 500, f"status {status}"
    if status >= 400 and about["method"] != "HEAD":
        detail = json.loads(answer)["detail"]
        assert isinstance(detail, str)
        assert 0 < len(detail) <= 1100


# ---------------------------------------------------------------------------- what we kept


def trainings() -> list[Files]:
    state = {"step": 3, "names": ["a", None], "more": {"x": torch.ones(2), "y": [1.5, "b"]},
             "random": torch.zeros(4, dtype=torch.uint8)}  # fmt: skip
    return written(lambda place: Checkpoint(place / "t", ["a"]).write(state))


def read_training(place: Path) -> None:
    keys_in(place / "t")
    Checkpoint(place / "t", ["a"]).read()


def shards() -> list[Files]:
    return written(lambda at: Store(at).add({key: torch.ones(1, 3) for key in KEYS}))


def read_shards(place: Path) -> None:
    store = Store(place)
    if store.known(KEYS) >= set(KEYS):
        store.gather(KEYS)


READERS = (
    Reader("archives", archives, read_archive),
    Reader("images", images, each(read_picture)),
    Reader("split files", splits, lambda at: coop._read_split(at / "split.json", [
        name.lower() for name in NAMES])),
    Reader("folders of images", own_images, read_own_images),
    Reader("tables of images", lambda: [
        {k: v for k, v in files.items() if "." in k and "/" not in k}
        for files in own_images()[:6]
    ], each(folder.load)),
    Reader("parquet", parquet, each(folder.load)),
    Reader("lists of names", lists_of_names, each(read_names), requested.file_of_names,
           share=2),
    Reader("other names of folders", other_names, each(overrides), requested.file_of_names),
    Reader("lists of novel names", novel_lists, each(
        lambda path: novel_names(f"file[skip=yes]:{path}", NAMES))
    ),
    Reader("stored answers", stored_lists, lambda at: read_stored(at / "list.json")),
    Reader("answers of language models", answers, read_answer),
    argument("--novel", SPECS, read_spec),
    Reader("recipes", all_recipes, read_recipe),
    argument("--set", SETTINGS, read_settings),
    argument("--grid", ["lr=0.01,0.02", "sar.weight=1,2\nshots=1,2,4"], read_grid),
    argument("--dataset", ["icons/animals,dtd", "photos/,icons", "a,b@3"], lambda t: listed([t])),
    argument("SIMPROMPT_CHECKPOINT_EVERY", ["60", "0.5", "1e3"], read_seconds),
    Reader("results", results, read_results),
    Reader("prompts", prompts, read_prompt, made_prompt, share=3),
    Reader("classifiers", lambda: [_classifier()], read_classifier),
    Reader("checkpoints of CLIP", checkpoints, read_clip),
    Reader("simprompt's own models", own_models, read_clip),
    Reader("weights", weights, each(lambda path: canonical(read_weights(path), path))),
    Reader("pickles that torch reads", lambda: [{"text": b"0"}], read_right_pickle,
           lambda rng: {"text": str(rng.random()).encode()}, damage=0.0, share=3),
    Reader("hostile pickles", lambda: [{"m.pt": pickles.right(random.Random(0))[0]}],
           each(lambda path: canonical(read_weights(path), path)), hostile_pickle, share=3),
    Reader("requests", some_requests, read_request, requested.request, share=3),
    Reader("tokenizers", tokenizers, read_tokenizer),
    Reader("indexes of weights", indexes, each(files_of)),
    Reader("trainings", trainings, read_training),
    Reader("image features", shards, read_shards),
)  # fmt: skip


def by_name() -> Mapping[str, Reader]:
    return {reader.name: reader for reader in READERS}
