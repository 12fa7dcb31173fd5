"""`dlkit recipes` lists, shows and copies the shipped recipes."""

import contextlib
import json
import re
import typing
from pathlib import Path

import pytest

from dlkit import data as datasets
from dlkit import models, recipe, recipe_keys
from dlkit.data.sequences import SequenceData
from dlkit.errors import UsageError
from dlkit.tasks import TASKS
from dlkit.values import check_value, members, toml_value

TEXT = """# LeNet-5 on the handwritten digits (LeCun et al. 1998),
# with full connections.
#
#   dlkit train lenet

[model]
name = "lenet"

[data]
name = "digits"

[train]
lr = 0.01  # of three tried
"""


REST = "with full connections."  # the sentence does not end where its line does


@pytest.fixture(autouse=True)
def shipped(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "lenet_digits.toml").write_text(TEXT)
    monkeypatch.setattr(recipe, "folder", lambda: folder)
    return folder


def test_list(dlkit):
    result = dlkit("recipes", "list")
    assert (result.code, result.err) == (0, "")
    assert [line.split(maxsplit=3) for line in result.out.splitlines()] == [
        ["recipe", "model", "data", "about"],
        ["lenet_digits", "lenet", "digits", f"LeNet-5 on the handwritten digits (LeCun et al. 1998), {REST}"],
    ]
    assert json.loads(dlkit("recipes", "list", "--json").out)[0]["recipe"] == "lenet_digits"


def test_show_prints_the_file(dlkit, tmp_path):
    assert dlkit("recipes", "show", "lenet_digits") == (0, TEXT, "")
    (tmp_path / "mine.toml").write_text(TEXT)
    assert dlkit("recipes", "show", "mine.toml").out == TEXT
    shown = json.loads(dlkit("recipes", "show", "lenet_digits", "--json").out)
    assert shown["train"] == {"lr": 0.01}
    assert shown["about"][3] == "dlkit train lenet"


def test_copy_gives_a_file_that_trains_the_same(dlkit, tmp_path):
    result = dlkit("recipes", "copy", "lenet_digits")
    copied = tmp_path / "lenet_digits.toml"
    assert (result.code, result.out) == (0, "")
    assert copied.read_text() == TEXT
    assert "next: dlkit train lenet --recipe lenet_digits.toml" in result.err
    assert recipe.resolve(recipe_path=copied).diff(recipe.resolve("lenet")) == {}


def test_copy_to_a_name_or_a_folder_and_never_over_a_file(dlkit, tmp_path):
    (tmp_path / "mine").mkdir()
    assert dlkit("recipes", "copy", "lenet_digits", "mine").code == 0
    assert dlkit("recipes", "copy", "lenet_digits", "mine/b.toml").code == 0
    assert sorted(path.name for path in Path("mine").iterdir()) == ["b.toml", "lenet_digits.toml"]
    Path("mine/b.toml").write_text("precious")
    again = dlkit("recipes", "copy", "lenet_digits", "mine/b.toml")
    assert again.code == 2
    assert again.err.startswith("error: mine/b.toml exists\n")
    assert Path("mine/b.toml").read_text() == "precious"


def test_copy_says_in_json_where_the_file_is(dlkit):
    result = dlkit("recipes", "copy", "lenet_digits", "mine.toml", "--json")
    assert json.loads(result.out) == {"recipe": "lenet_digits", "file": "mine.toml"}


def test_what_is_not_there(dlkit):
    unknown = dlkit("recipes", "show", "lenet_digit")
    assert unknown.code == 2
    assert unknown.err.splitlines() == [
        "error: unknown recipe: lenet_digit", "hint: did you mean `lenet_digits`? `dlkit recipes list` shows all"
    ]  # fmt: skip
    assert dlkit("recipes", "show", "./none.toml").code == 3
    nowhere = dlkit("recipes", "copy", "lenet_digits", "no/such/folder.toml")
    assert nowhere.code == 2
    assert nowhere.err.splitlines() == [
        "error: cannot write no/such/folder.toml: there is no folder no/such", "hint: make it, or name another file"
    ]  # fmt: skip


def test_a_damaged_recipe_is_named_with_its_line(dlkit, shipped):
    (shipped / "odd.toml").write_text('[model]\nname = "lenet\n')
    result = dlkit("recipes", "list")
    assert result.code == 2
    assert f"error: {shipped / 'odd.toml'}, line 2, column 14: " in result.err


