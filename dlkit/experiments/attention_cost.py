"""X9: attention costs n^2, yet at usual lengths most work is elsewhere; and all positions are worked on at once."""

import math
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import tensorflow as tf
from pydantic import Field

from dlkit.errors import UsageError
from dlkit.experiments.finding import Finding, Verdict
from dlkit.layers.recurrent import Stack
from dlkit.models.transformer import EncoderBlock, Settings, layers_of
from dlkit.probe.panels import Line, Lines
from dlkit.values import Count


def attention_cost(
    *,
    lengths: Annotated[list[Annotated[int, Field(ge=2, le=16_384)]], Field(min_length=2)] = [  # noqa: B006
        16,
        32,
        64,
        128,
        256,
        512,
        1024,
    ],
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 256,
    ffn: Count | None = None,
    heads: Count = 4,
    tokens: Count = 4096,
    rounds: Count = 3,
    usual: Count = 64,
) -> Finding:
    """What a Transformer block and an LSTM layer of the same width cost, forwards and backwards, by length.

    Vaswani et al. 2017, section 4 and table 1. Of n positions of width d a block multiplies 4 n d^2 times for its
    projections, 2 n d ffn times in its position-wise network, and 2 n^2 d times in the two products of attention; an
    LSTM layer 8 n d^2 times, one position after another.

    Args:
        lengths: positions of a sequence.
        width: d, of both.
        ffn: hidden units of the position-wise network; none for four times the width.
        heads: of attention.
        tokens: of a batch, whatever their length.
        rounds: timings of each; shown is the shortest.
        usual: length up to which attention is to be the smaller part; far above the width the first verdict turns.

    Raises:
        dlkit.errors.UsageError: one length alone, or heads that do not divide the width.
    """  # fmt: skip
    hidden = ffn or 4 * width
    grid = sorted(set(lengths))
    if len(grid) < 2:
        raise UsageError("the lengths are all the same", "such as `--set lengths=[16,64,256]`")
    if width % heads:
        raise UsageError(f"{heads} heads cannot share a width of {width}", "choose a divisor")
    products = {n: multiply_adds(n, width, hidden) for n in grid}
    shares = {n: products[n]["attention"] / sum(products[n].values()) for n in grid}
    half = 2 * width + hidden  # where 2 n^2 d = 4 n d^2 + 2 n d ffn
    built = {
        "Transformer block": _block(width, hidden, heads), "its two products of attention": _attention(width, heads),
        "LSTM layer": _lstm(width),
    }  # fmt: skip
    block, alone, lstm = built
    seconds = {kind: [_seconds(of, n, width, tokens, rounds) for n in grid] for kind, of in built.items()}
    rates = {kind: [tokens / each for each in seconds[kind]] for kind in (block, lstm)}
    of_sequence = {
        kind: [each * n / tokens for n, each in zip(grid, found, strict=True)] for kind, found in seconds.items()
    }
    of_lstm = {n: 8 * n * width**2 for n in grid}
    of_block = {n: sum(products[n].values()) for n in grid}
    work = {  # multiply-adds of a pass forwards, 10^9 in a second
        kind: [of[n] * tokens / n / 1e9 / each for n, each in zip(grid, seconds[kind], strict=True)]
        for kind, of in ((block, of_block), (lstm, of_lstm))
    }
    times = [one / whole for one, whole in zip(seconds[alone], seconds[block], strict=True)]
    at = max(place for place, n in enumerate(grid) if n <= max(usual, grid[0]))
    faster = work[block][-1] / work[lstm][-1]  # few sequences: an LSTM works on nothing else at once
    slower = rates[block][0] / rates[block][-1]
    power = math.log(of_sequence[alone][-1] / of_sequence[alone][-2]) / math.log(grid[-1] / grid[-2])
    columns = ["length", "block, M", "LSTM, M", "in attention", "of the time", "block, tokens/s", "LSTM, tokens/s"]
    return Finding(
        columns=columns,
        rows=[
            [f"{n:,}", f"{of_block[n] / 1e6:,.1f}", f"{of_lstm[n] / 1e6:,.1f}", f"{100 * shares[n]:.1f} %",
             f"{100 * times[place]:.1f} %", *(f"{rates[kind][place]:,.0f}" for kind in rates)]
            for place, n in enumerate(grid)
        ],
        right=columns,
        verdicts=[
            Verdict(
                f"at a length of {grid[at]} the two products of attention are less than a fifth of the work",
                shares[grid[at]] < 0.2, f"{100 * shares[grid[at]]:.1f} %; half of it from a length of {half:,} on",
            ),
            Verdict(
                "a token takes at least a quarter more time in the longest sequence than in the shortest",
                slower >= 1.25, f"{slower:.1f} times as much at {grid[-1]:,} as at {grid[0]:,}",
            ),
            Verdict(
                "of long sequences a block does at least a fifth more multiply-adds in a second than an LSTM layer, "
                "which waits for each step", faster >= 1.2, f"{faster:.1f} times as many at a length of {grid[-1]:,}",
            ),
            Verdict(
                "the time of the two products of attention grows with n^2: with a power of n from 1.5 to 2.5",
                1.5 <= power <= 2.5, f"from a length of {grid[-2]:,} to {grid[-1]:,} with n^{power:.2f}",
            ),
        ],
        charts=[
            Lines(
                f"one block of width {width}", "length, positions", "share of the multiply-adds, %",
                [
                    Line("the two products of attention", grid, [100 * shares[n] for n in grid]),
                    Line("projections and position-wise network", grid, [100 - 100 * shares[n] for n in grid]),
                ], log_x=True,
            ),
            Lines(
                "one sequence, forwards and backwards, on this machine", "length, positions", "time, ms",
                [Line(kind, grid, [1000 * one for one in each]) for kind, each in of_sequence.items()], log_x=True,
                logarithmic=True,
            ),
            Lines(
                "work in that time", "length, positions", "multiply-adds forwards, 10^9 a second",
                [Line(kind, grid, each) for kind, each in work.items()], log_x=True, logarithmic=True,
            ),
        ],
        records=[
            {
                "length": n, **products[n], "share": shares[n], "share_of_time": times[place],
                "lstm_multiply_adds": of_lstm[n], "tokens_per_second": {kind: rates[kind][place] for kind in rates},
                "seconds_of_a_sequence": {kind: each[place] for kind, each in of_sequence.items()},
            }
            for place, n in enumerate(grid)
        ],
        notes=[
            f"{tokens:,} tokens at a time, forwards and backwards, the shortest of {rounds} timings",
            "M: million multiply-adds of one sequence, forwards; in attention: the share of the block's in its two "
            "products; of the time: theirs alone, with the softmax, over the block's",
        ],
    )  # fmt: skip


