"""Recipes: values are found in the right order, and written as TOML that reads back the same."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit import data as datasets
from dlkit import models, recipe
from dlkit.errors import DataError, UsageError
from dlkit.tasks import TASKS
from dlkit.values import toml_value


@pytest.fixture(autouse=True)
def none_shipped(tmp_path_factory, monkeypatch):
    """No recipe is shipped, so that a test says itself what a recipe says."""
    empty = tmp_path_factory.mktemp("none")
    monkeypatch.setattr(recipe, "folder", lambda: empty)


# ------------------------------------------------------------------------------------------------------------- TOML

SCALARS = st.one_of(
    st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans(),
    st.sampled_from(['"', "\\", "'''", '"""', "a\nb", "\r\n", "\t", "\x00", "\x1b[31m", "\x7f", "\x85", "\u202e", "#"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_toml_reads_back_as_it_was_written(value):
    text = toml_value(value)
    back = tomllib.loads(f"value = {text}")["value"]
    assert back == value
    assert type(back) is type(value)
    assert text.isprintable() or re.search(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]", text)


@settings(max_examples=60, deadline=None)
@given(options=st.dictionaries(st.text(), VALUES, max_size=4))
def test_a_whole_recipe_reads_back_as_it_was_written(options, tmp_path_factory):
    names = recipe.ModelSection.model_fields
    options = {key: value for key, value in options.items() if key not in names}
    made = recipe.resolve("lenet", flags={f"model.{key}": value for key, value in options.items()})
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(made.to_toml(), encoding="utf-8", newline="")
    loaded = recipe.load(path)
    assert loaded.diff(made) == {}
    assert loaded.model.options == options
    assert loaded.to_dict() == made.to_dict()


def test_sources_stand_beside_the_values_that_are_no_defaults():
    lines = (
        recipe.resolve("lenet", overrides=[("train.lr", "0.25", "set")], flags={"train.seed": 3}).to_toml().splitlines()
    )
    assert 'name = "lenet"  # flag' in lines
    assert 'name = "digits"  # task default' in lines
    assert "lr = 0.25  # set" in lines
    assert "seed = 3  # flag" in lines
    assert "nesterov = false" in lines


def test_a_value_that_was_taken_away_stays_away_when_the_recipe_is_read_again(tmp_path):
    assert TASKS["image_classification"].defaults.get("train.clip_norm"), "the test needs a default to take away"
    made = recipe.resolve("lenet", overrides=[("train.clip_norm", "none", "set")])
    assert made.train.clip_norm is None
    path = tmp_path / "mine.toml"
    path.write_text(made.to_toml())
    assert recipe.resolve(recipe_path=path).train.clip_norm is None


