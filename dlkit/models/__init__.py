"""The names of all models, and `build`. This module is light: a model's file is imported when it is built.

A new model is one file, one line in the table of its task, one test and one recipe.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dlkit.errors import unknown

if TYPE_CHECKING:
    import keras

# task -> name -> "module:function".
MODELS_BY_TASK: dict[str, dict[str, str]] = {
    "image_classification": {
        "mlp": "dlkit.models.mlp:mlp",
        "lenet": "dlkit.models.lenet:lenet",
        "alexnet": "dlkit.models.alexnet:alexnet",
        **{f"vgg{depth}": f"dlkit.models.vgg:vgg{depth}" for depth in (11, 13, 16, 19)},
        **{f"resnet{depth}": f"dlkit.models.resnet:resnet{depth}" for depth in (18, 34, 50, 101, 152)},
        **{f"plain{depth}": f"dlkit.models.resnet:plain{depth}" for depth in (18, 34)},
        **{f"resnet{depth}": f"dlkit.models.resnet_cifar:resnet{depth}" for depth in (20, 32, 44, 56, 110)},
        **{f"plain{depth}": f"dlkit.models.resnet_cifar:plain{depth}" for depth in (20, 32, 44, 56, 110)},
        "airbench": "dlkit.models.airbench:airbench",
        "heads": "dlkit.models.heads:heads",
    },
    "translation": {
        "seq2seq": "dlkit.models.seq2seq:seq2seq",
        "seq2seq_attention": "dlkit.models.seq2seq_attention:seq2seq_attention",
        "transformer": "dlkit.models.transformer:transformer",
    },
    "text_classification": {
        **{name: f"dlkit.models.text_rnn:{name}" for name in ("text_rnn", "text_lstm", "text_gru")},
        **{name: f"dlkit.models.{name}:{name}" for name in ("text_cnn", "text_bag", "text_transformer")},
    },
    "tagging": {
        **{name: f"dlkit.models.tagger:{name}" for name in ("tagger_rnn", "tagger_lstm", "tagger_gru")},
        **{name: f"dlkit.models.{name}:{name}" for name in ("tagger_cnn", "tagger_transformer")},
    },
    "language_modelling": {
        **{name: f"dlkit.models.recurrent_lm:{name}" for name in ("rnn_lm", "lstm_lm", "gru_lm")},
        "tcn_lm": "dlkit.models.tcn_lm:tcn_lm",
        "gpt": "dlkit.models.gpt:gpt",
    },
    "sequences": {name: f"dlkit.models.recurrent:{name}" for name in ("rnn", "lstm", "gru")},
    "video_classification": {"video_lstm": "dlkit.models.video_lstm:video_lstm"},
    "captioning": {
        "captioner": "dlkit.models.captioner:captioner",
        "captioner_attention": "dlkit.models.captioner_attention:captioner_attention",
    },
}


@dataclass(frozen=True)
class Paper:
    """Where a net comes from, and what its authors say of its size.

    Args:
        title: authors, year and title.
        parameters: the count that is published, in the words or figures of its source; empty when there is none.
        source: what published the count, when it is not the paper itself.
    """

    title: str
    parameters: str = ""
    source: str = ""


@cache
def targets() -> dict[str, tuple[str, str]]:
    """All models as name -> (task, "module:function"), a user's own packages included.

    A package adds models through the entry point group `dlkit.models`: `mynet = "package.module:function"` is an
    image classifier, `translation/mynet = ...` a model of another task. Names of our own cannot be replaced.
    """
    from importlib.metadata import entry_points

    found: dict[str, tuple[str, str]] = {}
    for entry in entry_points(group="dlkit.models"):
        task, _, name = entry.name.rpartition("/")
        found[name] = (task or "image_classification", entry.value)
    for task, names in MODELS_BY_TASK.items():
        found.update({name: (task, target) for name, target in names.items()})
    return found


def names() -> list[str]:
    """All model names, in the order of the table."""
    own = [name for group in MODELS_BY_TASK.values() for name in group]
    return own + sorted(set(targets()) - set(own))


def _target(name: str) -> tuple[str, str]:
    if name not in targets():
        raise unknown("model", name, names(), "`dlkit models` lists all")
    return targets()[name]


def task_of(name: str) -> str:
    """The task that the model `name` is trained for.

    Raises:
        dlkit.errors.UsageError: there is no such model.
    """
    return _target(name)[0]


def _module(name: str) -> ModuleType:
    from dlkit import runtime

    runtime.import_tensorflow()
    return importlib.import_module(_target(name)[1].partition(":")[0])


def builder(name: str) -> "Callable[..., keras.Model]":
    """Imports and returns the function that builds the model `name`.

    Raises:
        dlkit.errors.UsageError: there is no such model.
    """
    return getattr(_module(name), _target(name)[1].partition(":")[2])


def paper(name: str) -> Paper | None:
    """Where the model `name` comes from: its file's `PAPERS` entry, or None when there is none."""
    papers: dict[str, Paper] = getattr(_module(name), "PAPERS", {})
    return papers.get(name)


def build(name: str, **arguments: Any) -> "keras.Model":
    """Builds the model `name`; the arguments are those of its builder, checked by name and type.

    Raises:
        dlkit.errors.UsageError: an unknown model or argument, or a value of the wrong type.
    """
    from dlkit.values import check_call

    function = builder(name)
    return function(**check_call(function, arguments, where="model"))
