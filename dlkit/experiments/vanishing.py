"""R4 and S6: how much of the last loss reaches each earlier input, by its distance."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import Field

from dlkit.data import tokenizer
from dlkit.experiments.finding import Finding, Verdict
from dlkit.experiments.training import prepared, train
from dlkit.probe.jacobians import gradient_by_distance
from dlkit.probe.look import on_log_axis
from dlkit.probe.panels import Line, Lines
from dlkit.probe.watching import taping
from dlkit.train.losses import softmax_cross_entropy
from dlkit.train.start import Prepared
from dlkit.values import Count

ROWS = 32


def vanishing(
    *,
    length: Annotated[int, Field(ge=8, le=1000)] = 101,
    width: Count = 64,
    steps: Count = 500,
    seeds: Count = 5,
    seed: Annotated[int, Field(ge=0)] = 0,
    biases: Annotated[list[float], Field(min_length=2)] = [0.0, 1.0, 3.0],  # noqa: B006
    forget_bias: float = 3.0,
    remembers: Literal["lstm", "gru", "rnn"] = "lstm",
    attention: bool = True,
    words: Annotated[int, Field(ge=4, le=200)] = 30,
) -> Finding:
    """The gradient of the loss at the end with respect to the input at each step before it.

    Hochreiter, Bengio, Frasconi and Schmidhuber 2001, Gradient flow in recurrent nets. Recurrent nets of one width and
    one recurrent initialization are looked at before and after training on the adding problem; translators, untrained,
    by how far before the last word that they say each word of the source was read.

    Args:
        length: steps of a sequence of the adding problem.
        width: units of the state.
        steps: updates of Adam, each of 32 sequences, with the norm of the gradient clipped at 1.
        seeds: nets of each kind; shown is the median.
        seed: of the first.
        biases: forget biases of untrained LSTMs, from small to large; with equal ones the second verdict turns.
        forget_bias: of the LSTM that is trained.
        remembers: the net that is to remember; with `rnn`, the plain one again, the first verdict turns.
        attention: whether the second translator has attention; without, it is the first one again with other weights,
            and the last verdict turns.
        words: words of a source sentence.
    """
    which = [seed + at for at in range(seeds)]
    nets: dict[str, tuple[str, dict[str, Any]]] = {
        "rnn": ("rnn", {}),
        **{f"lstm, forget bias {bias:g}": ("lstm", {"model.forget_bias": bias}) for bias in biases},
        "gru": ("gru", {}),
    }
    fresh = {
        title: _median([by_step(_made(net, options, length, width, at)) for at in which])
        for title, (net, options) in nets.items()
    }
    of_lstm = {"model.forget_bias": forget_bias} if remembers == "lstm" else {}
    named = (
        f"lstm, forget bias {forget_bias:g}" if of_lstm else f"{remembers} again" if remembers == "rnn" else remembers
    )
    trained = {
        f"{title}, trained": _median([_after_training(net, options, length, width, steps, at) for at in which])
        for title, net, options in (("rnn", "rnn", {}), (named, remembers, of_lstm))
    }
    second = "seq2seq with attention" if attention else "seq2seq again"
    translators = {
        title: _median([by_word(_translator(net, words, first + at), words) for at in range(seeds)])
        for title, net, first in (
            ("seq2seq", "seq2seq", seed),
            (second, "seq2seq_attention", seed) if attention else (second, "seq2seq", seed + seeds),
            ("Transformer", "transformer", seed),
        )
    }
    plain, good = trained.values()
    times = _ratio(good[-1], plain[-1])
    ends = [fresh[f"lstm, forget bias {bias:g}"][-1] for bias in sorted(biases)]
    reach = {title: _ratio(each[-1], each[0]) for title, each in translators.items()}
    # How many steps lie between each input and what is said last; of translators it is the distance within seq2seq.
    steps_between = {title: range(length) for title in fresh | trained}
    steps_between |= {title: range(words, 2 * words) for title in translators}
    measured = fresh | trained | translators
    places = ["nearest input", "a quarter farther", "half", "farthest"]
    return Finding(
        columns=["net", "steps between", *places],
        rows=[
            [title, f"{steps_between[title][0]} to {steps_between[title][-1]}",
             *(f"{each[at]:.2g}" for at in (0, len(each) // 4, len(each) // 2, -1))]
            for title, each in measured.items()
        ],
        right=["steps between", *places],
        verdicts=[
            Verdict(
                f"after training the gradient of {named} at distance {length - 1} is at least 100 times that of the "
                "plain recurrent net", times >= 100, f"{good[-1]:.2g} against {plain[-1]:.2g}",
            ),
            Verdict(
                "before training the gradient at the greatest distance grows with the forget bias",
                all(a < b for a, b in pairwise(ends)),
                ", ".join(f"bias {bias:g}: {end:.2g}" for bias, end in zip(sorted(biases), ends, strict=True)),
            ),
            Verdict(
                "attention brings the last word to the farthest word of the source at one hop: at least twice as much "
                "of the gradient gets there as without",
                min(reach[second], reach["Transformer"]) >= 2 * reach["seq2seq"],
                "farthest against nearest: " + ", ".join(f"{title} {each:.2g}" for title, each in reach.items()),
            ),
        ],
        charts=[
            Lines(
                f"adding problem, width {width}", "steps before the end", "norm of the gradient",
                [Line(title, steps_between[title], on_log_axis(each)) for title, each in (fresh | trained).items()],
                logarithmic=True,
            ),
            Lines(
                "translators, untrained", "steps of seq2seq between a source word and the last word said",
                "norm of the gradient",
                [Line(title, steps_between[title], on_log_axis(each)) for title, each in translators.items()],
                logarithmic=True,
            ),
        ],
        records=[
            {"net": title, "steps_between": list(steps_between[title]), "gradient": each.tolist()}
            for title, each in measured.items()
        ],
        notes=[
            f"median of {seeds} nets of each kind; mean over {ROWS} sequences of the norm of d loss / d input",
            f"seq2seq reads {words} words backwards and then writes as many: {words} steps lie between the first word "
            "of the source and the last one said; attention, the Transformer's too, looks at each word at one hop",
        ],
    )  # fmt: skip


def by_step(made: Prepared) -> NDArray[np.float64]:
    """Mean norm of the gradient of a sequence's loss to the input of each step, (time,), the last step first."""
    return gradient_by_distance(made.task, made.model, [made.task.batch("test", np.arange(ROWS), epoch=None)])