# -------------------------------------------------------------------------------------------------------- precedence


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped recipes with one for lenet on digits."""
    monkeypatch.setattr(recipe, "folder", lambda: tmp_path)
    (tmp_path / "lenet_digits.toml").write_text(
        "# LeCun et al. 1998\n# dlkit train lenet\n\n"
        '[model]\nname = "lenet"\ndropout = 0.5\n\n[data]\nname = "digits"\n\n[train]\nlr = 0.02\nweight_decay = 0.25\n'
    )
    return tmp_path


def test_a_flag_stands_above_set_above_the_recipe_above_the_task_above_the_field(shipped):
    task = TASKS["image_classification"].defaults
    overrides = [("train.weight_decay", "0.125", "set"), ("train.label_smoothing", "0.5", "set")]
    made = recipe.resolve("lenet", overrides=overrides, flags={"train.label_smoothing": 0.25, "train.ema": None})
    expected = {
        "train.label_smoothing": (0.25, "flag"),
        "train.weight_decay": (0.125, "set"),
        "train.lr": (0.02, "recipe"),
        "train.optimizer": (task["train.optimizer"], "task default"),
        "train.momentum": (0.9, "default"),
        "train.ema": (None, "default"),
        "model.dropout": (0.5, "recipe"),
        "data.name": ("digits", "recipe"),
        "data.size": (32, "default"),
    }
    flat = made.flat()
    assert {key: (flat[key], made.sources[key]) for key in expected} == expected
    assert set(made.sources) == set(flat)
    assert (made.name, made.origin, made.task) == ("lenet_digits", "lenet_digits (shipped)", "image_classification")


def test_without_a_recipe_the_defaults_of_the_task_hold(shipped):
    made = recipe.resolve("mlp")
    assert made.data.name == TASKS["image_classification"].default_data
    assert made.train.epochs == TASKS["image_classification"].defaults["train.epochs"]
    assert (made.path, made.name) == (None, "mlp_digits")


def test_a_named_recipe_or_file_is_taken_whole(shipped, tmp_path):
    assert recipe.resolve(recipe_path="lenet_digits").train.lr == 0.02
    mine = tmp_path / "own" / "mine.toml"
    mine.parent.mkdir()
    mine.write_text('[model]\nname = "mlp"\n[train]\nlr = 0.5\n')
    made = recipe.resolve(recipe_path=mine)
    assert (made.name, made.model.name, made.train.lr, made.origin) == ("mine", "mlp", 0.5, str(mine))
    assert recipe.resolve("lenet", recipe_path=mine).model.name == "lenet"


@pytest.mark.parametrize(
    ("model", "data", "name"),
    [
        ("lenet", "digits", "lenet_digits"),
        ("seq2seq", "synthetic:reverse", "seq2seq_reverse"),
        ("resnet18", "cifar10:3.0.2", "resnet18_cifar10"),
        ("transformer", "wmt14_translate/fr-en:1.0.0", "transformer_wmt14_translate"),
        ("resnet18", "/home/me/cats and dogs/", "resnet18_cats-and-dogs"),
        ("resnet18", "./photos", "resnet18_photos"),
        ("resnet18", "../..", "resnet18_data"),
    ],
)
def test_names_of_recipes_are_file_names(model, data, name):
    assert recipe.default_name(model, data) == name


def test_steps_and_epochs_exclude_each_other_and_the_nearer_one_wins():
    assert recipe.resolve("lenet").train.epochs
    by_steps = recipe.resolve("lenet", flags={"train.steps": 7})
    assert (by_steps.train.steps, by_steps.train.epochs) == (7, None)
    back = recipe.resolve("lenet", overrides=[("train.steps", "7", "set")], flags={"train.epochs": 2})
    assert (back.train.steps, back.train.epochs) == (None, 2.0)
    with pytest.raises(UsageError, match=r"train\.epochs and train\.steps exclude each other"):
        recipe.resolve("lenet", flags={"train.steps": 7, "train.epochs": 2})
    with pytest.raises(UsageError, match="neither"):
        recipe.resolve("lenet", overrides=[("train.epochs", "none", "set")])


@pytest.fixture
def by_tokens(tmp_path):
    """A recipe whose batches are counted in tokens."""
    path = tmp_path / "by_tokens.toml"
    path.write_text('[model]\nname = "seq2seq"\n[train]\nbatch_tokens = 4096\n')
    return path


@pytest.mark.parametrize(
    ("sets", "flags", "size", "tokens"),
    [
        ({}, {}, 64, 4096),
        ({}, {"batch_size": 16}, 16, None),
        ({"batch_size": "16"}, {}, 16, None),
        ({"batch_size": "16"}, {"batch_tokens": 500}, 64, 500),
        ({"batch_tokens": "500"}, {"batch_size": 16}, 16, None),
        ({"batch_tokens": "none"}, {}, 64, None),
    ],
)
def test_of_examples_and_tokens_per_update_the_nearer_one_wins(tmp_path, by_tokens, sets, flags, size, tokens):
    overrides = [(f"train.{key}", text, "set") for key, text in sets.items()]
    given = {f"train.{key}": value for key, value in flags.items()}
    made = recipe.resolve(recipe_path=by_tokens, overrides=overrides, flags=given)
    assert (made.train.batch_size, made.train.batch_tokens) == (size, tokens)
    assert made.train.batch == ((size, "examples") if tokens is None else (tokens, "tokens"))
    path = tmp_path / "recipe.toml"
    path.write_text(made.to_toml())
    again = recipe.load(path).train
    assert (again.batch_size, again.batch_tokens) == (size, tokens), "as the run keeps it"


def test_examples_and_tokens_per_update_in_one_place_exclude_each_other(by_tokens):
    excluded = r"train\.batch_size and train\.batch_tokens exclude each other"
    with pytest.raises(UsageError, match=excluded):
        recipe.resolve("seq2seq", flags={"train.batch_size": 16, "train.batch_tokens": 500})
    by_tokens.write_text(by_tokens.read_text() + "batch_size = 16\n")
    with pytest.raises(UsageError, match=excluded):
        recipe.resolve(recipe_path=by_tokens)
    assert recipe.resolve(recipe_path=by_tokens, flags={"train.batch_size": 8}).train.batch == (8, "examples")


def test_micro_batches_are_compared_with_examples_and_not_with_tokens(by_tokens):
    parts = {"train.accumulate": 100}
    assert recipe.resolve(recipe_path=by_tokens, flags=parts).train.accumulate == 100
    with pytest.raises(UsageError, match=r"train\.accumulate 100 is more than train\.batch_size"):
        recipe.resolve(recipe_path=by_tokens, flags=parts | {"train.batch_size": 16})


def test_the_resolved_recipe_of_a_run_by_steps_trains_by_steps_again(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.resolve("lenet", flags={"train.steps": 7}).to_toml())
    assert recipe.resolve(recipe_path=path).train.steps == 7
    assert recipe.load(path).train.epochs is None


def test_load_adds_no_defaults_of_the_task_and_takes_flags(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[model]\nname = "lenet"\n[data]\nname = "digits"\n[train]\nepochs = 1\n')
    loaded = recipe.load(path, {"train.max_time": "90s", "data.dir": None})
    assert loaded.train.clip_norm is None
    assert recipe.seconds(loaded.train.max_time) == 90
    assert loaded.name == "lenet_digits", "not `recipe`, the name of every run's file"


def test_diff_says_what_differs():
    one = recipe.resolve("lenet", flags={"train.lr": 0.5})
    two = recipe.resolve("lenet", overrides=[("train.lr", "0.25", "set"), ("model.norm", "none", "set")])
    assert one.diff(two) == {"train.lr": (0.5, 0.25), "model.norm": (None, "none")}
    assert one.diff(one) == {}


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_durations_are_seconds(text, expected):
    assert recipe.seconds(recipe.resolve("lenet", flags={"train.max_time": text}).train.max_time) == expected


# ------------------------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.lr=0.5", "lr", 0.5),
        ("train.lr = 5e-1", "lr", 0.5),
        ("train.optimizer=sgd", "optimizer", "sgd"),
        ('train.optimizer="sgd"', "optimizer", "sgd"),
        ("train.freeze=stage1_*", "freeze", ["stage1_*"]),
        ("train.freeze=['a', 'b']", "freeze", ["a", "b"]),
        ("train.tensorboard=true", "tensorboard", True),
        ("train.warmup=100", "warmup", 100),
        ("train.warmup=0.1", "warmup", 0.1),
        ("train.init_from=12", "init_from", "12"),
        ("train.init_from=2024-01-01", "init_from", "2024-01-01"),
        ("train.init_from=runs/a=b", "init_from", "runs/a=b"),
        ("train.seed=1_000", "seed", 1000),
        ("train.ema=none", "ema", None),
    ],
)
def test_a_value_of_set_is_toml_or_plain_text(text, key, value):
    made = recipe.resolve("lenet", overrides=[(*recipe.parse_override(text), "set")])
    assert getattr(made.train, key) == value
    assert type(getattr(made.train, key)) is type(value)


def test_what_the_chosen_optimizer_and_schedule_do_not_read_is_refused_unless_a_file_says_it(tmp_path):
    drops = ("train.milestones", "[0.25, 0.5]", "set")
    made = recipe.resolve("lenet", overrides=[drops, ("train.schedule", "step", "set")])
    assert made.train.milestones == [0.25, 0.5]
    for overrides, flags in [([drops], {}), ([], {"train.momentum": 0.5}), ([], {"train.power": 2.0})]:
        with pytest.raises(UsageError, match="is for the (schedule|optimizer)"):
            recipe.resolve("lenet", overrides=overrides, flags=flags)
    (tmp_path / "recipe.toml").write_text(recipe.resolve("lenet").to_toml())
    assert recipe.load(tmp_path / "recipe.toml").train.milestones == [0.5, 0.75]


# Model, choice, what it leaves unread, what is said of that, and what it reads.
UNREAD = [
    ("transformer", "", "data.min_count=1", "the tokenizer word, and this one is unigram", "data.coverage=0.99"),
    ("transformer", "data.tokenizer=bpe", "data.min_count=1", "the tokenizer word, and this one is bpe",
     "data.normalization=identity"),
    ("transformer", "data.tokenizer=word", "data.coverage=0.99",
     "the tokenizer unigram or bpe or char, and this one is word", "data.min_count=1"),
    ("transformer", "data.tokenizer=char", "data.normalization=identity",
     "the tokenizer unigram or bpe, and this one is char", "data.coverage=0.99"),
    ("seq2seq", "model.cell=gru", "model.forget_bias=2.5", "the cell lstm, and this one is gru", "model.width=8"),
    ("seq2seq_attention", "model.cell=rnn", "model.forget_bias=2.5", "the cell lstm, and this one is rnn", ""),
    ("transformer", "", "model.max_length=99", "the positions learned, and these are sinusoidal", "model.ffn=8"),
    ("transformer", "model.positions=none", "model.max_length=99", "the positions learned, and these are none", ""),
    ("seq2seq", "", "train.sampling_rate=0.5",
     "the sampling linear or constant or exponential or inverse_sigmoid, and this one is none",
     "model.forget_bias=2.5"),
    ("transformer", "", "decode.alpha=1.5", "the length norm gnmt, and this one is avg", "decode.length_norm=gnmt"),
    ("lenet", "", "decode.max_len=5", "tasks that generate, and lenet does not", ""),
]  # fmt: skip


@pytest.mark.parametrize(("model", "choice", "unread", "message", "read"), UNREAD)
@pytest.mark.parametrize("where", ["set", "flag", "recipe"])
def test_what_the_choices_of_a_recipe_leave_unread_is_refused(tmp_path, where, model, choice, unread, message, read):
    names = {"model.name": model, "data.name": "digits" if model == "lenet" else "tatoeba"}
    mine = tmp_path / "mine.toml"

    def resolved(*settings):
        texts = names | dict(text.split("=") for text in settings if text)
        if where == "set":
            return recipe.resolve(overrides=[(*item, "set") for item in texts.items()])
        values = {key: json.loads(text) if text[0].isdigit() else text for key, text in texts.items()}
        if where == "flag":
            return recipe.resolve(names["model.name"], names["data.name"], flags=values)
        mine.write_text("\n".join(f"{key} = {toml_value(value)}" for key, value in values.items()))
        return recipe.resolve(recipe_path=mine)

    made = resolved(choice, read).flat()
    assert all(str(made[key]) == text for key, _, text in (item.partition("=") for item in (choice, read) if item))
    with pytest.raises(UsageError) as caught:
        resolved(choice, unread)
    prefix = f"{mine}: " if where == "recipe" else ""
    assert caught.value.message == f"{prefix}{unread.partition('=')[0]} is for {message}"
    assert caught.value.hint.startswith("leave it out")


@pytest.mark.parametrize(
    ("model", "key", "add"),
    [
        ("lenet", "train.gamma", "--schedule step"),
        ("transformer", "model.max_length", "--set model.positions=learned"),
        ("seq2seq", "decode.alpha", "--set decode.length_norm=gnmt"),
    ],
)
def test_the_hint_says_what_would_read_it(model, key, add):
    with pytest.raises(UsageError) as caught:
        recipe.resolve(model, overrides=[(key, "1", "set")])
    assert caught.value.hint == f"leave it out, or add `{add}`"


def test_a_resolved_recipe_is_a_recipe_though_it_holds_all_keys(tmp_path):
    """Also one whose file had what a choice on the command line leaves unread: that is left out."""
    mine, again = tmp_path / "mine.toml", tmp_path / "again.toml"
    mine.write_text(
        '[model]\nname = "seq2seq"\nforget_bias = 2.0\n[data]\nname = "tatoeba"\nmin_count = 3\ntokenizer = "word"\n'
        '[train]\nschedule = "step"\nmilestones = [0.25]\n'
    )
    assert recipe.resolve(recipe_path=mine).data.options["min_count"] == 3
    overrides = [("model.cell", "gru", "set"), ("data.tokenizer", "bpe", "set"), ("train.schedule", "cosine", "set")]
    made = recipe.resolve(recipe_path=mine, overrides=overrides)
    assert (made.train.milestones, made.data.options["min_count"]) == ([0.5, 0.75], 2)
    assert "forget_bias" not in made.model.options
    assert made.sources["data.min_count"] == "default"
    with pytest.raises(UsageError, match="data.min_count is for the tokenizer word"):
        recipe.resolve(recipe_path=mine, overrides=[*overrides, ("data.min_count", "3", "set")])
    options = {"cell": "gru", "forget_bias": 1.0}  # the builder's defaults, as a run keeps them
    again.write_text(replace(made, model=made.model.model_copy(update={"options": options})).to_toml())
    assert recipe.resolve(recipe_path=again).data.options == made.data.options


def test_a_run_is_opened_whatever_it_holds(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[model]\nname = "lenet"\n[data]\nname = "digits"\n[train]\nepochs = 1\nnesterov = true\n')
    assert recipe.load(path).train.nesterov


def test_keys_of_others_models_are_theirs(monkeypatch):
    """A model of a user's package may have a `max_length`, or a `cell`, that means something else."""
    monkeypatch.setattr("dlkit.models.builder", lambda name: lambda max_length=1, cell=(): None)
    assert recipe.resolve("seq2seq", overrides=[("model.max_length", "9", "set")]).model.options == {"max_length": 9}


