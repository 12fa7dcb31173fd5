"""The claims of the lecture, each as an experiment that ends with a verdict. This table is light.

An experiment is a function with keyword options that gives a `dlkit.experiments.finding.Finding`. Its defaults take
seconds to minutes on two cores, those of `degradation` about an hour; `full` are the options of a larger size,
where there is one. What makes the claim true is among the options, so that anyone can switch it off and see a verdict
turn: each experiment has one such verdict at least. What a convolution, a pool or attention is no option switches off;
the tests put something else in its place, and see those verdicts turn.
"""

import ast
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlkit.source import tree_of

if TYPE_CHECKING:
    from dlkit.experiments.finding import Finding


@dataclass(frozen=True)
class Experiment:
    """One line of the table.

    Args:
        target: "module:function".
        claim: what the lecture claims, in a few words.
        parts: ids of the lecture's parts that it shows.
        switch: options, as `--set` takes them, that take away what makes a claim true: its verdict turns.
        full: options of a larger size than the defaults.
        first_look: options that take seconds: to see what it prints.
        takes: how long the defaults take on two cores, where that is more than minutes.
    """

    target: str
    claim: str
    parts: tuple[str, ...]
    switch: Mapping[str, str]
    full: Mapping[str, Any] = field(default_factory=dict)
    first_look: Mapping[str, Any] = field(default_factory=dict)
    takes: str = ""


EXPERIMENTS: dict[str, Experiment] = {
    "initialization": Experiment(
        "dlkit.experiments.initialization:initialization",
        "small random weights silence a deep net; Xavier, He and orthogonal ones do not",
        ("T3",),
        {"for_relu": "xavier"},
        first_look={"depth": 12, "width": 128, "rows": 32, "seeds": 2},
    ),
    "activations": Experiment(
        "dlkit.experiments.activations:activations",
        "ReLU lets the gradient through many layers, and a sigmoid does not",
        ("T8",),
        {"good": "sigmoid"},
        first_look={"depth": 6, "steps": 20, "seeds": 1},
    ),
    "clipping": Experiment(
        "dlkit.experiments.clipping:clipping",
        "clipping keeps a recurrent net from exploding, and does not make it remember",
        ("T4", "R4"),
        {"norm": "none", "value": "none"},
        first_look={"steps": 10, "seeds": 1, "length": 20},
    ),
    "dropout": Experiment(
        "dlkit.experiments.dropout:dropout",
        "dropout costs training error and buys test error",
        ("T6",),
        {"rate": "0"},
        first_look={"steps": 20, "seeds": 2, "width": 64},
    ),
    "batchnorm_lr": Experiment(
        "dlkit.experiments.batchnorm_lr:batchnorm_lr",
        "batch norm allows larger learning rates",
        ("T2",),
        {"norm": "none"},
        first_look={"steps": 10, "seeds": 1, "rates": [0.1, 1.0]},
    ),
    "standardize": Experiment(
        "dlkit.experiments.standardize:standardize",
        "standardized inputs, and in regression outputs, are learned faster",
        ("T1",),
        {"inputs": "false", "outputs": "false"},
        first_look={"steps": 10, "seeds": 1, "rates": [0.001, 0.01]},
    ),
    "ensembles": Experiment(
        "dlkit.experiments.ensembles:ensembles",
        "the mean of several nets errs less than they do, by their variance",
        ("T5",),
        {"by": "none"},
        first_look={"steps": 50, "members": 3},
    ),
    "random_vs_grid": Experiment(
        "dlkit.experiments.random_vs_grid:random_vs_grid",
        "random search beats a grid of as many trials",
        ("T7",),
        {"grid": "rate"},
        full={"rates": 41, "decays": 5, "steps": 200},
        first_look={"steps": 5, "rates": 4, "decays": 2, "repeats": 50},
    ),
    "vanishing": Experiment(
        "dlkit.experiments.vanishing:vanishing",
        "LSTMs and attention carry the gradient over distances at which a plain net has lost it",
        ("R4", "R5", "S6"),
        {"remembers": "rnn", "attention": "false", "biases": "[1,1]"},
        first_look={"length": 20, "width": 16, "steps": 5, "seeds": 1, "words": 6},
    ),
    "dense_vs_conv": Experiment(
        "dlkit.experiments.dense_vs_conv:dense_vs_conv",
        "to a dense net a moved image is a new one; a conv net shares its weights over all places",
        ("C1", "C2"),
        {"shared": "false"},
        first_look={"steps": 20, "seeds": 1, "shifts": [0, 1, 2]},
    ),
    "padding_and_stride": Experiment(
        "dlkit.experiments.padding_and_stride:padding_and_stride",
        "zeros around an image are its average once the mean is subtracted; a stride is no pool",
        ("C4",),
        {"standardized": "false"},
        first_look={"images": 20, "filters": 4},
    ),
    "degradation": Experiment(
        "dlkit.experiments.degradation:degradation",
        "deeper plain nets learn worse, deeper residual nets better",
        ("C7", "C8"),
        {"shortcuts": "false"},
        full={"steps": 64_000, "batch_size": 128},  # as in the paper
        first_look={
            "data": "synthetic:shapes",
            "deep": 32,
            "steps": 2,
            "batch_size": 8,
            "rates": [0.1],
            "seeds": 1,
            "precision": "float32",
        },
        takes="about an hour",
    ),
    "attention_cost": Experiment(
        "dlkit.experiments.attention_cost:attention_cost",
        "attention costs n^2, and at usual lengths most of the work is elsewhere",
        ("X9",),
        {"usual": "1024"},
        full={"lengths": [16, 32, 64, 128, 256, 512, 1024, 2048], "tokens": 8192, "rounds": 7},
        first_look={"lengths": [8, 16], "width": 16, "tokens": 64, "rounds": 1},
    ),
}


def function_of(name: str) -> "Callable[..., Finding]":
    """Imports the function of an experiment of the table."""
    module, _, function = EXPERIMENTS[name].target.partition(":")
    return getattr(importlib.import_module(module), function)


def options_of(name: str) -> dict[str, Any]:
    """The options of an experiment of the table with their defaults, read from its source without importing it.

    Example:
        >>> options_of("ensembles")["by"]
        'bootstrap'
    """
    module, _, function = EXPERIMENTS[name].target.partition(":")
    tree = tree_of(module)
    assert tree is not None
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    pairs = zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)
    return {argument.arg: ast.literal_eval(default) for argument, default in pairs if default is not None}
