"""How fast translators train here: dlkit, PyTorch, JoeyNMT and Keras, side by side.

    python tests/benchmarks/translation_training.py --torch-python PATH [--joeynmt-python PATH] [--work lstm]

Two works. `transformer` is the recipe transformer_multi30k (4 + 4 blocks, width 128, one vocabulary of 8,000, batches
of 4,096 tokens) on made-up sentences that are as long as those of Multi30k: dlkit with all that `dlkit train` does in a
step, drawing the batch included; PyTorch on the same batches, drawn beforehand; JoeyNMT on its own batches, which have
as many tokens with their padding, but not sentences of like length. `lstm` is two layers of 256 units, forward and
back, with an update of their weights: dlkit's and Keras' layers in the same compiled step, 32 x 35 inputs.

Each contender is a process of its own that holds its model and waits; in each round all of them train the same few
steps, one after another, so that what else the machine does meets all alike. Printed are tokens (of the target, without
padding) per second, the medians over the rounds, and as ratios the median over the rounds of the quotients.

PyTorch and JoeyNMT are no dependencies of dlkit: name interpreters that have them, or their rows are left out. JoeyNMT
needs no more than to be imported: of what it depends on, most is for other purposes.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import racing

RECIPE = "transformer_multi30k"
PAIRS, VOCABULARY, WIDTH, FFN, BLOCKS, HEADS, DROPOUT, SMOOTHING = 29_000, 8000, 128, 256, 4, 4, 0.3, 0.1
LSTM_LAYERS, LSTM_UNITS, LSTM_ROWS, LSTM_STEPS = 2, 256, 32, 35
WARM_UP = 4  # steps before the first round: in the first ones TensorFlow traces its graphs
THREADS = 2

CONTENDERS = {
    "transformer": {
        "dlkit float32": ("dlkit", "float32", ""),
        "dlkit bfloat16": ("dlkit", "bfloat16", ""),
        "torch float32": ("torch", "float32", ""),
        "torch bf16": ("torch", "bfloat16", ""),
        # Its layers drop attention weights and hidden units as well, which the recipe does not.
        "torch bf16, less dropout": ("torch", "bfloat16", "less dropout"),
        "joeynmt float32": ("joeynmt", "float32", ""),
    },
    "lstm": {
        "dlkit float32": ("dlkit", "float32", ""),
        "dlkit bfloat16": ("dlkit", "bfloat16", ""),
        "keras float32": ("keras", "float32", ""),
        "keras float32 unrolled": ("keras", "float32", "unrolled"),
        "keras float32 xla": ("keras", "float32", "xla"),
        "keras mixed_bfloat16": ("keras", "bfloat16", ""),
        "torch float32": ("torch", "float32", ""),
    },
}
# What is set against what, and the ratio that is to be reached.
RATIOS = {
    "transformer": [
        ("dlkit bfloat16", "torch bf16", 1.7),
        ("dlkit bfloat16", "torch bf16, less dropout", None),
        ("dlkit float32", "torch float32", None),
        ("dlkit bfloat16", "joeynmt float32", 5.0),
    ],
    "lstm": [
        ("dlkit float32", "keras float32", 1.3),
        ("dlkit float32", "keras float32 unrolled", None),
        ("dlkit float32", "keras float32 xla", None),
        ("dlkit bfloat16", "keras mixed_bfloat16", 1.3),
        ("dlkit float32", "torch float32", None),
    ],
}
Train = Callable[[int], int]  # so many steps; returns how many tokens they trained on


# ------------------------------------------------------------------------------------------------------------- batches


def write_texts(folder: Path) -> None:
    """Texts of made-up words, in lengths like those of Multi30k in pieces: log-normal, about 14.3 and 14.8 on average.

    The logarithms of both lengths have standard deviations of 0.32 and 0.35 and a correlation of 0.86.
    """
    random = np.random.default_rng(0)
    covariance = 0.86 * 0.32 * 0.35
    logs = random.multivariate_normal((2.61, 2.63), ((0.32**2, covariance), (covariance, 0.35**2)), PAIRS)
    for language, lengths in zip(("en", "de"), np.exp(logs).round().astype(int).T, strict=True):
        words = (" ".join(f"w{word}" for word in random.integers(4, VOCABULARY, length)) for length in lengths)
        (folder / f"train.{language}").write_text("".join(f"{line}\n" for line in words))


def recipe_of(folder: Path, precision: str) -> Any:
    """The shipped recipe on these texts."""
    from dlkit import recipe

    data = {"data.name": str(folder), "data.tokenizer": "word", "data.min_count": 1}
    return recipe.load(recipe.find(RECIPE), flags=data | {"train.precision": precision})


def write_batches(folder: Path, steps: int) -> None:
    """Saves the batches of the first steps for those who cannot draw them."""
    from dlkit import data
    from dlkit.data import pairs
    from dlkit.data.buckets import TokenBatches

    resolved = recipe_of(folder, "float32")
    split = data.load_pairs(resolved.data.name, **resolved.data.options).splits["train"]
    plan = TokenBatches(*split.lengths, batch_tokens=resolved.train.batch_tokens)
    epochs = range(math.ceil(steps / len(plan)))
    drawn = [rows for epoch in epochs for rows in plan.epoch(epoch, seed=resolved.train.seed)][:steps]
    batches = [pairs.batch(split, rows, lengths=plan.lengths(rows)) for rows in drawn]
    arrays = {f"{name} {step}": array for step, made in enumerate(batches) for name, array in made._asdict().items()}
    np.savez(folder / "batches.npz", **arrays)


def read_batches(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Sources, what the decoder reads and what it has to say, for each step."""
    with np.load(folder / "batches.npz") as arrays:
        for step in range(len(arrays.files) // 3):
            source, target_in, target_out = (
                arrays[f"{name} {step}"].astype(np.int64) for name in ("source", "target_in", "target_out")
            )
            yield source, target_in, target_out


# --------------------------------------------------------------------------------------------------------- transformer


def transformer_of_dlkit(folder: Path, precision: str, _: str) -> Train:
    """dlkit's own training step, fed by its own pipeline."""
    from dlkit import runtime

    runtime.import_tensorflow()
    from dlkit.train import start
    from dlkit.train.loop import Progress, batches

    prepared = start.prepare(recipe_of(folder, precision))
    step = start.training_step(prepared)
    drawn = batches(prepared.task, prepared.recipe.train, Progress(), prepared.devices)

    def train(steps: int) -> int:
        weights = [step(next(drawn).batch, step=number, lr=1e-3)["weight"] for number in range(steps)]
        return int(sum(map(float, weights)))

    return train


def transformer_of_torch(folder: Path, precision: str, variant: str) -> Train:
    """`nn.Transformer` between an embedding that both sides and the read-out share."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(THREADS)

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(VOCABULARY, WIDTH)
            nn.init.normal_(self.words.weight, 0, WIDTH**-0.5)
            angles = torch.arange(512)[:, None] / 10_000 ** (torch.arange(0, WIDTH, 2) / WIDTH)
            self.register_buffer("positions", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
            self.dropout = nn.Dropout(DROPOUT)
            self.transformer = nn.Transformer(
                WIDTH, HEADS, BLOCKS, BLOCKS, dim_feedforward=FFN, dropout=DROPOUT, batch_first=True, norm_first=True
            )

        def embedded(self, ids: torch.Tensor) -> torch.Tensor:
            return self.dropout(self.words(ids) * WIDTH**0.5 + self.positions[: ids.shape[1]])

        def forward(self, source: torch.Tensor, target_in: torch.Tensor) -> torch.Tensor:
            later = nn.Transformer.generate_square_subsequent_mask(target_in.shape[1], dtype=torch.bool)
            outputs = self.transformer(
                self.embedded(source), self.embedded(target_in), tgt_mask=later, tgt_is_causal=True,
                src_key_padding_mask=source == 0, memory_key_padding_mask=source == 0,
            )  # fmt: skip
            return functional.linear(outputs, self.words.weight)

    model = Translator().train()
    if variant == "less dropout":
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
            elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.dropout = nn.Identity()  # the one between the products of the position-wise network
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.9, 0.98))
    batches = (tuple(map(torch.from_numpy, arrays)) for arrays in read_batches(folder))

    def train(steps: int) -> int:
        tokens = 0
        for source, target_in, target_out in itertools.islice(batches, steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(source, target_in)
                loss = functional.cross_entropy(
                    logits.flatten(0, 1), target_out.flatten(), ignore_index=0, label_smoothing=SMOOTHING
                )
            loss.backward()
            optimizer.step()
            tokens += int((target_out != 0).sum())
        return tokens

    return train


def transformer_of_joeynmt(folder: Path, _: str, __: str) -> Train:
    """JoeyNMT's model, loss and batches, in a step like its own, which has no bfloat16 on a CPU."""
    import torch
    from joeynmt.batch import Batch
    from joeynmt.datasets import TokenBatchSampler
    from joeynmt.model import build_model
    from joeynmt.vocabulary import Vocabulary
    from torch.nn.utils.rnn import pad_sequence

    torch.set_num_threads(THREADS)
    unknown, pad, begin, end = range(4)
    marks = SimpleNamespace(
        unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>", sep_token=None, lang_tags=[],
        unk_id=unknown, pad_id=pad, bos_id=begin, eos_id=end,
    )  # fmt: skip
    vocabulary = Vocabulary([f"w{word}" for word in range(4, VOCABULARY)], marks)
    side = {
        "type": "transformer", "num_layers": BLOCKS, "num_heads": HEADS, "hidden_size": WIDTH, "ff_size": FFN,
        "layer_norm": "pre", "dropout": DROPOUT, "embeddings": {"embedding_dim": WIDTH, "scale": True, "dropout": 0.0},
    }  # fmt: skip
    settings = {"encoder": side, "decoder": side, "tied_embeddings": True, "tied_softmax": True}
    model = build_model(settings, vocabulary, vocabulary).train()
    model.loss_function = ("crossentropy", SMOOTHING)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.9, 0.98))

    sources, targets = (
        [[int(word[1:]) for word in line.split()] for line in (folder / f"train.{language}").read_text().splitlines()]
        for language in ("en", "de")
    )
    order = torch.utils.data.RandomSampler(list(zip(itertools.repeat(None), sources, targets, strict=False)))
    drawn = iter(TokenBatchSampler(order, batch_size=4096, drop_last=False, seed=0))

    def train(steps: int) -> int:
        tokens = 0
        for rows in itertools.islice(drawn, steps):
            source = [torch.tensor([*sources[row], end]) for row in rows]
            target = [torch.tensor([begin, *targets[row], end]) for row in rows]
            batch = Batch(
                src=pad_sequence(source, batch_first=True, padding_value=pad), src_prompt_mask=None,
                src_length=torch.tensor([len(ids) for ids in source]),
                trg=pad_sequence(target, batch_first=True, padding_value=pad), trg_prompt_mask=None,
                indices=torch.tensor(rows), device=torch.device("cpu"), pad_index=pad, eos_index=end,
            )  # fmt: skip
            batch.sort_by_src_length()
            loss, *_ = model(return_type="loss", **vars(batch))
            batch.normalize(loss, normalization="tokens").backward()
            optimizer.step()
            optimizer.zero_grad()
            tokens += batch.ntokens
        return tokens

    return train