def test_keys_are_those_of_the_sections_with_type_default_and_purpose(dlkit):
    shown = json.loads(dlkit("recipes", "keys", "--json").out)
    assert [key["key"] for key in shown][:4] == ["model.name", "data.name", "data.dir", "data.augment"]
    keys = {key.pop("key"): key for key in shown}
    assert keys["train.gamma"] == {
        "accepts": "a number above 0 and up to 1", "default": 0.1, "about": "factor of step and plateau",
        "required": False,
    }  # fmt: skip
    assert keys["model.name"]["required"]
    assert {key.partition(".")[0] for key in keys} == {"model", "data", "train", "decode"}
    assert all(key["about"] for key in keys.values())
    assert not {"model.options", "data.options"} & set(keys)


def test_keys_that_begin_so(dlkit):
    result = dlkit("recipes", "keys", "train.lr")
    assert [re.split("  +", line) for line in result.out.splitlines()] == [
        ["key", "takes", "default", "about"],
        ["train.lr", "a number above 0", "0.001", "the largest learning rate of the schedule"],
    ]
    assert result.err == ""
    assert dlkit("recipes", "keys", "model").err == "`--model NAME` adds the options of that model\n"
    none = dlkit("recipes", "keys", "train.lrr")
    assert none.code == 2
    assert none.err.splitlines()[0] == "error: unknown key: train.lrr"
    assert "did you mean `train.lr`?" in none.err


def test_keys_of_a_model_and_of_data_are_those_of_their_functions(dlkit):
    """What the docstring says, what the signature has, and the bounds that hold for each share that is dropped."""
    of_lenet = {key["key"]: key for key in json.loads(dlkit("recipes", "keys", "lenet", "--json").out)}
    assert set(of_lenet) == {
        f"model.{name}" for name in ("name", "pool", "init", "norm", "activation", "bias_init", "dropout")
    }
    assert of_lenet["model.pool"]["accepts"] == "one of max, average"
    assert of_lenet["model.pool"]["about"] == "how S2 and S4 halve the resolution"
    assert of_lenet["model.dropout"]["accepts"] == "a number of at least 0 and below 1"
    arguments = ("recipes", "keys", "--model", "resnet18", "--data", "./photos", "--json")
    keys = {key["key"]: key for key in json.loads(dlkit(*arguments).out)}
    assert keys["train.optimizer"]["default"] == "adamw"  # of the task
    assert keys["model.stem"]["default"] == "auto"
    assert "model.depth" not in keys
    assert keys["data.split_seed"]["about"] == "another one holds out other images"
    assert keys["data.mixup_alpha"]["about"].startswith("of mixup: the weight is of Beta(alpha, alpha)")
    assert keys["data.class_weights"]["accepts"] == "balanced or a list of numbers above 0 or none"
    texts = {key["key"]: key for key in json.loads(dlkit("recipes", "keys", "data", "--data", "tatoeba", "--json").out)}
    assert texts["data.vocabulary"]["default"] == 8000
    assert texts["data.vocabulary"]["about"] == "most ids of a tokenizer, the four special ones included"
    assert texts["data.split"]["about"] == "how validation and test pairs are chosen"
    assert "data.class_weights" not in texts


# What a key needs beside it.
BESIDE = {
    "train.progressive": ["train.progressive_until=[0.3]"],
    "train.progressive_until": ["train.progressive=[0.5]"],
    "train.part": ["train.parts=4"],
    "data.mixup_alpha": ['data.augment=["mixup"]'],
}
OF_IMAGES = {"data.class_weights": "balanced", "data.mixup_alpha": 0.5}


def another(declared):
    """A value that a field takes and that is not its default."""
    literals = [member for member in members(declared.annotation) if typing.get_origin(member) is typing.Literal]
    choices = [choice for literal in literals for choice in typing.get_args(literal)]
    for value in [*choices, 2, 0.5, True, False, [0.5], ["crop"], "loss", "10m"]:
        with contextlib.suppress(UsageError):
            if check_value(recipe.type_of(declared), value, "key") != declared.default:
                return value
    raise AssertionError(declared)


def asked():
    """Every key that is no name -> a value."""
    return OF_IMAGES | {
        f"{section}.{name}": another(declared)
        for section, fields in recipe.SECTIONS.items()
        for name, declared in fields.model_fields.items()
        if name not in {"name", "options"}
    }