def test_nothing_trains_where_all_is_for_tests(tmp_path):
    for language in ("en", "de"):
        (tmp_path / f"train.{language}").write_text("a\n")
    with pytest.raises(UsageError, match="data.test is all: nothing of .* is left to train on"):
        recipe.resolve("seq2seq", str(tmp_path), overrides=[("data.test", "all", "set")])


@pytest.mark.parametrize(("text", "value"), [("2", 2), ('"2"', "2"), ("de", "de")])
def test_a_column_is_a_number_or_its_text(text, value):
    overrides = [("data.source", text, "set")]
    assert recipe.resolve("seq2seq", "pairs.tsv", overrides=overrides).data.options["source"] == value
    with pytest.raises(UsageError, match="data.source must be text or an integer of at least 1 or none, not 0"):
        recipe.resolve("seq2seq", "pairs.tsv", overrides=[("data.source", "0", "set")])


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("lr=0.1", "--set lr names no section", "did you mean `train.lr`?"),
        ("nrom=none", "--set nrom names no section", "did you mean `model.norm`?"),
        ("train.lr", "--set train.lr has no value", "write `--set train.lr=value`"),
        ("trian.lr=1", "unknown section: trian", "did you mean `train`? known: model, data, train, decode"),
        ("train.=1", "--set train. names no section", "the sections are model, data, train, decode"),
    ],
)
def test_a_malformed_override_is_explained(text, message, hint):
    with pytest.raises(UsageError) as caught:
        recipe.parse_override(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_is_a_value_or_a_usage_error(text):
    try:
        key, value = recipe.parse_override(f"train.init_from={text}")
        made = recipe.resolve("lenet", overrides=[(key, value, "set")])
    except UsageError:
        return
    assert made.train.init_from is None or isinstance(made.train.init_from, str)


@pytest.mark.parametrize("text", ["[" * 5000, "1\nlr = 2", "{a = 1}", "nan", "1e999"])
def test_a_value_that_no_field_takes_is_a_usage_error(text):
    with pytest.raises(UsageError, match=r"train\.lr must be a number above 0"):
        recipe.resolve("lenet", overrides=[("train.lr", text, "set")])


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("train.lr", "-1", "train.lr must be a number above 0, not -1"),
        ("train.momentum", "1", "train.momentum must be a number of at least 0 and below 1, not 1"),
        ("train.batch_size", "0", "train.batch_size must be an integer of at least 1, not 0"),
        ("train.warmup", "-1", "train.warmup must be an integer of at least 0 or a number above 0 and below 1, not -1"),
        ("train.max_time", "10", 'train.max_time must be a time such as 90s, 10m or 2h or none, not "10"'),
        ("train.milestones", "[2]", "train.milestones must be a list of numbers above 0 and below 1, not [2]"),
        ("train.milestones", "[0.5, 0.25]", "train.milestones must rise, not [0.5, 0.25]"),
        ("train.schedule", "cosin", 'train.schedule must be one of constant, step, cosine, one_cycle, polynomial, '
         'inverse_sqrt, noam, plateau, not "cosin"'),
        ("train.monitor", "accurcy", "unknown metric: accurcy"),
        ("train.lrr", "1", "unknown key: train.lrr"),
        ("decode.max_length", "1", "unknown key: decode.max_length"),
        ("data.sise", "8", "unknown key: data.sise"),
        ("data.agument", "crop", "unknown key: data.agument"),
        ("data.size", "big", 'data.size must be an integer, not "big"'),
        ("data.name", "digitz", "unknown dataset: digitz"),
    ],
)  # fmt: skip
def test_a_wrong_value_or_key_stops_with_its_name(key, text, message):
    with pytest.raises(UsageError) as caught:
        recipe.resolve("lenet", overrides=[(key, text, "set")])
    assert caught.value.message == message


