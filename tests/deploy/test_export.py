"""An exported folder answers as the prompt does, and needs no more than it says."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from foreign import hf_model, write_vocabulary
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from shell import in_process
from simprompt import methods
from simprompt.clip.efficientnet import EfficientNetConfig
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.resnet import ResNetConfig
from simprompt.clip.tokenizer import Tokenizer
from simprompt.config import parse
from simprompt.data.images import read_image
from simprompt.data.split import Split
from simprompt.deploy.export import check, standalone, words
from simprompt.deploy.export.runtime import predict
from simprompt.deploy.export.runtime.bpe import Vocabulary
from simprompt.deploy.export.runtime.predict import Predictor
from simprompt.deploy.export.write import export
from simprompt.errors import SimpromptError
from simprompt.prompt.prompt import Prompt

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*treespec", "ignore:# The axis name"),
    pytest.mark.usefixtures("one_registry"),
]

NAMES = ("cat", "annual crop land", "red panda")
CALIBRATED = {"temperature": 2.5, "unknown": 0.4}
OTHERS = ["sea lake", "Café-au-lait No. 7", "t_shirt"]


def prompt_of(clip: CLIP, method: str, options: dict | None = None) -> Prompt:
    """A prompt as if it were learned: all that can be learned is moved a little."""
    kind = methods.find(method)
    learner = kind(clip, NAMES, "a photo of a {}.", parse(kind.Config, options or {}, method), 1)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in (*learner.parameters(), *learner.buffers()):
            if value.is_floating_point():
                value.add_(0.1 * torch.randn_like(value))
    return Prompt(learner, {"method": method, "upright": True})


def pictures(count: int = 5, size: int = 20) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (size + i, size + 3, 3), dtype=np.uint8))
        for i in range(count)
    ]


def answers(prompt: Prompt, images: list, names) -> np.ndarray:
    return np.array([row.probabilities for row in prompt.predict(images, list(names))])


# --- ONNX ----------------------------------------------------------------------------------------


class Folder(NamedTuple):
    """What one export gave. Torch takes seconds for a graph, so tests share folders."""

    prompt: Prompt
    path: Path
    card: dict


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    """Four images in folders of two classes."""
    out = tmp_path_factory.mktemp("labelled")
    for i, image in enumerate(pictures(4, 60)):
        (out / NAMES[i % 2]).mkdir(exist_ok=True)
        image.save(out / NAMES[i % 2] / f"{i}.png")
    return out


@pytest.fixture(scope="session")
def icons_prompt() -> Prompt:
    """A calibrated prompt of the icon CLIP."""
    prompt = prompt_of(load_clip("icons"), "coop")
    prompt.calibrated(CALIBRATED)
    return prompt


@pytest.fixture(scope="session")
def icons(icons_prompt, labelled, tmp_path_factory) -> Folder:
    """With 8-bit weights, compared on images."""
    out = tmp_path_factory.mktemp("exported") / "icons"
    return Folder(icons_prompt, out, export(icons_prompt, out, int8=True, check=labelled))


@pytest.fixture(scope="session")
def exported(icons) -> Path:
    return icons.path


@pytest.fixture(scope="session")
def large(small, tmp_path_factory) -> Folder:
    """As a large model is written, with 8-bit weights; it was moved after that."""
    prompt, out = prompt_of(small, "maple"), tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simprompt.deploy.export.graph.LARGEST", 0)
        card = export(prompt, out / "out", int8=True)
    (out / "out").rename(out / "elsewhere")
    return Folder(prompt, out / "elsewhere", card)


@pytest.fixture(scope="session")
def plain(shallow, tmp_path_factory) -> Folder:
    """Without 8-bit weights and without a text side."""
    prompt, out = prompt_of(shallow, "linear-probe"), tmp_path_factory.mktemp("plain") / "out"
    return Folder(prompt, out, export(prompt, out))


@pytest.fixture(scope="session")
def resnet(clip_of, tiny_tokenizer, tmp_path_factory) -> Folder:
    """Of a ResNet whose tokenizer is not CLIP's kind, for names that were not learned."""
    vision = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=8, heads=4, embed_dim=24)
    clip = clip_of(Tokenizer(tiny_tokenizer), "resnet", 1, vision)
    prompt, out = prompt_of(clip, "coop"), tmp_path_factory.mktemp("resnet") / "out"
    return Folder(prompt, out, export(prompt, out, classes=OTHERS))