# ---------------------------------------------------------------------------------------------------------------- LSTM


def lstm_of_tensorflow(library: str, precision: str, variant: str) -> Train:
    """dlkit's stack or Keras' layers in one step: gradients of weights and inputs, and an update."""
    from dlkit import runtime

    runtime.import_tensorflow()
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else precision)
    shape = (LSTM_ROWS, LSTM_STEPS, LSTM_UNITS)
    if library == "dlkit":
        from dlkit.layers.recurrent import Stack

        stack = Stack("lstm", LSTM_UNITS, layers=LSTM_LAYERS, name="stack")
        outputs_of = lambda inputs: stack(inputs)[0]  # noqa: E731
    else:
        # With `use_cudnn` as it is, Keras keeps XLA away from the whole model.
        options = {"unroll": variant == "unrolled"} | ({"use_cudnn": False} if variant == "xla" else {})
        stack = keras.Sequential(
            [keras.layers.LSTM(LSTM_UNITS, return_sequences=True, **options) for _ in range(LSTM_LAYERS)]
        )
        outputs_of = stack
    stack.build(shape)
    variables = [variable.value for variable in stack.trainable_variables]

    @tf.function(jit_compile=variant == "xla")
    def step(inputs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_mean(tf.cast(outputs_of(inputs), tf.float32) ** 2)
        *gradients, to_inputs = tape.gradient(loss, [*variables, inputs])
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
        return loss + tf.reduce_sum(to_inputs)

    inputs = tf.random.stateless_normal(shape, seed=(0, 0))

    def train(steps: int) -> int:
        for _ in range(steps):
            float(step(inputs))
        return steps * LSTM_ROWS * LSTM_STEPS

    return train


def lstm_of_torch() -> Train:
    """The same with PyTorch's layers."""
    import torch

    torch.set_num_threads(THREADS)
    stack = torch.nn.LSTM(LSTM_UNITS, LSTM_UNITS, LSTM_LAYERS, batch_first=True)
    optimizer = torch.optim.SGD(stack.parameters(), 0.1)
    inputs = torch.randn(LSTM_ROWS, LSTM_STEPS, LSTM_UNITS, requires_grad=True)

    def train(steps: int) -> int:
        for _ in range(steps):
            optimizer.zero_grad()
            (stack(inputs)[0] ** 2).mean().backward()
            optimizer.step()
        return steps * LSTM_ROWS * LSTM_STEPS

    return train


# -------------------------------------------------------------------------------------------------- rounds and figures


def serve(work: str, name: str, folder: Path) -> None:
    """A contender: for each number on stdin it trains so many steps and prints the tokens per second."""
    out = racing.answers()
    library, *how = CONTENDERS[work][name]
    if work == "lstm":
        train = lstm_of_torch() if library == "torch" else lstm_of_tensorflow(library, *how)
    else:
        makers = {
            "dlkit": transformer_of_dlkit, "torch": transformer_of_torch, "joeynmt": transformer_of_joeynmt
        }  # fmt: skip
        train = makers[library](folder, *how)

    def speed(steps: int) -> float:
        began = time.perf_counter()
        tokens = train(steps)
        return tokens / (time.perf_counter() - began)

    racing.serve(out, speed)


def start(work: str, pythons: dict[str, str], folder: Path) -> dict[str, subprocess.Popen[str]]:
    """The contenders, each ready to train."""
    processes = {}
    for name, python in pythons.items():
        command = [python, str(Path(__file__).resolve()), "--work", work, "--serve", name, "--folder", str(folder)]
        processes[name] = racing.start(command, {"OMP_NUM_THREADS": str(THREADS)})
    for name, process in processes.items():
        racing.await_ready(name, process)
    return processes


def race(work: str, pythons: dict[str, str], *, rounds: int, steps: int, folder: Path) -> dict[str, list[float]]:
    """Tokens per second of each contender in each round."""
    if work == "transformer":
        write_texts(folder)
        write_batches(folder, WARM_UP + rounds * steps)
    processes = start(work, pythons, folder)
    speeds: dict[str, list[float]] = {name: [] for name in processes}
    for number in range(rounds + 1):
        for name in racing.in_turn(processes, number):
            time.sleep(0.5)  # until the threads of the one before no longer wait by spinning
            speeds[name].append(racing.ask(processes[name], steps if number else WARM_UP))
    for process in processes.values():
        process.terminate()
    return {name: values[1:] for name, values in speeds.items()}


def main() -> None:
    """Races the contenders at each work and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", choices=CONTENDERS, action="append")
    parser.add_argument("--torch-python", help="an interpreter that has PyTorch")
    parser.add_argument("--joeynmt-python", help="an interpreter that has JoeyNMT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps of each contender in each round")
    parser.add_argument("--only", help="race the contenders whose names contain this, such as bf or float32")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.work[0], given.serve, given.folder)
        return
    interpreters = {"dlkit": sys.executable, "keras": sys.executable} | {
        library: python
        for library, python in (("torch", given.torch_python), ("joeynmt", given.joeynmt_python))
        if python
    }
    for work in given.work or CONTENDERS:
        pythons = {
            name: interpreters[library]
            for name, (library, *_) in CONTENDERS[work].items()
            if library in interpreters and (given.only is None or given.only in name)
        }
        with tempfile.TemporaryDirectory() as folder:
            speeds = race(work, pythons, rounds=given.rounds, steps=given.steps, folder=Path(folder))
        if given.json:
            print(json.dumps({"work": work, "tokens_per_second": speeds}))
            continue
        print(f"{work}, {os.cpu_count()} cores: tokens/s, median of {given.rounds} rounds (min to max)")
        racing.report(speeds, RATIOS[work], width=26)


if __name__ == "__main__":
    main()