def test_unknown_names_are_explained():
    with pytest.raises(UsageError) as caught:
        recipe.resolve("lenett")
    assert (caught.value.message, caught.value.hint) == (
        "unknown model: lenett", "did you mean `lenet`? `dlkit models` lists all"
    )  # fmt: skip
    with pytest.raises(UsageError, match="no model is named"):
        recipe.resolve()


# ------------------------------------------------------------------------------------------ data: what images become


def resolved(*sets, model="lenet", **flags):
    """The recipe with these `key=value` of --set."""
    return recipe.resolve(model, overrides=[(*recipe.parse_override(text), "set") for text in sets], flags=flags)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("crop_flip", ["crop_flip"]),
        ("crop, mixup", ["crop", "mixup"]),
        ('["crop", "mixup"]', ["crop", "mixup"]),
        ("[crop, mixup]", ["crop", "mixup"]),
    ],
)
def test_augmentations_are_a_list_or_names_with_commas(text, names):
    assert resolved(f"data.augment={text}").data.augment == names


def test_the_options_of_the_chosen_augmentations_stand_in_the_recipe():
    """DeVries and Taylor: half the side; Zhang et al. on ImageNet: 0.2; Yun et al.: 1."""
    ours = {"cutout_size": 0.5, "mixup_alpha": 0.2, "cutmix_alpha": 1.0}
    assert not ours.keys() & resolved().data.options.keys()
    assert ours.items() <= resolved("data.augment=trivial,crop,cutout,cutmix,mixup").data.options.items()
    made = resolved("data.augment=mixup", "data.mixup_alpha=1")
    assert (made.data.options["mixup_alpha"], made.sources["data.mixup_alpha"]) == (1.0, "set")
    assert "cutout_size" not in made.data.options