def multiply_adds(length: int, width: int, ffn: int) -> dict[str, int]:
    """Of one Transformer block over one sequence: what its parts multiply and add."""
    return {
        "projections": 4 * length * width**2,
        "network": 2 * length * width * ffn,
        "attention": 2 * length**2 * width,
    }


def _block(width: int, ffn: int, heads: int) -> tuple[Callable[[tf.Tensor], tf.Tensor], list[tf.Variable]]:
    settings = Settings(layers=1, decoder_layers=0, width=width, ffn=ffn, heads=heads, dropout=0.0)
    block = EncoderBlock("block", settings)
    weights = [weight.value for layer in layers_of(block) for weight in layer.trainable_weights]
    return lambda x: block(x, tf.zeros((1, 1, 1, 1)))[0], weights


def _attention(width: int, heads: int) -> tuple[Callable[[tf.Tensor], tf.Tensor], list[tf.Variable]]:
    """Nothing but softmax(q k^T) v in each head, of q, k and v that are what is given but for a weight an entry."""
    scale = tf.Variable(tf.fill([width], (width / heads) ** -0.5))

    def run(x: tf.Tensor) -> tf.Tensor:
        rows, length = x.shape[0], x.shape[1]

        def divided(values: tf.Tensor) -> tf.Tensor:  # (rows, heads, length, width / heads)
            return tf.transpose(tf.reshape(values, (rows, length, heads, width // heads)), (0, 2, 1, 3))

        weights = tf.nn.softmax(tf.matmul(divided(x * scale), divided(x), transpose_b=True))
        return tf.matmul(weights, divided(x))

    return run, [scale]


def _lstm(width: int) -> tuple[Callable[[tf.Tensor], tf.Tensor], list[tf.Variable]]:
    stack = Stack("lstm", width, layers=1, name="stack")
    stack.build((None, None, width))
    return lambda x: stack(x)[0], [weight.value for weight in stack.trainable_weights]


def _seconds(
    of: tuple[Callable[[tf.Tensor], tf.Tensor], list[tf.Variable]], length: int, width: int, tokens: int, rounds: int
) -> float:
    """Shortest time of a pass forwards and backwards over a batch of so many tokens: other work only adds to it."""
    run, weights = of
    rows = max(1, tokens // length)
    x = tf.constant(np.random.default_rng(0).standard_normal((rows, length, width)), tf.float32)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(run(x))
        return tf.add_n([tf.reduce_sum(gradient) for gradient in tape.gradient(loss, weights)])

    step()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        float(step())
        times.append(time.perf_counter() - began)
    return min(times) * tokens / (rows * length)
