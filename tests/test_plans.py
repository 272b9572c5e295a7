"""One meaning for options and recipes, in Python and in every command; nothing is ignored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
import typer
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from typer.testing import CliRunner

import simprompt
from simprompt import methods, recipes
from simprompt.cli.main import app
from simprompt.cli.options import whole_numbers
from simprompt.config import DEFAULT_TEMPLATE, OWN_IMAGES, SAR, RunConfig, Training
from simprompt.data.dataset import View
from simprompt.data.own_images import folder
from simprompt.data.split import Origin
from simprompt.errors import SimpromptError
from simprompt.novel.run_names import filled_up
from simprompt.recipes import plan as plans
from simprompt.recipes.plan import sar_choices
from simprompt.studies import find, grid
from simprompt.utils.options import MethodOptions, ModelOptions, RecipeOptions

TASK = "icons/places"
ICONS = ModelOptions("icons")
SHORT = ("training.max_steps=3",)


@pytest.fixture
def one_thread():
    """Bits depend on the number of threads; a run takes one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def invoke(*arguments: str) -> str:
    """What a command prints; its own errors are raised."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)


def photos(root: Path) -> Path:
    """Two classes of four drawings."""
    for name, shape in (("disc", "ellipse"), ("box", "rectangle")):
        (root / name).mkdir(parents=True)
        for i in range(4):
            image = Image.new("RGB", (48, 48), "white")
            getattr(ImageDraw.Draw(image), shape)((4 + i, 4, 40, 40), fill="black")
            image.save(root / name / f"{i}.png")
    return root


# ---- Python and the command line


def test_python_learns_what_run_learns_bit_for_bit(tmp_path, one_thread):
    invoke("run", "--dataset", TASK, "--seeds", "1", "--set", *SHORT, "--max-test-per-class", "1",
           "--out", str(tmp_path))  # fmt: skip
    runs = {}
    for file in tmp_path.rglob("prompt.json"):
        card = json.loads(file.read_text(encoding="utf-8"))
        runs[card["sar"] is not None] = card, load_file(file.with_suffix(".safetensors"))
    assert set(runs) == {False, True}
    clip = simprompt.load_clip("icons")
    shots = simprompt.load_dataset(TASK).base.few_shot(16, seed=1)
    for sar, (card, weights) in runs.items():
        prompt = simprompt.learn(clip, shots, sar=sar, training={"max_steps": 3})
        assert same(prompt.learner.state_dict(), weights)
        for said in ("sar", "training", "options", "template", "novel"):
            assert prompt.card[said] == card[said]


def test_python_learns_what_learn_learns_bit_for_bit(tmp_path, one_thread):
    images = photos(tmp_path / "photos")
    out = tmp_path / "learned"
    invoke("learn", str(images), "--out", str(out), "--set", *SHORT, "--json")
    own = folder.load(images)
    shots = View(own.dataset, "known", own.known).few_shot(16, seed=1)
    prompt = simprompt.learn(
        simprompt.load_clip("icons"), shots, sar={"novel": "random-nouns"},
        training={"max_steps": 3},
    )  # fmt: skip
    assert same(prompt.learner.state_dict(), load_file(out / "prompt" / "prompt.safetensors"))
    card = json.loads((out / "prompt" / "card.json").read_text(encoding="utf-8"))
    assert prompt.card["novel"] == card["novel"]
    assert len(card["novel"]) == 200


def test_all_ways_take_the_recipe_of_method_and_model():
    recipe = recipes.load("coop@icons")
    (point,) = [
        configs[0] for p, configs in grid.plan(find("lambda"), datasets=[TASK], seeds=[1]).rows
        if p.label == "CoOp"
    ]  # fmt: skip
    ways = [
        *plans.plan([TASK], [1], ICONS, MethodOptions()),
        *plans.grid([[]], [TASK], [1], ICONS, MethodOptions())[0],
        plans.own("photos", 1, ICONS, MethodOptions()),
        plans.for_learn(TASK, "icons", plans.LearnArguments()),
        point,
    ]
    for config in ways:
        assert config.method == "coop"
        assert recipe["training"].items() <= config.training.model_dump().items()
        assert recipe["options"].items() <= config.options.items()
        if config.sar:
            assert recipe["sar"].items() <= config.sar.model_dump().items()


def test_without_a_recipe_the_published_schedule_is_taken():
    kgcoop = methods.find("kgcoop").schedule
    for config in (
        plans.for_learn("x", "ViT-B-16/openai", plans.LearnArguments("kgcoop")),
        plans.for_learn("x", "icons", plans.LearnArguments("kgcoop", recipe="published")),
        *plans.plan(["x"], [1], ICONS, MethodOptions("published", method="kgcoop")),
    ):
        assert config.training == kgcoop
    assert plans.for_learn("x", "icons", plans.LearnArguments("kgcoop")).training != kgcoop


def test_a_folder_called_like_a_recipe_brings_none():
    config = plans.for_learn("x", "paper", plans.LearnArguments())
    assert config.training == methods.find("coop").schedule


def test_a_dict_changes_the_recipe_and_an_object_replaces_it(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "method: kgcoop\ntraining: {epochs: 7, lr: 0.5}\nsar: {weight: 0.7, sample: 9}\n"
        "options: {n_ctx: 6}\ntemplate: 'my {}.'\n",
        encoding="utf-8",
    )

    def given(**arguments):
        arguments = plans.LearnArguments(recipe=str(mine), **arguments)
        return plans.for_learn("x", "icons", arguments)

    plain = given()
    assert (plain.method, plain.template, plain.options["n_ctx"]) == ("kgcoop", "my {}.", 6)
    assert plain.sar is None
    assert given(sar=None).sar is None
    assert given(sar=True).sar == SAR(weight=0.7, classes_per_step=9)
    assert given(sar=0.0).sar == SAR(weight=0, classes_per_step=9)
    assert given(sar={"sample": 5}).sar == SAR(weight=0.7, classes_per_step=5)
    assert given(sar=SAR(temperature=0.3)).sar == SAR(temperature=0.3)
    assert given(training={"epochs": 2}).training.epochs == 2
    assert given(training={"epochs": 2}).training.lr == 0.5
    assert given(training=Training(epochs=2)).training == Training(epochs=2)
    assert given(options={"weight": 3.0}).options == {**plain.options, "weight": 3.0}
    assert given(template="your {}.").template == "your {}."
    with pytest.raises(SimpromptError, match="shots"):
        given(training={"shots": 4})


def test_names_that_would_be_ignored_are_refused_in_python(tiny_clip):
    split = simprompt.load_dataset(TASK).base.few_shot(1)
    with pytest.raises(SimpromptError, match="add sar=True"):
        simprompt.learn(tiny_clip, split, novel=["bird"])
    with pytest.raises(SimpromptError, match="'novel_count'"):
        simprompt.learn(tiny_clip, split, sar={"novel_count": 5}, novel=["bird"])


# ---- a setting has an effect, or is refused


def another(kind: type, name: str) -> object:
    """A valid value of a setting that is not its default."""
    field = kind.model_fields[name]
    if choices := [v for v in get_args(field.annotation) if isinstance(v, str | int)]:
        return next(v for v in choices if v != field.default)
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, float):
        return 0.123
    texts = {"novel": "wordnet", "template": "one {}.", "template_set": "kgcoop"}
    texts |= {"regulariser": "text-to-text", **dict.fromkeys(OWN_IMAGES, "species")}
    return {"targets": ["icons/food"], **texts}.get(name, 3)


SETTINGS = [
    (name if group == "run" else f"{group}.{name}", name, kind)
    for group, kind in recipes.KINDS.items()
    for name in kind.model_fields
    if name not in recipes.GROUPS
]

WAYS = {
    "run": lambda text: plans.plan([TASK], [1], ICONS, MethodOptions(settings=[text], sar="on"))[0],
    "tune": lambda text: plans.grid([[text]], [TASK], [1], ICONS, MethodOptions())[0][0],
    "study": lambda text: grid.plan(
        find("lambda"), "smoke", recipe=RecipeOptions(settings=[text])
    ).configs[-1],
    "learn": lambda text: plans.own("photos", 1, ICONS, MethodOptions(settings=[text])),
}


@pytest.mark.parametrize("verb", WAYS)
@pytest.mark.parametrize(("key", "name", "kind"), SETTINGS, ids=[key for key, *_ in SETTINGS])
def test_every_setting_has_an_effect_or_is_refused(verb, key, name, kind):
    value = another(kind, name)
    text = f"{key}={json.dumps(value)}"
    if key in plans.OWNED[verb]:
        with pytest.raises(SimpromptError, match=r"no effect|an option of its own"):
            WAYS[verb](text)
        return
    values = WAYS[verb](text).model_dump(mode="json")
    for part in key.split("."):
        values = values[part]
    assert values == value


@pytest.mark.parametrize("verb", WAYS)
def test_a_setting_with_an_option_belongs_to_it(verb):
    command = typer.main.get_command(app).commands[verb]
    options = {o for p in command.params for o in p.opts}
    owned = {o for o in plans.OWNED[verb].values() if o.startswith("--")}
    assert owned <= options
    fields = {f"--{n.replace('_', '-')}" for n in RunConfig.model_fields} | {"--seeds"}
    assert fields & options - {"--sar"} <= owned | {"--dataset"}


READ_BY_NAME = {"recipe", "settings", "method", "sar"}


@pytest.mark.parametrize("field", dataclasses.fields(MethodOptions), ids=lambda field: field.name)
def test_every_option_of_a_method_reaches_the_run(field):
    if field.name in READ_BY_NAME:
        return
    key = field.metadata["setting"]
    assert key, (
        f"The option {field.name} of MethodOptions changes no run: give it the setting that it "
        f'stands for, option(..., setting="training.{field.name}").'
    )
    group, name = recipes.place(key)
    value = another(recipes.KINDS[group], name)
    method = MethodOptions(sar="on", **{field.name: value})
    for config in (plans.plan([TASK], [1], ICONS, method)[0], plans.own("x", 1, ICONS, method)):
        values = config.model_dump(mode="json")
        assert (values if group == "run" else values[group])[name] == value


OWN = ("learn", "photos")
RUN = ("run", "--dataset", TASK)
TUNE = ("tune", "--dataset", TASK, "--grid")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*RUN, "--set", "seed=7"), "use --seeds 7"),
        ((*RUN, "--set", "run.seed=7"), "use --seeds 7"),
        ((*RUN, "--set", "model=x"), "use --model x"),
        ((*RUN, "--set", "dataset=dtd"), "use --dataset dtd"),
        ((*RUN, "--set", "method=kgcoop"), "use --method kgcoop"),
        ((*RUN, "--set", "tokenizer=a.json"), "use --tokenizer a.json"),
        ((*RUN, "--set", "max_test_per_class=3"), "use --max-test-per-class 3"),
        ((*RUN, "--set", "run.speed=3"), "no setting 'run.speed'"),
        ((*RUN, "--set", "sar=on"), "sar.weight=0.4"),
        ((*RUN, "--set", "training=short"), "training.epochs=50"),
        ((*RUN, "--set", "=3"), "key=value"),
        ((*RUN, "--set", "lr=1", "--set", "training.lr=2"), "training.lr twice"),
        ((*RUN, "--shots", "4", "--set", "training.shots=8"), "--shots 4 overrules"),
        ((*RUN, "--sar", "0.3", "--set", "sar.weight=1"), "--sar 0.3 overrules"),
        (
            (*RUN, "--regulariser", "sar", "--set", "sar.regulariser=text-to-text"),
            "--regulariser sar overrules",
        ),
        ((*RUN, "--regulariser", "text-to-text", "--sar", "off"), "no run here is with SAR"),
        ((*RUN, "--sar", "off", "--set", "sar.weight=1"), "no run here is with SAR"),
        ((*RUN, "--method", "vpt", "--set", "sar.weight=1"), "no run here is with SAR"),
        ((*RUN, "--method", "kgcoop", "--recipe", "coop@ijcv"), "--method coop"),
        ((*RUN, "--set", "training.lr=.inf"), "finite number"),
        ((*RUN, "--sar", "inf"), "--sar takes off, on, both or a weight"),
        ((*TUNE, "seed=1,2"), "use --seeds 1"),
        ((*TUNE, "lr=1,2", "--set", "training.lr=3"), "training.lr stands in --set and in --grid"),
        ((*TUNE, "sar.regulariser=sar", "--regulariser", "sar"), "in --regulariser and in --grid"),
        ((*TUNE, "sar.weight=1,2", "--sar", "off"), "no run here is with SAR"),
        ((*TUNE, "lr=1,2", "--sar", "0.4"), "--sar takes off or on"),
        ((*TUNE, "lr=1,2", "--method", "coop,kgcoop"), "no method called 'coop,kgcoop'"),
        ((*TUNE, "lr=1,2", "--recipe", "kgcoop@paper", "--method", "coop"), "--method kgcoop"),
        (("study", "lambda", "--set", "seed=7"), "use --seeds 7"),
        (("study", "lambda", "--set", "protocol=few-shot"), "a study has its protocol"),
        (("study", "lambda", "--set", "method=kgcoop"), "points name their methods"),
        (("study", "lambda", "--recipe", "kgcoop@paper"), "no point of the study"),
        ((*OWN, "--set", "seed=7"), "use --seed 7"),
        ((*OWN, "--set", "template=a {}."), "use --template a {}."),
        ((*OWN, "--set", "protocol=few-shot"), "no use for it"),
        ((*OWN, "--set", "threads=2"), "no use for it"),
        ((*OWN, "--set", "sar.keep_overlap=true"), "--new-classes"),
        ((*OWN, "--shots", "4", "--set", "training.shots=8"), "--shots 4 overrules"),
        ((*OWN, "--sar", "off", "--set", "sar.novel=wordnet"), "no run here is with SAR"),
        ((*OWN, "--sar", "both"), "--sar takes off, on or a weight"),
        ((*OWN, "--recipe", "kgcoop@paper", "--method", "coop"), "--method kgcoop"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_would_be_ignored_is_refused_with_what_to_use(arguments, words, tmp_path):
    with pytest.raises(SimpromptError) as error:
        invoke(*arguments, "--out", str(tmp_path / "out"))
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


# ---- recipes


def test_zero_shot_goes_along_with_the_recipe_of_another_method():
    method = MethodOptions("coop+sar@paper", method="zero-shot,coop")
    configs = plans.plan(["eurosat"], [1], ModelOptions("ViT-B-16/openai"), method)
    assert [c.label for c in configs] == ["zero-shot", "coop", "coop+sar"]


@pytest.mark.parametrize("study", ["eurosat-coop", "domain-shift", "main", "overhead"])
def test_a_studys_recipe_is_for_the_points_of_its_method(study):
    plan = grid.plan(find(study), datasets=["dtd"], recipe=RecipeOptions("coop@ijcv"), seeds=[1])
    ijcv = plans.for_learn("dtd", "x", plans.LearnArguments(recipe="coop@ijcv")).training
    for point, (config,) in plan.rows:
        if point.method == "coop":
            assert config.training == ijcv
        elif point.method != "zero-shot":
            assert config.training != ijcv


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"training: [1, 2]\n", "training: {epochs: 50}"),
        (b"sar: no\nmethod: coop\n", None),
        (b"sar: 3\n", "sar: {weight: 0.4}"),
        (b"note: \xff\n", "UTF-8"),
        (b"training: {epochs\n", "not valid YAML"),
    ],
)
def test_a_recipe_file_that_is_none_is_refused(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
    if words is None:
        assert recipes.load(str(path))["method"] == "coop"
        return
    with pytest.raises(SimpromptError, match=r"mine\.yaml") as error:
        recipes.load(str(path))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_another_host_does_not_take_the_settings_of_the_recipes_own():
    recipe = recipes.load("image-map@icons")
    own = recipe["options"]["host_options"]
    for said, left in [
        (["options.ridge=0.4"], own),
        (["options.host=coop"], own),
        (["options.host=zero-shot"], None),
        (["options.host=kgcoop", 'options.host_options={"n_ctx": 2}'], {"n_ctx": 2}),
    ]:
        assert recipes.assign(recipe, said)["options"].get("host_options") == left
    assert recipe["options"]["host_options"] == own  # what was given is left as it was
    config = recipes.build(
        recipes.assign(recipe, ["options.host=zero-shot"]), False, dataset="icons/animals"
    )
    assert config.options["host"] == "zero-shot"


def test_a_value_that_is_no_yaml_is_text():
    values = recipes.assign({}, ["template={} in [the wild", "training.lr=1e-3"])
    assert values["template"] == "{} in [the wild"


# ---- learn: the names of new classes, and the defaults


@pytest.mark.parametrize(("new", "count", "total"), [(3, 20, 20), (20, 20, 20), (31, 20, 31)])
def test_nouns_fill_up_only_where_there_is_room(tiny_clip, new, count, total):
    names = [f"house {i}" for i in range(new)]
    sar = SAR(novel="random-nouns", novel_count=count)
    origin = Origin("mine", "1", ("a {}.",), tuple(names))
    made = filled_up(names, sar, tiny_clip, ["cat", "dog"], origin)
    assert list(made.names[:new]) == names
    assert len(made) == len(set(made.names)) == total
    parts = made.provenance.get("parts", [made.provenance])
    assert [part["got"] for part in parts] == [n for n in (new, total - new) if n]
    assert parts[0]["source"] == "given by the caller"


def test_learn_takes_two_hundred_names_and_more(tmp_path):
    names = [f"thing {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(203)]
    (tmp_path / "new.txt").write_text("\n".join(names), encoding="utf-8")
    images = photos(tmp_path / "photos")
    invoke("learn", str(images), "--new-classes", str(tmp_path / "new.txt"), "--out",
           str(tmp_path / "out"), "--set", "training.max_steps=1", "--json")  # fmt: skip
    card = json.loads((tmp_path / "out" / "prompt" / "card.json").read_text(encoding="utf-8"))
    assert card["novel"] == names


def test_learn_takes_the_source_and_the_count_that_are_set(tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text("anchor\nbell\ncandle\ndrum\n", encoding="utf-8")
    (tmp_path / "new.txt").write_text("bell\nlamp\n", encoding="utf-8")
    images = photos(tmp_path / "photos")
    invoke("learn", str(images), "--new-classes", str(tmp_path / "new.txt"), "--shots", "2",
           "--out", str(tmp_path / "out"), "--set", "training.max_steps=1", "--set",
           f"sar.novel=file:{own}", "--set", "sar.novel_count=4", "--json")  # fmt: skip
    card = json.loads((tmp_path / "out" / "prompt" / "card.json").read_text(encoding="utf-8"))
    assert card["novel"] == ["bell", "lamp", "anchor", "candle"]
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert result["training_images"] == 4


def test_learn_keeps_to_a_recipes_template_and_shots(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("template: 'one {}.'\ntraining: {shots: 3}\n", encoding="utf-8")
    config = plans.own("photos", 1, ICONS, MethodOptions(str(mine)))
    assert (config.template, config.training.shots) == ("one {}.", 3)
    config = plans.own("photos", 1, ICONS, MethodOptions(str(mine), shots=2), template="{}")
    assert (config.template, config.training.shots) == ("{}", 2)


def test_help_names_the_default_template(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert DEFAULT_TEMPLATE in invoke("learn", "--help")


@pytest.mark.parametrize("text", ["one", "", "1,", "1.5", "1;2"])
def test_numbers_that_are_none_name_the_option(text):
    with pytest.raises(SimpromptError, match="--seeds takes whole numbers"):
        whole_numbers(text, "--seeds")
    assert whole_numbers("3, 1", "--seeds") == [3, 1]


def test_what_sar_takes():
    assert sar_choices("both") == (False, True)
    assert sar_choices("0") == (0.0,)
    for text in ("maybe", "-1", "nan", "inf", ""):
        with pytest.raises(SimpromptError, match="--sar takes"):
            sar_choices(text)


def test_what_is_named_twice_is_run_once():
    configs = plans.plan([TASK, TASK], [1, 1], ICONS, MethodOptions(method="coop,coop"))
    assert [c.label for c in configs] == ["coop", "coop+sar"]


FORMER = {
    "sar": {
        "sample": 8,
        "columns": "all",
        "diagonal": "in",
        "direction": "learned",
        "redraw": "once",
    },
    "training": {"views": "live"},
}
PRESENT = {
    "sar": {"classes_per_step": 8, "compare_with": "all", "include_self": True, "kl": "learned",
            "resample": "once"},
    "training": {"views": "random"},
}  # fmt: skip


def test_settings_of_earlier_releases_are_read_everywhere(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump({"method": "coop", **FORMER}), encoding="utf-8")
    by_recipe = plans.plan(
        ["icons/food"], [1], ICONS, MethodOptions(str(recipe), method="coop", sar="on")
    )
    words = [f"{group}.{key}={value}" for group, v in FORMER.items() for key, value in v.items()]
    by_set = plans.plan(
        ["icons/food"], [1], ICONS, MethodOptions(settings=words, method="coop", sar="on")
    )
    arguments = plans.LearnArguments("coop", FORMER["sar"], training=FORMER["training"])
    by_dict = plans.for_learn("icons/food", "icons", arguments)
    for config in (*by_recipe, *by_set, by_dict):
        for group, values in PRESENT.items():
            found = getattr(config, group).model_dump()
            assert {key: found[key] for key in values} == values
    dept = plans.plan(
        ["icons/food"], [1], ICONS, MethodOptions(settings=["options.times=2"], method="dept")
    )
    assert dept[0].options["head_lr_scale"] == 2
    arguments = plans.LearnArguments("coop", {"sample": 8, "classes_per_step": 9})
    with pytest.raises(SimpromptError, match="sample is called classes_per_step now"):
        plans.for_learn("icons/food", "icons", arguments)