SHARED = {"coop": "icons", "maple": "large", "linear-probe": "plain"}


@pytest.mark.parametrize(
    ("method", "open_names"),
    [
        ("coop", True), ("maple", True), ("tcp", True),
        ("cocoop", "every image has text features"), ("linear-probe", "no other"),
        pytest.param("vpt", True, marks=pytest.mark.slow),
        pytest.param("zero-shot", True, marks=pytest.mark.slow),
        pytest.param("dept", "a classifier of the classes", marks=pytest.mark.slow),
        pytest.param("tip-adapter", "no other", marks=pytest.mark.slow),
        pytest.param("class-means", "no other", marks=pytest.mark.slow),
        pytest.param("means+text", "a classifier of the classes", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_folder_answers_as_the_prompt(
    small, shallow, tmp_path, request, method, open_names
):  # fmt: skip
    if method in SHARED:
        prompt, out, card = request.getfixturevalue(SHARED[method])
        assert prompt.card["method"] == method
    else:
        clip = shallow if method == "cocoop" else small
        prompt, out = prompt_of(clip, method), tmp_path / "out"
        card = export(prompt, out, "onnx")
    images, predictor = pictures(), Predictor(out, threads=1)
    expected = answers(prompt, images, NAMES)
    assert np.ptp(expected, axis=0).max() > 1e-2, "images that can be told apart"
    for batch in (images, images[:1]):
        assert np.abs(predictor.probabilities(batch) - expected[: len(batch)]).max() < 1e-4
    if open_names is True:
        expected = answers(prompt, images, OTHERS)
        assert np.abs(predictor.probabilities(images, OTHERS) - expected).max() < 1e-4
        one = predictor.text_features(OTHERS[:1]) - prompt.text_features(OTHERS[:1]).numpy()
        assert np.abs(one).max() < 1e-4
    else:
        assert open_names in card["no_text"]
        assert not (out / "text.onnx").exists()
        with pytest.raises(SimpromptError, match=open_names):
            predictor.probabilities(images, OTHERS)


@pytest.mark.parametrize("options", [{"class_specific": True}, {"position": "middle"}])
def test_a_context_that_is_no_prefix_exports_for_known_names(shallow, tmp_path, options):
    prompt, images = prompt_of(shallow, "coop", options), pictures()
    assert "do not share" in export(prompt, tmp_path / "out")["no_text"]
    made = Predictor(tmp_path / "out").probabilities(images)
    assert np.abs(made - answers(prompt, images, NAMES)).max() < 1e-4


def test_a_resnet_exports(resnet):
    images = pictures()
    made = Predictor(resnet.path).probabilities(images)
    assert np.abs(made - answers(resnet.prompt, images, OTHERS)).max() < 1e-4


def test_an_efficientnet_exports(clip_of, byte_pairs, tmp_path):
    vision = EfficientNetConfig(
        image_size=32, embed_dim=24, stages=((1, 3, 1, 1, 16), (2, 5, 2, 6, 24))
    )
    clip = clip_of(byte_pairs, "efficientnet", 1, vision)
    prompt, images = prompt_of(clip, "linear-probe"), pictures()
    export(prompt, tmp_path / "out")
    made = Predictor(tmp_path / "out").probabilities(images)
    assert np.ptp(made, axis=0).max() > 1e-3, "images that can be told apart"
    assert np.abs(made - answers(prompt, images, NAMES)).max() < 1e-4


def test_weights_of_a_large_model_lie_beside_the_graph(large):
    images = pictures()
    assert (large.path / "image.onnx.data").stat().st_size > 100_000
    assert (large.path / "image.onnx").stat().st_size < 100_000
    expected = answers(large.prompt, images, OTHERS)
    for int8, most in ((False, 1e-4), (True, 0.2)):
        made = Predictor(large.path, int8=int8).probabilities(images, OTHERS)
        assert np.abs(made - expected).max() < most


def test_probabilities_are_at_the_calibrated_temperature(icons, tmp_path, capsys):
    images = pictures()
    before = answers(prompt_of(icons.prompt.clip, "coop"), images, NAMES)
    expected = answers(icons.prompt, images, NAMES)
    assert np.abs(expected - before).max() > 0.02
    predictor = Predictor(icons.path)
    assert np.abs(predictor.probabilities(images) - expected).max() < 1e-4
    assert np.abs(predictor.probabilities(images, NAMES) - expected).max() < 1e-4
    images[0].save(tmp_path / "a.png")
    for limit, said in (("auto", expected[0].max() < 0.4), ("0.99", True), ("0.01", False)):
        assert predict.main([str(tmp_path / "a.png"), "--reject-below", limit], icons.path) == 0
        assert ("none of these" in capsys.readouterr().out) is bool(said)


def test_a_head_is_at_the_calibrated_temperature(small, tmp_path):
    prompt, images = prompt_of(small, "coop"), pictures()
    before = answers(prompt, images, NAMES)
    prompt.calibrated(CALIBRATED)
    expected = answers(prompt, images, NAMES)
    assert np.abs(expected - before).max() > 0.02
    export(prompt, tmp_path / "out", "head")
    weight = load_file(tmp_path / "out" / "head.safetensors")["weight"]
    made = (small.encode_images(images) @ weight.T).softmax(-1).numpy()
    assert np.abs(made - expected).max() < 1e-5


def test_a_tokenizer_of_another_kind_leaves_the_text_side_out(resnet):
    assert "not CLIP's byte-pair encoding" in resnet.card["no_text"]
    assert Predictor(resnet.path).probabilities(pictures()).shape == (5, 3)


def test_pixels_are_ours_to_the_bit(icons_prompt, exported, tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = Image.fromarray(rng.integers(0, 256, (61, 90, 3), dtype=np.uint8))
    colour.save(tmp_path / "turned.jpg", exif=exif)
    colour.quantize(16).save(tmp_path / "palette.png")
    colour.resize((48, 48)).save(tmp_path / "exact.png")
    colour.resize((400, 7)).save(tmp_path / "long.png")
    deep = rng.integers(0, 65536, (50, 70), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 5
    preprocess = icons_prompt.clip.preprocess
    expected = torch.stack([preprocess(read_image(path, upright=True)) for path in paths])
    assert np.array_equal(Predictor(exported).pixels(paths), expected.numpy())


TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cn", "Co"]), max_size=30),
    st.text("abcdefgh étÉß'’-_.,0123456789 &;<>|½猫\t\n", max_size=30),
    st.lists(
        st.sampled_from(["it's", "we'll", "'d", "No.", "737", "&amp;", "cafÃ©", "<|endoftext|>",
                         "<|startoftext|>", "ＡＢ", "ﬁsh", "naïve", "l’eau", "annual", "crop"]),
        max_size=6,
    ).map(" ".join),
)  # fmt: skip


@pytest.mark.parametrize("which", ["icons", "openai"])
def test_names_become_the_same_ids(which, byte_pairs, tmp_path):
    tokenizer = load_clip("icons").tokenizer if which == "icons" else byte_pairs
    path = tmp_path / "vocabulary.json"
    assert words.write(tokenizer, ["cat"], path) is None
    vocabulary = Vocabulary(path)

    @settings(max_examples=400)
    @given(TEXTS)
    @example("the café's 12 naïve chats: l’eau")
    def equal(text: str) -> None:
        assert vocabulary.encode(text) == tokenizer.encode(text)

    equal()


def test_a_name_that_is_too_long_is_named(exported):
    with pytest.raises(SimpromptError, match=r"'long long.*reads 24"):
        Predictor(exported).text_features(["cat", "long " * 30])
    with pytest.raises(SimpromptError, match="at least one"):
        Predictor(exported).text_features([])


NAME = st.one_of(
    TEXTS,
    st.lists(
        st.sampled_from(["cat", "Cat", "red", "_", " ", "7", "737", "-", "&amp;", "&#99;at",
                         "\u200b",
                         "\u00ad", "\ufeff", "\u200d", "\u200c", "می\u200cخواهم", "ｃａｔ", "é",
                         "e\u0301", "猫", "😀", "\ud800", "<|endoftext|>"]),
        max_size=4,
    ).map("".join),
)  # fmt: skip


runtime = functools.cache(Predictor)


@settings(max_examples=50)
@given(st.lists(NAME, max_size=4))
@example(["cat", "CAT\u200b"])
@example(["7", "cat"])
@example(["cat", "\u200b"])
@example(["c\u200bat", "d\u00adog", "&amp;lt;b", "ｒｅｄ"])
@example(["a" * 1001, "b"])
@example([])
def test_any_name_is_read_or_refused_as_the_package_does(icons, names):
    """Unseen characters, digits alone, entities, full width, joiners, nothing, other case."""
    images, predictor = pictures(1), runtime(icons.path)
    reasons = []
    for answer in (lambda: answers(icons.prompt, images, names),
                   lambda: predictor.probabilities(images, names)):  # fmt: skip
        try:
            expected = answer()
        except SimpromptError as error:
            reason = str(error)
            reasons.append("too long" if " tokens" in reason else reason[:40])
    if reasons:
        assert reasons[1:] == reasons[:1], "one refuses, the other does not"
        return
    assert np.abs(predictor.probabilities(images, names) - expected).max() < 1e-4
    features = icons.prompt.text_features(names).numpy()
    assert np.abs(predictor.text_features(names) - features).max() < 1e-4


@pytest.mark.parametrize(
    "names", ["star", b"star", {"star"}, {"star": 1}, 3, [None], [3], ["a", ""]]
)
def test_a_list_of_names_is_a_list_of_names(icons, names):
    predictor, image = Predictor(icons.path), pictures(1)[0]
    for refuse in (
        lambda: predictor.probabilities([image], names), lambda: predictor.text_features(names),
        lambda: icons.prompt.predict([image], names), lambda: icons.prompt.text_features(names),
    ):  # fmt: skip
        with pytest.raises(SimpromptError, match=r"list of names|has to be a class name"):
            refuse()


def test_one_image_is_a_list_of_one(icons, tmp_path):
    (image,) = pictures(1)
    image.save(tmp_path / "a.png")
    predictor = Predictor(icons.path)
    expected = predictor.probabilities([image])
    path = tmp_path / "a.png"
    for one in (image, np.asarray(image), path, str(path), path.read_bytes()):
        assert np.array_equal(predictor.probabilities(one), expected)
    with path.open("rb") as file:
        assert np.array_equal(predictor.probabilities(file), expected)
    for many in (iter([image]), np.asarray(image)[None], (image,)):
        assert np.array_equal(predictor.probabilities(many), expected)


def test_a_photo_is_turned_as_the_card_says(icons, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures(1, 60)[0].resize((90, 60)).save(tmp_path / "turned.jpg", exif=exif)
    for upright in (True, False):
        predictor = Predictor(icons.path)
        predictor.card["upright"] = upright
        expected = icons.prompt.clip.preprocess(
            read_image(tmp_path / "turned.jpg", upright=upright)
        )
        assert np.array_equal(predictor.pixels([tmp_path / "turned.jpg"])[0], expected.numpy())


@pytest.mark.parametrize("name", ["image.onnx", "image-int8.onnx", "text.onnx"])
def test_graphs_are_of_the_oldest_form_of_their_opset(exported, name):
    """IR 8 is read by onnxruntime from 1.14 on; PyTorch writes 10, which needs 1.18."""
    import onnx

    model = onnx.load(exported / name, load_external_data=False)
    assert [(one.domain, one.version) for one in model.opset_import if not one.domain] == [("", 18)]
    assert model.ir_version == 8


def run_exported(exported: Path, *arguments: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(exported / "predict.py"), *arguments],
        capture_output=True, check=False, **settings,
    )  # fmt: skip


def test_rows_are_written_whatever_the_names_of_files_and_the_output(exported, tmp_path):
    for name in ("日本.png", "a\nb\tc.png"):
        pictures(1)[0].save(tmp_path / name)
    (tmp_path / "z.png").write_bytes(b"no image")
    run = run_exported(
        exported, str(tmp_path), env={**os.environ, "PYTHONIOENCODING": "cp1252"}, encoding="cp1252"
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    assert [len(row) for row in rows] == [2, 3, 2]
    assert rows[0][0].endswith(r"a\ufffdb\ufffdc.png")
    assert rows[1][1] == "-"
    assert "not an image" in rows[1][2]
    assert rows[2][0].endswith(r"\u65e5\u672c.png")
    run = run_exported(exported, str(tmp_path / "z.png"), encoding="utf-8")
    assert run.returncode == 2
    assert run.stderr == "1 of 1 images could not be read.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of a shell")
def test_a_closed_pipe_ends_the_rows_in_silence(exported, tmp_path):
    pictures(1)[0].save(tmp_path / "a.png")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [sys.executable, str(exported / "predict.py"), str(tmp_path)],
            stdout=writer, stderr=subprocess.PIPE, encoding="utf-8", check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (1, "")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_the_folder_imports_three_packages(exported):
    # pillow_heif reads HEIC where it is installed; the vendored ftfy has its own imports
    allowed = {"numpy", "PIL", "onnxruntime", "pillow_heif", "ftfy", standalone.PACKAGE}
    files = [exported / "predict.py", *(exported / standalone.PACKAGE).glob("*.py")]
    assert len(files) == len(standalone.MODULES) + 2
    used = set().union(*(imports(path) for path in files))
    assert used - set(sys.stdlib_module_names) <= allowed
    vendor = set().union(*(imports(p) for p in (exported / standalone.PACKAGE).rglob("*.py")))
    assert vendor - set(sys.stdlib_module_names) - allowed == {"wcwidth"}  # which is beside it
    assert (exported / standalone.PACKAGE / "vendor" / "ftfy" / "LICENSE.txt").is_file()


def test_what_is_cut_out_is_needed_nowhere(exported):
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F811",
         "--exclude", "vendor", str(exported)],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    for path in (exported / standalone.PACKAGE).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                standalone.PACKAGE
            ):
                name = (node.module or "").rpartition(".")[2]
                assert (exported / standalone.PACKAGE / f"{name}.py").is_file()


ALONE = """
import sys
class Nothing:
    missing = {"torch", "simprompt", "tokenizers", "safetensors", "pydantic", "onnx", "pillow_heif"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.missing:
            raise ModuleNotFoundError(name)
sys.path[:] = [p for p in sys.path if "src" not in p]
sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv[1])
import predict
sys.exit(predict.main(sys.argv[2:]))
"""


def test_the_program_runs_without_torch_and_simprompt(icons_prompt, exported, tmp_path):
    for i, image in enumerate(pictures(3, 60)):
        image.save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(exported), str(tmp_path), "--class", "Café",
         "--class", "red panda", "--json", "--top", "2"],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    unread, count = run.stderr.splitlines()
    assert "'Café' is read as 'caf'" in unread
    assert count == "1 of 4 images could not be read."
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert "3.png: not an image in a format that Pillow reads" in rows.pop()["error"]
    names = ["Café", "red panda"]
    expected = answers(icons_prompt, sorted(tmp_path.glob("[0-2].png")), names)
    for row, probabilities in zip(rows, expected, strict=True):
        made = {a["class"]: a["probability"] for a in row["answers"]}
        assert made == pytest.approx(dict(zip(names, probabilities, strict=True)), abs=1e-4)


def test_eight_bits_are_smaller_and_near(exported):
    plain, quantised = (exported / name for name in ("image.onnx", "image-int8.onnx"))
    assert quantised.stat().st_size < 0.6 * plain.stat().st_size
    images = pictures(4, 60)
    a = Predictor(exported).probabilities(images)
    b = Predictor(exported, int8=True).probabilities(images)
    assert 0 < np.abs(a - b).max() < 0.1


def test_what_eight_bits_change_is_measured(icons, labelled, tmp_path):
    for i, image in enumerate(pictures(4, 60)):
        for where in ("flat", "others/wolf"):
            (tmp_path / where).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / where / f"{i}.png")
    for where, reason in (("flat", "no class folders"), ("others", "'wolf' for one")):
        measured = check.compare(icons.path, check.images(tmp_path / where, NAMES))
        assert measured["images"] == 4
        assert reason in measured["no_accuracy"]
        assert 0 <= measured["agreement"] <= 100
    paths = sorted(labelled.rglob("*.png"))
    labels = [NAMES.index(path.parent.name) for path in paths]
    for int8, name in ((False, "float"), (True, "int8")):
        best = Predictor(icons.path, int8=int8).probabilities(paths).argmax(1)
        assert icons.card["check"]["accuracy"][name] == 100 * np.mean(best == labels)
    assert "of 4 images got the same" in (icons.path / "README.md").read_text("utf-8")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SimpromptError, match="no images to compare"):
        check.images(tmp_path / "nothing", NAMES)