@pytest.mark.parametrize(
    "model", ["lenet", "seq2seq", "text_bag", "tagger_lstm", "gpt", "gru", "video_lstm", "captioner"]
)
def test_keys_of_a_pair_are_those_that_it_takes(model):
    data = TASKS[models.task_of(model)].default_data
    values, taken = asked(), set()
    for key, value in values.items():
        texts = [f"{key}={toml_value(value)}", *BESIDE.get(key, [])]
        if key in recipe._READ_BY:
            other, choices = recipe._READ_BY[key]
            texts.append(f"{other}={choices[0]}")
        with contextlib.suppress(UsageError):
            recipe.resolve(model, data, overrides=[(*text.split("=", 1), "set") for text in texts], shipped=False)
            taken.add(key)
    assert len(taken) > 40
    refused_with_the_data = {"train.label_smoothing"} if data == "synthetic:adding" else set()
    listed = {key.key: key for key in recipe_keys.keys(model, data)}
    assert taken - refused_with_the_data == listed.keys() & values.keys()
    assert listed["train.resample"].accepts == "one of bootstrap, part or none"


def test_keys_of_a_net_that_classifies_have_none_of_decoding(dlkit):
    shown = dlkit("recipes", "keys", "--model", "lenet", "--data", "synthetic:shapes", "--json")
    listed = {key["key"] for key in json.loads(shown.out)}
    of_texts = {"train.sampling", "train.sampling_rate", "train.batch_tokens", "train.decode_every", "data.dir"}
    assert not [key for key in listed if key.startswith("decode.")]
    assert not listed & of_texts
    assert {"train.momentum", "train.progressive", "data.augment", "data.class_weights", "model.pool"} <= listed
    told = dlkit("recipes", "keys", "decode", "--model", "lenet").err
    assert told == "error: decode.max_len is for tasks that generate, and lenet does not\nhint: leave it out\n"


@pytest.mark.parametrize(
    ("key", "model", "arguments", "told"),
    [
        ("data.class_weights", "lenet", [], "whether there is data.class_weights depends on the data"),
        ("data.dir", "lenet", ["--data", "digits"], "digits has no data.dir"),
        ("model.norm", "lstm_lm", [], "lstm_lm has no model.norm"),
    ],
)
def test_a_key_that_others_have_is_not_called_unknown(dlkit, key, model, arguments, told):
    shown = dlkit("recipes", "keys", key, "--model", model, *arguments)
    assert (shown.code, shown.err.splitlines()[0]) == (2, f"error: {told}")


def test_choices_and_keys_that_a_model_does_not_know_are_not_listed():
    def listed(model, data):
        return {key.key: key.accepts for key in recipe_keys.keys(model, data)}

    assert "head_bootstrap" in listed("heads", "digits")["train.resample"]
    assert "train.label_smoothing" in listed("gru", "synthetic:copy_delay")
    assert "data.carry" in listed("gru_lm", "shakespeare")
    assert "data.carry" not in listed("gpt", "shakespeare")


def test_keys_of_prepared_data(dlkit):
    listed = dlkit(
        "recipes", "keys", "data.d", "--model", "resnet20", "--data", "cifar10", "--data-dir", "here", "--json"
    )
    assert [key["key"] for key in json.loads(listed.out)] == ["data.dir"]
    refused = dlkit("recipes", "keys", "--data", "digits", "--data-dir", "here")
    assert (refused.code, refused.err.splitlines()[0]) == (
        2, "error: digits is no set of TensorFlow Datasets: --data-dir is for those"
    )  # fmt: skip
    assert dlkit("recipes", "keys", "--data-dir", "here").code == 2


def test_every_option_of_ours_says_what_it_does():
    for model in models.names():
        for key in recipe_keys.keys(model, TASKS[models.task_of(model)].default_data):
            assert key.about, key.key
    for data in datasets.names():
        assert all(key.about for key in recipe_keys.keys(None, data))


def test_keys_of_a_users_dataset_and_language_model_that_need_an_option(monkeypatch):
    """They cannot be made to be looked at, and are listed all the same."""

    def numbers(*, file: str) -> SequenceData:
        """Args:
        file: of the numbers.
        """

    def writer(vocabulary: int, *, width: int):
        """Args:
        width: of its layers.
        """

    made, built = recipe_keys.datasets.builder, models.builder
    monkeypatch.setattr(
        recipe_keys.datasets, "builder", lambda name, *at, **of: numbers if name == "mine" else made(name, *at, **of)
    )
    monkeypatch.setattr(models, "builder", lambda name: writer if name == "writer" else built(name))
    tasks = models.task_of
    monkeypatch.setattr(models, "task_of", lambda name: "language_modelling" if name == "writer" else tasks(name))
    assert "data.file" in {key.key for key in recipe_keys.keys("rnn", "mine")}
    listed = {key.key for key in recipe_keys.keys("writer", "shakespeare")}
    assert {"model.width", "data.carry"} <= listed