def test_options_of_augmentations_survive_the_file(tmp_path):
    made = resolved("data.augment=cutout", "data.cutout_size=0.25", "data.class_weights=[1, 2.5]")
    (tmp_path / "recipe.toml").write_text(made.to_toml())
    assert recipe.load(tmp_path / "recipe.toml").data == made.data


@pytest.mark.parametrize(
    ("text", "value"),
    [("balanced", "balanced"), ("none", None), ("[1, 2.5]", [1.0, 2.5])],
)
def test_class_weights_are_a_word_or_numbers(text, value):
    assert resolved(f"data.class_weights={text}").data.options["class_weights"] == value


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.augment=crop_flop"], "unknown augmentation: crop_flop"),
        (["data.mixup_alpha=1"], "data.mixup_alpha is for the augmentation mixup, which data.augment does not name"),
        (
            ["data.augment=cutmix", "data.cutout_size=0.5"],
            "data.cutout_size is for the augmentation cutout, which data.augment does not name",
        ),
        (["data.augment=mixup", "data.mixup_alpha=0"], "data.mixup_alpha must be a number above 0, not 0"),
        (["data.augment=cutout", "data.cutout_size=2"], "data.cutout_size must be a number above 0 and up to 1, not 2"),
        (["data.mixup_beta=1"], "unknown key: data.mixup_beta"),
        (
            ["data.class_weights=even"],
            'data.class_weights must be balanced or a list of numbers above 0 or none, not "even"',
        ),
        (
            ["data.class_weights=[1, 0]"],
            "data.class_weights must be balanced or a list of numbers above 0 or none, not [1, 0]",
        ),
    ],
)
def test_a_wrong_option_of_the_images_stops_with_its_name(sets, message):
    with pytest.raises(UsageError) as caught:
        resolved(*sets)
    assert caught.value.message == message