def test_folders_are_matched_to_names_as_learning_reads_them(tmp_path):
    for folder in ("T-shirt", "red_panda"):
        (tmp_path / folder).mkdir()
        pictures()[0].save(tmp_path / folder / "0.png")
    given = check.images(tmp_path, ["red panda", "t-shirt", "owl"])
    assert {(path.parent.name, n) for path, n in zip(given.paths, given.labels, strict=True)} == {
        ("T-shirt", 1), ("red_panda", 0)
    }  # fmt: skip


def test_a_folder_without_eight_bits_says_so(plain, tmp_path):
    with pytest.raises(SimpromptError, match="no image tower with 8-bit"):
        Predictor(plain.path, int8=True)
    with pytest.raises(SimpromptError, match="is no exported prompt"):
        Predictor(tmp_path)


# --- heads ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def foreign_clip(tmp_path_factory) -> Path:
    """A random CLIP as `transformers` saves it, with its processor and tokenizer."""
    from transformers import CLIPImageProcessor

    folder = tmp_path_factory.mktemp("foreign")
    hf_model(len(write_vocabulary(folder))).save_pretrained(folder)
    size = {"shortest_edge": 32}
    CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def blocks(readme: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("method", ["coop", "kgcoop", "tcp"])
def test_the_head_behind_transformers_answers_as_the_prompt(
    foreign_clip, tmp_path, monkeypatch, method
):
    """The code in the folder's README, run as it stands there."""
    prompt = prompt_of(load_clip(foreign_clip), method)
    names = ["cat", "braided hair", "river"]
    export(prompt, tmp_path / "head", "transformers", names)
    (picture,) = pictures(1, 50)
    picture.save(tmp_path / "head" / "picture.png")
    monkeypatch.chdir(tmp_path / "head")
    space: dict = {}
    for block in blocks(Path("README.md")):
        exec(block, space)
    split = Split(("p",), (0,), tuple(names), lambda _: picture)
    expected = prompt.probabilities(split)[0]
    assert space["names"] == names
    assert (space["probabilities"] - expected).abs().max() < 1e-4
    assert not space["head"].bias.any()


def test_the_fingerprint_tells_another_model(foreign_clip, tmp_path, monkeypatch):
    from transformers import CLIPModel

    export(prompt_of(load_clip(foreign_clip), "coop"), tmp_path / "head", "transformers")
    monkeypatch.chdir(tmp_path / "head")
    pictures(1)[0].save("picture.png")
    first, check = blocks(Path("README.md"))
    space: dict = {}
    exec(first, space)
    exec(check, space)
    model = CLIPModel(space["model"].config).eval()
    with pytest.raises(AssertionError, match="another model"):
        exec(check, space | {"model": model})


def test_the_bare_head_answers_as_the_prompt(small, tmp_path, monkeypatch):
    for method, plain in (("coop", True), ("linear-probe", False), ("means+text", False)):
        prompt = prompt_of(small, method)
        export(prompt, tmp_path / "head", "head")
        monkeypatch.chdir(tmp_path / "head")
        space: dict = {}
        exec(blocks(Path("README.md"))[0], space)
        features = 7 * small.encode_images(pictures()).numpy()
        made = space["probabilities"](features)
        assert np.abs(made - answers(prompt, pictures(), NAMES)).max() < 1e-5
        arrays, loaded = load_file("classes.safetensors"), np.load("classes.npz")
        assert loaded["names"].tolist() == list(NAMES)
        assert ("embeddings" in arrays) is plain
        if plain:
            assert torch.equal(arrays["embeddings"], prompt.text_features(NAMES))
            assert np.array_equal(loaded["embeddings"], arrays["embeddings"].numpy())
            assert float(loaded["logit_scale"]) == pytest.approx(small.scale)


@pytest.mark.parametrize(
    ("method", "names", "reason"),
    [
        ("vpt", NAMES, "learned tokens inside"), ("maple", NAMES, "learned tokens inside"),
        ("cocoop", NAMES, "text features of its own"), ("tip-adapter", NAMES, "not a linear"),
        ("dept", NAMES, "not a linear"), ("linear-probe", OTHERS, "is none of them"),
    ],
)  # fmt: skip
def test_what_is_no_linear_head_is_refused_with_the_reason(small, tmp_path, method, names, reason):
    with pytest.raises(SimpromptError, match=reason):
        export(prompt_of(small, method), tmp_path / "head", "head", names)
    assert not list(tmp_path.iterdir())


def test_dept_is_a_linear_head_for_new_names(small, tmp_path):
    prompt = prompt_of(small, "dept")
    export(prompt, tmp_path / "head", "head", OTHERS)
    weight = load_file(tmp_path / "head" / "head.safetensors")["weight"]
    made = (small.encode_images(pictures()) @ weight.T).softmax(-1)
    assert np.abs(made.numpy() - answers(prompt, pictures(), OTHERS)).max() < 1e-5


def test_a_library_without_such_a_tower_is_refused(icons_prompt, byte_pairs, small, tmp_path):
    for library in ("open_clip", "transformers"):
        with pytest.raises(SimpromptError, match="begins with convolutions"):
            export(icons_prompt, tmp_path / "head", library)
    vision = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=8, heads=4, embed_dim=24)
    resnet = CLIP(CLIPConfig(small.config.text, vision), byte_pairs, "resnet")
    with pytest.raises(SimpromptError, match="is a ResNet"):
        export(prompt_of(resnet, "coop"), tmp_path / "head", "transformers")
    other = CLIP(CLIPConfig(small.config.text, EfficientNetConfig(32, 24)), byte_pairs, "other")
    for library in ("open_clip", "transformers"):
        with pytest.raises(SimpromptError, match="an EfficientNet"):
            export(prompt_of(other, "coop"), tmp_path / "head", library)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "library", "expected"),
    [
        ("ViT-B-16/openai", "open_clip", "hf-hub:timm/vit_base_patch16_clip_224.openai"),
        ("ViT-B-16/openai", "transformers", None),
        ("TinyCLIP-ViT-8M-16-Text-3M/yfcc15m", "transformers",
         "wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M"),
        ("hub:a/b@main", "open_clip", "hf-hub:a/b"),
    ],
)  # fmt: skip
def test_what_a_library_calls_the_model(small, monkeypatch, tmp_path, name, library, expected):
    monkeypatch.setitem(small.source, "name", name)
    export(prompt_of(small, "coop"), tmp_path / "head", library)
    text = (tmp_path / "head" / "README.md").read_text(encoding="utf-8")
    assert f'"{expected or f"YOUR COPY OF {name}"}"' in text