def by_word(made: Prepared, words: int) -> NDArray[np.float64]:
    """Mean norm of the gradient of the last word's loss with respect to the vector of each source word, (words,).

    The last word is the one before the end token, whose place depends on the length alone. The first number is of the
    source's first word: recurrent translators read the source backwards, so that as many of their steps as there are
    words lie between it and the last word said, and nearly twice as many after the source's last word.

    Args:
        made: a translator and its pairs.
        words: of a source sentence; looked at are the longest ones.
    """
    lengths = made.task.data.splits["train"].lengths[0]
    batch = made.task.batch("train", np.flatnonzero(lengths == lengths.max())[:ROWS], epoch=None)
    with tf.GradientTape() as tape, taping(made.model, tape) as calls:
        logits = made.model((batch["source"], batch["target_in"]), training=False)
        last = tf.reduce_sum(tf.cast(batch["target_out"] != tokenizer.PAD, tf.int32), 1) - 2  # behind it is the end
        last_logits = tf.gather(logits, last, batch_dims=1)
        labels = tf.gather(tf.constant(batch["target_out"]), last, batch_dims=1)
        loss = tf.reduce_sum(softmax_cross_entropy(last_logits, labels))
    # Of a table that both sides share, the first call looks up the source.
    vectors = next(seen.output for seen in calls if seen.layer is made.model.source_embedding)
    gradient = tape.gradient(loss, vectors)
    return tf.reduce_mean(tf.norm(gradient, axis=-1), 0).numpy()[:words].astype(np.float64)


def _translator(net: str, words: int, seed: int) -> Prepared:
    # Lengths are drawn evenly: so many pairs have enough of the greatest.
    return prepared(net, "synthetic:reverse", {"data.length": words, "data.train": 3 * ROWS * words}, seed=seed)


def _options(length: int, width: int) -> dict[str, Any]:
    return {
        "model.width": width, "model.recurrent_init": "orthogonal", "data.length": length, "data.train": 50_000,
        "data.validation": 10, "data.test": 200,
    }  # fmt: skip


def _made(net: str, options: dict[str, Any], length: int, width: int, seed: int) -> Prepared:
    return prepared(net, "synthetic:adding", _options(length, width) | options, seed=seed)


def _after_training(
    net: str, options: dict[str, Any], length: int, width: int, steps: int, seed: int
) -> NDArray[np.float64]:
    settings = {
        "train.optimizer": "adam", "train.lr": 0.005, "train.batch_size": 32, "train.clip_norm": 1.0,
        "train.steps": steps,
    }  # fmt: skip
    run = train(net, "synthetic:adding", _options(length, width) | settings | options, steps=steps, seed=seed)
    return by_step(run.prepared)


def _median(found: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.median(found, axis=0)


def _ratio(a: float, b: float) -> float:
    """How many times as large; of two that are nothing not a number, which no verdict holds with."""
    return float(a / b) if b > 0 else math.inf if a > 0 else math.nan
