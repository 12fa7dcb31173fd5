"""X9: attention costs n^2, yet at usual lengths most work is elsewhere; and all positions are worked on at once."""

import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import tensorflow as tf
from pydantic import Field

from dlkit.experiments.finding import Chart, Finding, Line, Verdict
from dlkit.layers.recurrent import Stack
from dlkit.models.transformer import EncoderBlock, Settings, layers_of

Count = Annotated[int, Field(ge=1)]


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
        rounds: timings of each; shown is the median.
        usual: length up to which attention is to be the smaller part; a width near 1 makes that verdict turn.
    """  # fmt: skip
    hidden = ffn or 4 * width
    grid = sorted(lengths)
    products = {n: multiply_adds(n, width, hidden) for n in grid}
    shares = {n: products[n]["attention"] / sum(products[n].values()) for n in grid}
    half = 2 * width + hidden  # where 2 n^2 d = 4 n d^2 + 2 n d ffn
    seconds = {
        "Transformer block": [_seconds(_block(width, hidden, heads), n, width, tokens, rounds) for n in grid],
        "LSTM layer": [_seconds(_lstm(width), n, width, tokens, rounds) for n in grid],
    }
    rates = {kind: [tokens / each for each in found] for kind, found in seconds.items()}
    of_lstm = {n: 8 * n * width**2 for n in grid}
    of_block = {n: sum(products[n].values()) for n in grid}
    work = {  # multiply-adds of a pass forwards, 10^9 in a second
        kind: [of[n] * tokens / n / 1e9 / each for n, each in zip(grid, seconds[kind], strict=True)]
        for kind, of in (("Transformer block", of_block), ("LSTM layer", of_lstm))
    }
    at = max(place for place, n in enumerate(grid) if n <= max(usual, grid[0]))
    faster = work["Transformer block"][at] / work["LSTM layer"][at]
    slower = rates["Transformer block"][0] / rates["Transformer block"][-1]
    return Finding(
        columns=["length", "multiply-adds of a block", "in attention", "block, tokens/s", "LSTM layer, tokens/s"],
        rows=[
            [f"{n:,}", f"{sum(products[n].values()) / 1e6:,.1f} M", f"{100 * shares[n]:.1f} %",
             *(f"{rates[kind][place]:,.0f}" for kind in rates)]
            for place, n in enumerate(grid)
        ],
        right=["length", "multiply-adds of a block", "in attention", "block, tokens/s", "LSTM layer, tokens/s"],
        verdicts=[
            Verdict(
                f"at a length of {grid[at]} the two products of attention are less than a fifth of the work",
                shares[grid[at]] < 0.2, f"{100 * shares[grid[at]]:.1f} %; half of it from a length of {half:,} on",
            ),
            Verdict(
                "a token takes more time in a long sequence than in a short one",
                slower > 1, f"{slower:.1f} times as much at {grid[-1]:,} as at {grid[0]:,}",
            ),
            Verdict(
                "a block does more multiply-adds in a second than an LSTM layer, which waits for each step",
                faster > 1, f"{faster:.1f} times as many at a length of {grid[at]}",
            ),
        ],
        charts=[
            Chart(
                f"one block of width {width}", "length, positions", "share of the multiply-adds, %",
                [
                    Line("the two products of attention", grid, [100 * shares[n] for n in grid]),
                    Line("projections and position-wise network", grid, [100 - 100 * shares[n] for n in grid]),
                ], log_x=True,
            ),
            Chart(
                "forwards and backwards on this machine", "length, positions", "multiply-adds forwards, 10^9 a second",
                [Line(kind, grid, each) for kind, each in work.items()], log_x=True, log_y=True,
            ),
        ],
        records=[
            {"length": n, **products[n], "share": shares[n], **{kind: rates[kind][place] for kind in rates}}
            for place, n in enumerate(grid)
        ],
        notes=[f"{tokens:,} tokens at a time, forwards and backwards, median of {rounds} timings"],
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


def _lstm(width: int) -> tuple[Callable[[tf.Tensor], tf.Tensor], list[tf.Variable]]:
    stack = Stack("lstm", width, layers=1, name="stack")
    stack.build((None, None, width))
    return lambda x: stack(x)[0], [weight.value for weight in stack.trainable_weights]


def _seconds(
    of: tuple[Callable[[tf.Tensor], tf.Tensor], list[tf.Variable]], length: int, width: int, tokens: int, rounds: int
) -> float:
    """Median time of a pass forwards and backwards over a batch of so many tokens."""
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
    return float(np.median(times)) * tokens / (rows * length)