# --- folder, names, command ----------------------------------------------------------------------


def test_a_folder_is_whole_or_as_it_was(small, tmp_path, monkeypatch):
    prompt, out = prompt_of(small, "coop"), tmp_path / "out"
    export(prompt, out, "head")
    assert len({p.stat().st_mode for p in out.iterdir()}) == 1, "all are as readable"
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simprompt.deploy.export.readme.of_head", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export(prompt, out, "head", OTHERS)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    export(prompt, out, "head", OTHERS)
    assert (out / "classes.txt").read_text(encoding="utf-8").splitlines() == OTHERS
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear", encoding="utf-8")
    for wrong, reason in (
        ("letters", "holds other files and no export"),
        ("letters/love.txt", "is a file"),
    ):
        with pytest.raises(SimpromptError, match=reason):
            export(prompt, tmp_path / wrong, "head")
    assert [p.name for p in (tmp_path / "letters").iterdir()] == ["love.txt"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["cat", "red panda", "Red_Panda"], "'red panda' and 'Red_Panda' are one text"),
        ([], "classes is empty"), ("cat", "list of names"), (["cat", " "], "not empty"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_told_apart_are_refused(small, tmp_path, names, reason):
    with pytest.raises(SimpromptError, match=reason):
        export(prompt_of(small, "coop"), tmp_path / "out", "head", names)


def test_options_that_say_nothing_are_refused(small, tmp_path):
    prompt = prompt_of(small, "coop")
    for given_, reason in (
        ({"to": "tflite"}, "onnx, head"), ({"to": "head", "int8": True}, "belong to the ONNX"),
        ({"check": tmp_path}, "int8 as well"),
    ):  # fmt: skip
        with pytest.raises(SimpromptError, match=reason):
            export(prompt, tmp_path / "out", **given_)


def test_the_command(tmp_path, monkeypatch):
    stem = str(icons_prompt_saved(tmp_path))
    (tmp_path / "names.txt").write_text("tiger\nred panda\n", encoding="utf-8")
    out = tmp_path / "head"
    names = ["--classes", str(tmp_path / "names.txt"), "--class", "owl"]
    run = in_process("export", stem, "--to", "head", *names, "--out", str(out))
    assert run.returncode == 0, run.stderr
    assert "3 classes with icons" in run.stdout
    assert (out / "classes.txt").read_text(encoding="utf-8") == "tiger\nred panda\nowl\n"
    run = in_process("export", stem, "--to", "head", "--out", str(out), "--json")
    assert json.loads(run.stdout)["classes"] == list(NAMES)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run = in_process("export", stem, "--to", "onnx", "--out", str(tmp_path / "graphs"))
    assert run.returncode == 2
    assert re.fullmatch(r"simprompt: .*onnxruntime.*`pip install 'onnx>.*`\.\n", run.stderr)
    assert not (tmp_path / "graphs").exists()


def icons_prompt_saved(folder: Path) -> Path:
    """A prompt of the icon CLIP on disk, whole card and all."""
    from simprompt.prompt.learn import learn

    clip = load_clip("icons")
    split = Split(("0", "1", "2"), (0, 1, 2), NAMES, lambda i: pictures()[int(i)])
    learn(clip, split, training={"epochs": 1}).save(folder / "learned" / "prompt")
    return folder / "learned" / "prompt"