def test_a_file_may_hold_options_of_augmentations_that_are_switched_off(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nname = "lenet"\n[data]\naugment = ["mixup"]\nmixup_alpha = 1.0\n')
    made = recipe.resolve(recipe_path=path, overrides=[("data.augment", "[]", "set")])
    assert made.data.augment == []


@pytest.mark.parametrize("text", ["data.class_weights=balanced", "data.mixup_alpha=1"])
def test_other_tasks_know_no_options_of_images(text):
    with pytest.raises(UsageError, match="unknown key: data"):
        resolved(text, model="seq2seq")
    with pytest.raises(UsageError, match="is for images"):
        resolved("data.augment=mixup", model="seq2seq")


def test_the_section_of_the_data_alone():
    section = recipe.resolve_data("digits", overrides=[("data.size", "8", "set")], flags={"data.augment": ["cutout"]})
    assert (section.name, section.augment) == ("digits", ["cutout"])
    assert section.options == {"size": 8, "cutout_size": 0.5}
    for key in ("train.lr", "data.class_weights"):
        with pytest.raises(UsageError, match=f"{key} changes nothing here"):
            recipe.resolve_data("digits", overrides=[(key, "1", "set")])


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nname = \n", "FILE, line 2, column 8: invalid value"),
        ('[model]\nname = "lenet"\n[trian]\n', "FILE: unknown section: trian"),
        ('lr = 1\n[model]\nname = "lenet"\n', "FILE: lr stands outside of a section"),
        ('[model]\nname = "lenet"\n[train]\nlr = "fast"\n', 'FILE: train.lr must be a number above 0, not "fast"'),
        ('[model]\nname = "lenet"\n[train]\nlrr = 1\n', "FILE: unknown key: train.lrr"),
        ('[model]\nname = "lenet"\n[data]\nname = "digits"\nsise = 8\n', "FILE: unknown key: data.sise"),
        ('[model]\nname = "lenet"\noptions = 1\n', None),
        ("\xff", "FILE is not a text in UTF-8"),
        ("a" * 10, None),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(text, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("latin-1"))
    if message is None and "options" in text:
        assert recipe.resolve(recipe_path=path).model.options == {"options": 1}, "an option of that name is an option"
        return
    with pytest.raises(UsageError) as caught:
        recipe.resolve(recipe_path=path)
    assert caught.value.message.startswith(str(path))
    assert message is None or caught.value.message.lower() == message.lower().replace("file", str(path).lower(), 1)


def test_a_missing_file_is_missing_data_and_an_unknown_name_wrong_usage(shipped, tmp_path):
    with pytest.raises(DataError):
        recipe.find(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError) as caught:
        recipe.find("lenet_digit")
    assert caught.value.hint == "did you mean `lenet_digits`? `dlkit recipes list` shows all"


def test_the_introduction_is_the_comment_at_the_head(shipped):
    assert recipe.introduction(recipe.find("lenet_digits")) == ["LeCun et al. 1998", "dlkit train lenet"]
    assert recipe.names() == ["lenet_digits"]


def test_every_field_is_documented():
    for section in recipe.SECTIONS.values():
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


@pytest.mark.parametrize("task", TASKS)
def test_every_default_of_a_task_is_taken(task):
    made = recipe.resolve(next(iter(models.MODELS_BY_TASK[task])))
    flat = made.flat()
    for key, value in TASKS[task].defaults.items():
        assert (flat[key], made.sources[key]) == (value, "task default")


def test_resolving_loads_no_tensorflow():
    code = (
        "import sys; from dlkit import recipe; recipe.resolve('lenet').to_toml();"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ----------------------------------------------------------------------------------------------------------- decoding


def test_a_run_says_how_to_decode_and_flags_stand_above_it():
    found = recipe.resolve_decode(
        {"max_len": 7, "length_norm": "gnmt"}, flags={"decode.beams": 2, "decode.alpha": None}
    )
    assert found.model_dump() == {"max_len": 7, "beams": 2, "length_norm": "gnmt", "alpha": 0.6}
    assert recipe.resolve_decode({"max_len": 7, "unheard_of": 1}).beams == 5, "of an older or a newer dlkit"
    assert recipe.resolve_decode({"max_len": 7, "alpha": 2.0}).alpha == 2, "a resolved recipe holds all keys"


@pytest.mark.parametrize(
    ("stored", "flags", "message"),
    [
        ({"beams": 0}, {}, "x/recipe.toml: decode.beams must be an integer of at least 1, not 0"),
        ({"length_norm": "mean"}, {}, 'x/recipe.toml: decode.length_norm must be one of avg, gnmt, none, not "mean"'),
        ({}, {"decode.alpha": 0.6}, "decode.alpha is for the length norm gnmt, and this one is avg"),
        ({"length_norm": "gnmt"}, {"decode.length_norm": "none", "decode.alpha": 1.0}, "and this one is none"),
    ],
)
def test_how_not_to_decode(stored, flags, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        recipe.resolve_decode({"max_len": 7, **stored}, flags=flags, path=Path("x/recipe.toml"))


@pytest.mark.parametrize(
    ("data", "sets", "message"),
    [
        ("pairs.tsv", ["decode.alpha=1"], "decode.alpha is for the length norm gnmt, and this one is avg"),
        (
            "pairs.tsv",
            ["train.monitor=bleu", "train.decode_every=none"],
            "train.monitor is bleu, and train.decode_every",
        ),
        ("synthetic:copy", ["train.monitor=chrf"], "train.monitor is chrf, which is not measured on synthetic:copy"),
        ("pairs.tsv", ["train.decode_every=0"], "train.decode_every must be an integer of at least 1 or none, not 0"),
    ],
)
def test_what_would_never_be_measured_or_read(data, sets, message):
    overrides = [(*text.split("=", 1), "set") for text in sets]
    with pytest.raises(UsageError, match=re.escape(message)):
        recipe.resolve("seq2seq", data, overrides=overrides)
    monitored = [("train.monitor", "exact", "set"), ("decode.length_norm", "gnmt", "set"), ("decode.alpha", "1", "set")]
    assert recipe.resolve("seq2seq", data, overrides=monitored).train.monitor == "exact"


@pytest.mark.parametrize(
    ("model", "data", "text", "message"),
    [
        ("lstm_lm", None, "train.decode_every=2", "is for models that answer, and lstm_lm writes freely"),
        ("gpt", None, "decode.beams=3", "is for models that answer, and gpt writes freely"),
    ],
)
def test_what_a_task_does_not_read(model, data, text, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        recipe.resolve(model, data, overrides=[(*text.split("=", 1), "set")])


def test_no_data_are_loaded(monkeypatch):
    """Whether a recipe's data have what it asks for is known when they are opened: they may be large, or far away."""
    monkeypatch.setattr(datasets, "_load", None)
    given = [("train.label_smoothing", "0.1", "set")]
    for name in ("synthetic:adding", "synthetic:copy_delay"):
        assert recipe.resolve("gru", name, overrides=given).train.label_smoothing == 0.1


@pytest.mark.parametrize(("text", "sides"), [("0.5", [0.5]), ("0.5,0.75", [0.5, 0.75]), ("[0.5, 0.75]", [0.5, 0.75])])
def test_a_list_of_numbers_may_lack_its_brackets(text, sides):
    """Which some shells take for a pattern."""
    ends = [0.2, 0.6][: len(sides)]
    assert resolved(f"train.progressive={text}", f"train.progressive_until={ends}").train.progressive == sides


@pytest.mark.parametrize("text", ["1,2,0.5", "[1, 2, 0.5]"])
def test_options_of_models_and_data_take_numbers_with_commas(text):
    assert resolved(f"data.class_weights={text}").data.options["class_weights"] == [1, 2, 0.5]


def test_numbers_with_commas_are_a_list_only_where_one_is_wanted():
    with pytest.raises(UsageError, match=r"train\.lr must be"):
        resolved("train.lr=0.1,0.2")
