"""How fast language models train and write here: dlkit, PyTorch and Keras, side by side.

    python tests/benchmarks/language_models.py --torch-python PATH [--work lstm] [--rounds 5]

Three works. `gpt` is the recipe gpt_shakespeare (four blocks, four heads, width 128, 12 x 64 characters): dlkit with
all that `dlkit train` does in a step, PyTorch with a net of the same form in a plain loop. `lstm` is a language model
of two layers of 256 units with 10,000 words, 32 x 35 of them a batch: dlkit's model and step, Keras' and PyTorch's
layers. `generate` is ten texts of 500 characters of a net of that size, untrained and with GELU: dlkit in one batch,
and PyTorch one text after another with the last 64 characters read anew for each, as nanoGPT's sampling works.

Each contender is a process of its own that holds its model and waits; in each round all of them do the same work, one
after another, so that what else the machine does meets all alike. Printed are tokens per second, the medians over the
rounds, and as ratios the median over the rounds of the quotients. PyTorch is no dependency of dlkit: name an
interpreter that has it, or its rows are left out.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import racing

THREADS = 2
WARM_UP = 4
ROWS, BLOCK, VOCABULARY, WIDTH, HEADS, LAYERS = 12, 64, 69, 128, 4, 4
LSTM_ROWS, LSTM_STEPS, LSTM_WORDS, LSTM_UNITS = 32, 35, 10_000, 256
SAMPLES, LENGTH = 10, 500

CONTENDERS = {
    "gpt": {
        "dlkit float32": ("dlkit", "float32"),
        "dlkit bfloat16": ("dlkit", "bfloat16"),
        "torch float32": ("torch", "float32"),
    },
    "lstm": {
        "dlkit float32": ("dlkit", "float32"),
        "dlkit bfloat16": ("dlkit", "bfloat16"),
        "keras float32": ("keras", "float32"),
        "keras mixed_bfloat16": ("keras", "mixed_bfloat16"),
        "torch float32": ("torch", "float32"),
        "torch bfloat16": ("torch", "bfloat16"),
    },
    "generate": {"dlkit float32": ("dlkit", "float32"), "torch float32": ("torch", "float32")},
}
RATIOS: dict[str, list[tuple[str, str, float | None]]] = {
    "gpt": [("dlkit float32", "torch float32", 1.67), ("dlkit bfloat16", "torch float32", 1.67)],
    "lstm": [
        ("dlkit float32", "keras float32", 1.3),
        ("dlkit float32", "torch float32", 1.5),
        ("dlkit bfloat16", "keras float32", 1.3),
        ("dlkit bfloat16", "torch float32", 1.5),
        ("dlkit bfloat16", "keras mixed_bfloat16", 1.3),
        ("dlkit bfloat16", "torch bfloat16", 1.5),
    ],
    "generate": [("dlkit float32", "torch float32", 3.0)],
}
Work = Callable[[int], int]  # so many times; returns how many tokens that were


# --------------------------------------------------------------------------------------------------------------- dlkit


def step_of_dlkit(model: str, data: str, flags: dict[str, Any]) -> Work:
    """dlkit's own training step, fed by its own pipeline."""
    from dlkit import recipe, runtime

    runtime.import_tensorflow()
    from dlkit.train import start
    from dlkit.train.loop import Progress, batches

    prepared = start.prepare(recipe.resolve(model, data, flags=flags))
    step = start.training_step(prepared)
    drawn = batches(prepared.task, prepared.recipe.train, Progress(), prepared.devices)

    def train(steps: int) -> int:
        made = ((next(drawn), number) for number in range(steps))
        return int(sum(float(step(batch.batch, step=at, lr=1e-3, begins=not at)["weight"]) for batch, at in made))

    return train


def gpt_of_dlkit(_: Path, precision: str) -> Work:
    """The recipe."""
    return step_of_dlkit("gpt", "shakespeare", {"train.precision": precision})


def lstm_of_dlkit(folder: Path, precision: str) -> Work:
    """Words that are made up, with the state carried on."""
    flags = {
        "data.tokenizer": "word", "data.vocabulary": LSTM_WORDS, "data.block": LSTM_STEPS, "data.min_count": 1,
        "train.batch_size": LSTM_ROWS, "train.optimizer": "adam", "train.precision": precision,
    }  # fmt: skip
    return step_of_dlkit("lstm_lm", str(folder / "words.txt"), flags)


def generate_of_dlkit(_: Path, __: str) -> Work:
    """One batch of samples; the model is not trained, which changes no cost."""
    from dlkit import models, runtime

    runtime.import_tensorflow()
    from dlkit.data.corpus import shakespeare
    from dlkit.tasks.generator import Generator
    from dlkit.tasks.translator import Search

    corpus = shakespeare()
    model = models.build("gpt", vocabulary=corpus.tokenizer.size)
    info = {"units": "text", "keeps_lines": True, "first": corpus.first}
    generator = Generator(model, corpus.tokenizer, info, LENGTH)

    def write(times: int) -> int:
        found = [generator(Search(method="sample", n_best=SAMPLES, seed=seed)) for seed in range(times)]
        return sum(len(each.ids) for texts in found for each in texts)

    return write


# --------------------------------------------------------------------------------------------------------------- torch


