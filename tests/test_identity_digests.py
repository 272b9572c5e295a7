"""Every digest against what `simprompt.experiments.run_key` says it is made of, written out.

A digest that changes makes all results and features of somebody anew. Where one is pinned here and
it is meant to change, raise `features.digests.CODE` in the same commit.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

from simprompt import methods, regularisers
from simprompt.config import SAR, RunConfig, Training
from simprompt.data.dataset import Dataset
from simprompt.data.images import READER
from simprompt.data.split import Origin, Split
from simprompt.experiments import run_key
from simprompt.features import digests
from simprompt.novel.names import hash_names
from simprompt.novel.sources import bundled_list
from simprompt.utils.files.marks import mark_of

CODE = 4  # as `features.digests.CODE`


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: object) -> str:
    return sha(json.dumps(value, sort_keys=True))


# --- plain values and files ----------------------------------------------------------------------


def test_a_digest_is_sha_256_of_sorted_ascii_json():
    assert digests.digest({"b": [1, None], "a": "é"}) == sha('{"a": "\\u00e9", "b": [1, null]}')
    assert digests.digest({"b": 1, "a": 2}) == digests.digest({"a": 2, "b": 1})


def test_a_file_is_known_by_its_bytes(tmp_path):
    path = tmp_path / "weights"
    content = bytes(range(256)) * 4096 + b"beyond the first block of a megabyte"
    path.write_bytes(content)
    assert digests.of_file(path) == hashlib.sha256(content).hexdigest()
    assert digests.of_file(tmp_path / "away.txt") == "missing: away.txt"
    assert digests.of_file(tmp_path / "no\0name") == "missing: no\0name"


def test_a_key_is_twelve_digits_of_all_parts_and_names_the_folder():
    one = run_key.RunKey(RunConfig(dataset="icons/animals", seed=3), {"code": 2})
    assert one.key == canonical({"code": 2})[:12]
    assert one.folder == f"icons-animals/coop/seed3-{one.key}"
    with_sar = RunConfig(dataset="x", method="maple", sar=SAR())
    assert run_key.RunKey(with_sar, {}).folder.startswith("x/maple+sar/seed1-")
    assert "code" not in repr(one)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.parts = {}


# --- settings ------------------------------------------------------------------------------------


def settings_of(said: str | None = "a {}.", **values: object) -> dict:
    return run_key._settings(RunConfig(**{"dataset": "icons/places", **values}), said)


def test_settings_name_nothing_that_has_a_part_of_its_own():
    values = settings_of(
        targets=("a",), tokenizer="t", image_size=9, template="b {}.", template_set="kgcoop",
        names="n", image_column="i", label_column="l", split_column="s",
    )  # fmt: skip
    assert values == settings_of()
    named = {"model", "tokenizer", "image_size", "dataset", "targets", "template_set", "names",
             "image_column", "label_column", "split_column"}  # fmt: skip
    assert not named & values.keys()
    assert values["template"] == "a {}."
    assert settings_of(said=None)["template"] is None


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"protocol": "few-shot"}, {"training": Training(lr=1)}, {"method": "kgcoop"},
     {"max_test_per_class": 3}, {"threads": 2}, {"options": {"n_ctx": 2}}, {"device": "cuda"},
     {"dtype": "float16"}, {"sar": SAR()}],
    ids=str,
)  # fmt: skip
def test_every_other_setting_counts(change):
    assert settings_of(**change) != settings_of()
    json.dumps(settings_of(**change))


def test_of_a_device_its_kind_counts_and_the_usual_ones_do_not():
    assert settings_of(device="cuda:0") == settings_of(device="cuda:1")
    assert settings_of(device="cuda:0")["device"] == "cuda"
    assert not {"device", "dtype"} & settings_of().keys()


def test_defaults_of_a_method_are_written_out_and_none_does_not_count():
    assert settings_of()["options"]["n_ctx"] == 4
    assert settings_of(options={"n_ctx": 4}) == settings_of()
    assert None not in settings_of()["options"].values()
    assert None not in settings_of()["training"].values()
    assert "max_test_per_class" not in settings_of()
    assert settings_of(options={"no_such": 1})["options"] == {"no_such": 1}, "the run fails of it"
    assert settings_of(method="no-such-method", options={"a": 1})["options"] == {"a": 1}
    paths = settings_of(method="coop", options={"n_ctx": "no number"})["options"]
    assert paths == {"n_ctx": "no number"}


def test_sar_s_settings_count_but_where_its_names_are_from():
    values = settings_of(sar=SAR(novel="file:x.txt", weight=3))["sar"]
    assert "novel" not in values
    assert values["weight"] == 3
    assert "sar" not in settings_of()


# --- novel names ---------------------------------------------------------------------------------

ANIMALS = hash_names(bundled_list("icons/animals")["names"])


def novel_of(spec: str, count: int = 4, dataset: str = "icons/animals", base=("cat",)) -> dict:
    config = RunConfig(dataset="x", sar=SAR(novel=spec, novel_count=count))
    return run_key._novel(config, dataset, base)


def test_without_sar_or_names_only_those_that_are_measured_count():
    measured = {"measured": ANIMALS}
    assert run_key._novel(RunConfig(dataset="x"), "icons/animals", ()) == measured
    for name in ("icons/animals@outline", "icons/animals:base-rehearsal", "icons/animals:a@b"):
        assert run_key._novel(RunConfig(dataset="x"), name, ()) == measured
    assert novel_of("wordnet", count=0) == measured
    assert run_key._novel(RunConfig(dataset="x"), "nobody's", ()) == {"measured": None}


def test_each_source_stands_with_its_count_settings_and_content(tmp_path):
    words, table = tmp_path / "words.txt", tmp_path / "words.JSON"
    words.write_text("owl\n", encoding="utf-8")
    table.write_text("[]", encoding="utf-8")
    made = novel_of(f"bundled:2+wordnet[depth=6]:1+file:{words}:1")
    assert made == {
        "measured": ANIMALS,
        "aligned": [
            ["bundled", 2, {}, ANIMALS],
            ["wordnet", 1, {"depth": "6"}, None],
            ["file", 1, {}, [False, sha("owl\n")]],
        ],
    }
    assert novel_of(f"file:{table}")["aligned"] == [["file", 4, {}, [True, sha("[]")]]]
    assert novel_of("file:away.txt")["aligned"] == [["file", 4, {}, [False, "missing: away.txt"]]]
    other = novel_of("bundled", dataset="nobody's")
    assert other == {"measured": None, "aligned": [["bundled", 4, {}, None]]}


def test_names_that_cannot_be_read_stand_as_they_are_written():
    assert novel_of("no such source") == {"measured": ANIMALS, "aligned": "no such source"}


def test_a_language_model_stands_under_its_question_then_under_its_answer(tmp_path, monkeypatch):
    from simprompt.novel import llm, sources

    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path))
    spec = "llm[model=m,draw=2]"
    (_, count, settings, content), = novel_of(spec)["aligned"]  # fmt: skip
    ask = llm.Ask(model="m", draw=2)
    topic = sources.topic_of("icons/animals")
    path = llm.stored_path(("cat",), topic, 4, ask, tmp_path / "novel")
    assert (count, settings, content) == (4, {"model": "m", "draw": "2"}, path.name)
    assert novel_of(spec, base=("dog",)) != novel_of(spec)
    part_of_own, own = (novel_of(spec, dataset=f"own/photos{more}") for more in (":x", ""))
    assert part_of_own == own, "asked about photos, not about a part of them"
    path.parent.mkdir()
    path.write_text("answer", encoding="utf-8")
    assert novel_of(spec)["aligned"][0][3] == sha("answer")
    assert novel_of("llm[temperature=warm]")["aligned"][0][3] == "no such settings"


# --- models --------------------------------------------------------------------------------------


def by_hand(clip, prefix: str, more: dict) -> str:
    """The digest of a model, one tensor after another."""
    dtypes = sorted({str(p.dtype) for p in clip.parameters()})
    made = hashlib.sha256(json.dumps([prefix, dtypes, asdict(clip.preprocess)]).encode())
    made.update(canonical([asdict(clip.config.vision), more]).encode())
    state = clip.state_dict()
    for name in sorted(state):
        if name.startswith(prefix):
            value = state[name]
            made.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
            made.update(value.contiguous().numpy().tobytes())
    return made.hexdigest()


def test_a_model_is_its_weights_sizes_tokenizer_and_preprocessing(tiny_clip):
    more = {"text": asdict(tiny_clip.config.text), "tokenizer": tiny_clip.tokenizer.fast.to_str()}
    assert digests.of_model(tiny_clip) == by_hand(tiny_clip, "", more)
    assert digests.of_image_tower(tiny_clip) == by_hand(tiny_clip, "visual.", {"code": CODE})


def test_a_tokenizer_without_a_fast_one_has_no_text(tiny_clip):
    tiny_clip.tokenizer = None
    more = {"text": asdict(tiny_clip.config.text), "tokenizer": None}
    assert digests.of_model(tiny_clip) == by_hand(tiny_clip, "", more)


def test_weights_in_any_order_of_memory_are_the_same(tiny_clip, make_clip):
    turned = make_clip()
    weight = turned.text.token_embedding.weight
    weight.data = weight.data.T.contiguous().T
    assert not weight.is_contiguous()
    assert digests.of_model(turned) == digests.of_model(tiny_clip)


def test_a_model_is_digested_once_and_again_when_it_changes(tiny_clip, monkeypatch):
    from simprompt.clip import fingerprint

    first = digests.of_model(tiny_clip)
    monkeypatch.setattr(fingerprint, "_computed", lambda *_: pytest.fail("it was digested again"))
    assert digests.of_model(tiny_clip) == first
    monkeypatch.undo()
    with torch.no_grad():
        tiny_clip.logit_scale += 1
    assert digests.of_model(tiny_clip) != first
    assert digests.of_model(tiny_clip.double()) != first, "another type is looked at again"


# --- datasets ------------------------------------------------------------------------------------


@dataclass
class Files:
    """A loader of files, as folders of images have it."""

    root: Path | None
    upright: bool = True

    def __call__(self, item: str) -> None: ...

    def stamp(self, item: str) -> str:
        return f"stamp of {item}"


def split_of(loader, items=("a.png", "b.png"), groups=None, origin=None) -> Split:
    return Split(tuple(items), (0, 1), ("x", "y"), loader, groups, origin)


@pytest.fixture
def photos(tmp_path) -> Path:
    digests.look_again()
    (tmp_path / "a.png").write_bytes(b"first")
    (tmp_path / "b.png").write_bytes(b"second")
    return tmp_path


def test_a_dataset_is_its_rows_names_templates_and_version():
    split = split_of(lambda _: None, groups=("g", "h"))
    data = Dataset("n", ("x", "y"), ("a {}.",), split, None, split.take([1, 0]), "7", (), ("z",))
    row = {"labels": [0, 1], "content": "7", "upright": None}
    wanted = {
        "classes": ["x", "y"],
        "templates": ["a {}."],
        "hidden": ["z"],
        "splits": {
            "train": {**row, "items": ["a.png", "b.png"], "groups": ["g", "h"]},
            "test": {**row, "items": ["b.png", "a.png"], "groups": ["h", "g"], "labels": [1, 0]},
        },
    }
    assert digests.of_dataset(data) == canonical(wanted)
    whole = dataclasses.replace(data, val=split)
    wanted["splits"]["val"] = wanted["splits"]["train"]
    assert digests.of_dataset(whole) == canonical(wanted)


def test_a_dataset_is_digested_once_and_forgotten_with_it(monkeypatch):
    def make() -> Dataset:
        split = split_of(lambda _: None)
        return Dataset("n", ("x", "y"), ("a {}.",), split, None, split)

    data = make()
    before = len(digests._datasets)
    first = digests.of_dataset(data)
    assert len(digests._datasets) == before + 1
    number = id(data)
    monkeypatch.setattr(run_key, "digest", lambda _: pytest.fail("it was digested again"))
    assert digests.of_dataset(data) == first
    monkeypatch.undo()
    other = make()
    # as if another dataset had been there: Python gives a number again
    digests._datasets[id(other)] = (digests._datasets[number][0], "of another one")
    assert digests.of_dataset(other) == first
    del data
    gc.collect()
    assert number not in digests._datasets


def test_files_of_a_small_folder_are_known_by_bytes_and_turned_or_not(photos):
    hashes = [sha("first"), sha("second")]
    made = digests._of_split(split_of(Files(photos, upright=False)), "7")
    assert made["content"] == hashes
    assert made["upright"] is False
    assert digests._of_split(split_of(Files(photos)), "7")["upright"] is True
    assert digests.item_keys(split_of(Files(photos))) == [
        f"a.png|{hashes[0]}", f"b.png|{hashes[1]}",
    ]  # fmt: skip


def test_files_of_a_large_folder_are_read_once_and_known_by_a_record(photos, monkeypatch):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(photos / "cache"))
    monkeypatch.setattr(digests, "READ", 10)
    stamps = ["stamp of a.png", "stamp of b.png"]
    assert digests._contents(Files(None), ("a.png", "b.png")) == stamps
    monkeypatch.setattr("simprompt.utils.files.marks.is_settled", lambda _: True)  # not fresh ones
    wanted = [sha("first"), sha("second"), "missing: c.png"]
    items = ("a.png", "b.png", "c.png")
    assert digests._contents(Files(photos), items) == wanted
    digests.look_again()
    monkeypatch.setattr(run_key, "of_file", lambda path: pytest.fail(f"{path} was read again"))
    assert digests._contents(Files(photos), items) == wanted
    digests.look_again()
    monkeypatch.undo()


def replaced_with_its_old_time(path: Path, content: bytes) -> None:
    """As `rsync -t` and `cp -p` leave it: other content of the same size, and the old time."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def overwritten_with_its_old_time(path: Path, content: bytes) -> None:
    """As a restored backup may leave it: the same inode, size and time."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced_with_its_old_time, overwritten_with_its_old_time])
@pytest.mark.parametrize("read", [64 << 20, 3], ids=["small", "large"])
def test_other_content_of_the_same_size_and_time_is_seen(photos, monkeypatch, change, read):
    """In the same process and without being asked to look again."""
    monkeypatch.setenv("SIMPROMPT_CACHE", str(photos / "cache"))
    monkeypatch.setattr(digests, "READ", read)
    split = split_of(Files(photos))
    data = Dataset("n", ("x", "y"), ("a {}.",), split, None, split)
    old = digests.item_keys(split), digests.of_dataset(data)
    change(photos / "a.png", b"FIRST")
    new = digests.item_keys(split), digests.of_dataset(dataclasses.replace(data))
    assert new[0] == [f"a.png|{sha('FIRST')}", f"b.png|{sha('second')}"]
    assert new[0] != old[0]
    assert new[1] != old[1]
    digests.look_again()


def test_images_that_are_no_files_are_known_by_item_and_version():
    split = split_of(lambda _: None)
    assert digests.item_keys(split) == ["a.png", "b.png"]
    assert digests._of_split(split, "7")["content"] == "7"


def test_a_photo_is_read_again_when_it_changed(photos):
    path = photos / "a.png"
    os.utime(path, ns=(5, 5))
    assert digests._of_image(path) == sha("first")
    path.write_bytes(b"FIRST")
    os.utime(path, ns=(5, 5))
    assert digests._of_image(path) == sha("FIRST")
    path.write_bytes(b"longer")
    os.utime(path, ns=(5, 6))
    assert digests._of_image(path) == sha("longer")
    (photos / "b.png").write_bytes(b"of b")
    assert digests._of_image(photos / "b.png") == sha("of b")
    path.unlink()
    assert digests._of_image(path) == "missing: a.png"
    assert digests._of_image(photos / "no\0name") == "missing: no\0name"


def test_a_folder_is_small_up_to_64_mb_and_20_000_files(photos, monkeypatch):
    assert (digests.READ, digests.MANY) == (64 * 1024 * 1024, 20_000)
    (photos / "below").mkdir()
    (photos / "below" / "c.png").write_bytes(b"123456789")
    (photos / "dangling").symlink_to(photos / "away")  # no file, and no reason to stop
    for size, number, small in ((20, 3, True), (19, 3, False), (20, 2, False), (99, 9, True)):
        monkeypatch.setattr(digests, "READ", size)
        monkeypatch.setattr(digests, "MANY", number)
        assert digests._is_small(photos) is small


# --- folders and checkpoints ---------------------------------------------------------------------


def test_features_are_kept_under_model_tower_dataset_and_views(tiny_clip):
    origin = Origin("icons/animals", "3", ("{}",))
    split = split_of(Files(None, upright=False), origin=origin)
    model = f"tiny-{digests.of_image_tower(tiny_clip)[:16]}"
    computed = {"reader": READER, "device": "cpu"}
    plain = canonical({**computed, "source": "icons/animals@3", "upright": False})[:16]
    assert digests.features_folder(tiny_clip, split) == f"{model}/icons-animals-3-{plain}"
    assert digests.features_folder(tiny_clip, split, 0, 5) == f"{model}/icons-animals-3-{plain}"
    for seed in (0, 5):
        views = canonical(
            {**computed, "source": "icons/animals@3", "upright": False, "views": 4, "seed": seed}
        )[:16]
        made = digests.features_folder(tiny_clip, split, 4, seed)
        assert made == f"{model}/icons-animals-3-views4-{views}"
    assert digests.features_folder(tiny_clip, split, 4) == digests.features_folder(
        tiny_clip, split, 4, 0
    )


def stats(*paths: Path) -> str:
    return canonical([[p.name, *mark_of(p)] for p in sorted(paths)])


def test_a_checkpoint_s_stamp_is_of_its_files_and_those_beside_it(tmp_path, monkeypatch):
    names = ["model.pt", "open.json", "merges.txt", "bpe.gz", "a.safetensors", "b.bin", "notes.md"]
    paths = {name: tmp_path / name for name in names}
    for i, path in enumerate(paths.values()):
        path.write_bytes(bytes(i))
    (tmp_path / "below").mkdir()
    beside = [paths[n] for n in ("open.json", "merges.txt", "bpe.gz")]
    # a file that is also beside itself counts twice
    assert digests.stamp_of(paths["model.pt"]) == stats(paths["model.pt"], *beside)
    assert digests.stamp_of(str(paths["open.json"])) == stats(
        paths["open.json"], *beside, paths["a.safetensors"], paths["b.bin"]
    )
    assert digests.stamp_of(tmp_path) == stats(*paths.values())
    assert digests.stamp_of(tmp_path / "away") == ""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert digests.stamp_of("~/model.pt") == digests.stamp_of(paths["model.pt"])

    def refuse(self: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert digests.stamp_of(tmp_path) == ""


# --- a whole run ---------------------------------------------------------------------------------


def test_a_run_is_its_parts(tiny_clip):
    split = split_of(lambda _: None)
    data = Dataset("icons/animals", ("x", "y"), ("a {}.",), split, None, split)
    config = RunConfig(dataset="icons/animals", sar=SAR(novel="bundled", novel_count=3))
    made = run_key.of_run(config, tiny_clip, data, (), ("x",), "a {}.")
    assert made.config is config
    assert made.parts == {
        "code": CODE,
        "reader": READER,
        "settings": canonical(run_key._settings(config, "a {}.")),
        "method": canonical({"coop": methods.code_of("coop")}),
        "model": digests.of_model(tiny_clip),
        "dataset": digests.of_dataset(data),
        "novel": canonical(run_key._novel(config, "icons/animals", ("x",))),
    }
    more = run_key.of_run(config, tiny_clip, data, [("one", data), ("two", None)])
    assert more.parts["targets"] == [digests.of_dataset(data), "missing: two"]
    other = config.sar.model_copy(update={"regulariser": "text-to-text"})
    config = config.model_copy(update={"sar": other})
    made = run_key.of_run(config, tiny_clip, data, (), ("x",), "a {}.")
    assert made.parts["regulariser"] == canonical(regularisers.code_of("text-to-text"))


def test_a_method_of_ones_own_is_known_by_its_code(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text("from simprompt.methods.coop import LEARNER", encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert methods.code_digests("mine", {}) == {"mine": methods.code_of("mine")}
    assert methods.code_digests("no-such-method", {}) == {}
    settings = run_key._settings(RunConfig(dataset="icons/animals", method="mine"), None)
    assert settings.pop("method") == "mine"
    ours = run_key._settings(RunConfig(dataset="icons/animals", method="coop"), None)
    assert ours.pop("method", "coop") == "coop"
    assert settings == ours


def test_what_cannot_be_opened_stands_under_its_name():
    config = RunConfig(dataset="no/such", model="no-model")
    parts = run_key.of_run(config, None, None).parts
    assert (parts["model"], parts["dataset"]) == ("missing: no-model", "missing: no/such")
    assert parts["novel"] == canonical({"measured": None})
    assert "targets" not in parts
    asked = config.model_copy(update={"sar": SAR(novel="llm[model=m]", novel_count=3)})
    novel = canonical(run_key._novel(asked, "", ("x",)))
    assert run_key.of_run(asked, None, None, (), ("x",)).parts["novel"] == novel


def test_names_on_both_sides_of_every_sign():
    """Each rule of `safe_name` where it takes hold and where it just does not."""
    for name, safe in {
        "conin$": "_conin", "CONOUT": "_CONOUT", "com1": "_com1", "lpt9.txt": "_lpt9.txt",
        "X": "X", "Xa": "Xa", "aX": "aX",
        "con-x": "con-x", "console": "console", "com": "com", "a/con": "a-con",
        "nul.tar": "_nul.tar",
        "a//b": "a-b", "a/ ./b": "a-b", "a\\b": "a-b", "a_b+c.d": "a_b+c.d", "-._a_.-": "a",
        "a - b": "a-b", "./a/b": "b", "~a/b": "b", "c:/a/b": "b", "cc:/a/b": "cc-a-b",
        "/": "unnamed",
        "c:a/b": "c-a-b", "ﬁsh": "fish", "½": "1-2", "́": "́", "a" + "-" * 50 + "b": "a-b",
        "b" * 10 + "a" * 39 + ".x": "a" * 38 + ".x", "x" + "." + "y" * 39: "y" * 39,
    }.items():  # fmt: skip
        assert digests.safe_name(name) == safe, name
    assert run_key.folder_name("Failed", "a/b", 7, "k") == "_Failed/a-b/seed7-k"
    assert run_key.folder_name("failed-x", "coop", 7, "k") == "failed-x/coop/seed7-k"