def net_of_torch() -> Any:
    """A decoder-only Transformer of the recipe's form: norms before the sublayers, no biases, tied read-out."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(THREADS)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
            self.inputs, self.output = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
            self.hidden = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
            self.back = nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows, time_steps, _ = x.shape
            parts = self.inputs(self.norm1(x)).view(rows, time_steps, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + self.output(seen.transpose(1, 2).reshape(rows, time_steps, WIDTH))
            return x + self.back(functional.gelu(self.hidden(self.norm2(x))))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(BLOCK, WIDTH)
            self.layers, self.norm = nn.Sequential(*(Layer() for _ in range(LAYERS))), nn.LayerNorm(WIDTH, bias=False)
            for table in (self.words, self.positions):
                nn.init.normal_(table.weight, 0, 0.02)

        def forward(self, ids: torch.Tensor, *, last: bool = False) -> torch.Tensor:
            x = self.norm(self.layers(self.words(ids) + self.positions.weight[: ids.shape[1]]))
            return functional.linear(x[:, -1:] if last else x, self.words.weight)

    return Net()


def gpt_of_torch(_: Path, __: str) -> Work:
    """A plain loop."""
    import torch
    from torch.nn import functional

    net = net_of_torch()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, VOCABULARY, 100_000))

    def train(steps: int) -> int:
        for _ in range(steps):
            places = torch.randint(len(ids) - BLOCK - 1, (ROWS,))
            inputs, targets = (torch.stack([ids[at + by : at + by + BLOCK] for at in places]) for by in (0, 1))
            loss = functional.cross_entropy(net(inputs).flatten(0, 1), targets.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return steps * ROWS * BLOCK

    return train


def generate_of_torch(_: Path, __: str) -> Work:
    """One text after another; for each character the last 64 are read."""
    import torch

    net = net_of_torch().eval()

    @torch.no_grad()
    def write(times: int) -> int:
        for _ in range(times):  # of the ten texts one: all take the same time
            ids = torch.full((1, 1), 14)
            for _ in range(LENGTH):
                shares = torch.softmax(net(ids[:, -BLOCK:], last=True)[:, -1], -1)
                ids = torch.cat([ids, torch.multinomial(shares, 1)], 1)
        return times * LENGTH

    return write


def lstm_of_torch(_: Path, precision: str) -> Work:
    """`nn.LSTM` between an embedding and a read-out."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(THREADS)
    words, lstm = nn.Embedding(LSTM_WORDS, LSTM_UNITS), nn.LSTM(LSTM_UNITS, LSTM_UNITS, 2, batch_first=True)
    head = nn.Linear(LSTM_UNITS, LSTM_WORDS)
    parameters = [*words.parameters(), *lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, LSTM_WORDS, (LSTM_ROWS, LSTM_STEPS + 1)))

    def train(steps: int) -> int:
        state = None
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                outputs, state = lstm(words(ids[:, :-1]), state)
                logits = head(outputs)
            state = tuple(part.detach() for part in state)
            loss = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return steps * LSTM_ROWS * LSTM_STEPS

    return train


# --------------------------------------------------------------------------------------------------------------- keras


def lstm_of_keras(_: Path, precision: str) -> Work:
    """`keras.layers.LSTM` in `train_on_batch`, which runs one compiled step."""
    import keras

    keras.config.set_dtype_policy(precision)
    layers = [
        keras.layers.Embedding(LSTM_WORDS, LSTM_UNITS),
        *(keras.layers.LSTM(LSTM_UNITS, return_sequences=True) for _ in range(2)),
        keras.layers.Dense(LSTM_WORDS),
        keras.layers.Activation("linear", dtype="float32"),
    ]
    model = keras.Sequential([keras.Input((LSTM_STEPS,), batch_size=LSTM_ROWS, dtype="int32"), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0), loss)
    ids = np.random.default_rng(0).integers(4, LSTM_WORDS, (LSTM_ROWS, LSTM_STEPS + 1))

    def train(steps: int) -> int:
        for _ in range(steps):
            model.train_on_batch(ids[:, :-1], ids[:, 1:])
        return steps * LSTM_ROWS * LSTM_STEPS

    return train


# ---------------------------------------------------------------------------------------------------------------- race


def contend(work: str, library: str, folder: Path, precision: str) -> None:
    """What a contender's process does: it gets ready, and works when it is told to."""
    out = racing.answers()
    do: Work = globals()[f"{work}_of_{library}"](folder, precision)
    do(1 if work == "generate" else WARM_UP)

    def speed(times: int) -> float:
        began = time.perf_counter()
        return do(times) / (time.perf_counter() - began)

    racing.serve(out, speed)


def main() -> None:
    """Starts the contenders, lets them race, and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", help="an interpreter with PyTorch")
    parser.add_argument("--work", choices=list(CONTENDERS), default="gpt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, help="steps, or batches of texts, of a round")
    parser.add_argument("--contend", nargs=3, metavar=("LIBRARY", "FOLDER", "PRECISION"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contend:
        library, folder, precision = given.contend
        contend(given.work, library, Path(folder), precision)
        return

    import tempfile

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = np.random.default_rng(0).integers(0, LSTM_WORDS - 4, 200_000)
        words[: LSTM_WORDS - 4] = np.arange(LSTM_WORDS - 4)  # all of them occur
        (folder / "words.txt").write_text(" ".join(f"w{word}" for word in words) + "\n")
        processes = {}
        for name, (library, precision) in CONTENDERS[given.work].items():
            python = given.torch_python if library == "torch" else sys.executable
            if python:
                arguments = [python, __file__, "--work", given.work, "--contend", library, str(folder), precision]
                processes[name] = racing.start(arguments, {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"})
                racing.await_ready(name, processes[name])  # one after another: they would slow each other down
        speeds: dict[str, list[float]] = {name: [] for name in processes}
        for number in range(given.rounds):
            for name in racing.in_turn(processes, number):
                speeds[name].append(racing.ask(processes[name], given.times or (1 if given.work == "generate" else 20)))
        for process in processes.values():
            process.kill()
            process.communicate()
        print(f"{given.work}: tokens per second")
        racing.report(speeds, RATIOS[given.work], width=22)


if __name__ == "__main__":
    main()
