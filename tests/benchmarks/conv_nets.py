"""How fast ResNet-18 (3x3 stem) and ResNet-20 train here: dlkit, plain `keras.Model.fit` and PyTorch, side by side.

    python tests/benchmarks/conv_nets.py --torch-python PATH [--net resnet18] [--rounds 7] [--steps 3]

Each contender is a process of its own that holds its net and waits; in each round all of them train a few steps, one
after another, so that what else the machine does meets all alike. Images are 32x32x3, batches of 128, SGD with momentum
and weight decay. Printed are the medians over the rounds and, as ratios, the median over the rounds of the quotients.

PyTorch is no dependency of dlkit: name an interpreter that has it, or its rows are left out.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import racing

if TYPE_CHECKING:
    import keras

BATCH = 128
MOST_STEPS = 64  # of a round
IMAGES = 2560  # of the in-memory data set that `crop_flip` draws from


class Net(NamedTuple):
    """What the others build of a residual net by hand.

    Args:
        widths: filters of each stage.
        blocks: of each stage.
        projects: whether a shortcut to another width is a convolution, as in ResNet-18; else zeros are appended.
    """

    widths: tuple[int, ...]
    blocks: int
    projects: bool


class Contender(NamedTuple):
    """What takes part in a race.

    Args:
        train: takes so many steps; returns the seconds if it times them itself.
        parameters: how many are trained.
    """

    train: Callable[[int], float | None]
    parameters: int


NETS = {"resnet18": Net((64, 128, 256, 512), 2, projects=True), "resnet20": Net((16, 32, 64), 3, projects=False)}

CONTENDERS = {
    "dlkit float32": ("dlkit", "float32", ""),
    "dlkit bfloat16": ("dlkit", "bfloat16", ""),
    "dlkit bfloat16 crop_flip": ("dlkit", "bfloat16", "crop_flip"),
    "keras fit float32": ("keras", "float32", ""),
    "keras fit mixed_bfloat16": ("keras", "mixed_bfloat16", ""),
    "torch float32": ("torch", "float32", ""),
    "torch float32 channels_last": ("torch", "float32", "channels_last"),
    "torch bf16 channels_last": ("torch", "bfloat16", "channels_last"),
}
# What is set against what, and the ratio that is to be reached.
RATIOS = [
    ("dlkit float32", "torch float32", 1.3),
    ("dlkit float32", "torch float32 channels_last", None),
    ("dlkit bfloat16", "torch bf16 channels_last", 1.1),
    ("dlkit bfloat16", "keras fit mixed_bfloat16", 2.0),
    ("dlkit float32", "keras fit float32", None),
    ("dlkit bfloat16 crop_flip", "dlkit bfloat16", 0.95),
]


# ------------------------------------------------------------------------------------------------------- contenders


def of_dlkit(net: str, precision: str, augment: str) -> Contender:
    """dlkit's own training step; with an augmentation, fed by its own pipeline, else by one batch again and again."""
    from dlkit import data, runtime
    from dlkit.data.images import ImageData, ImageSplit

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    split = ImageSplit(pixels, random.integers(0, 10, IMAGES).astype(np.int32))
    data.load_images = lambda name, **options: ImageData(name, list("0123456789"), {"train": split})

    runtime.import_tensorflow()
    from dlkit import recipe
    from dlkit.train import start
    from dlkit.train.loop import Progress, batches

    flags = {
        "train.precision": precision, "train.batch_size": BATCH, "train.optimizer": "sgd", "train.weight_decay": 5e-4,
        "data.augment": [augment] if augment else [],
    }  # fmt: skip
    prepared = start.prepare(recipe.resolve(net, "digits", flags=flags))
    assert prepared.task.info["shape"] == [32, 32, 3], "the net trains on other images than those of the others"
    step = start.training_step(prepared)
    drawn = batches(prepared.task, prepared.recipe.train, Progress(), prepared.devices)
    repeated = prepared.task.batch("train", np.arange(BATCH), epoch=None)

    def train(steps: int) -> None:
        for number in range(steps):
            batch = next(drawn).batch if augment else repeated
            float(step(batch, step=number, lr=0.01)["loss"])

    return Contender(train, sum(variable.value.shape.num_elements() for variable in prepared.model.trainable_variables))


def keras_net(net: Net) -> "keras.Model":
    """A net for images of 32x32x3 and ten classes from Keras' own layers."""
    import keras
    from keras import layers

    def conv(x: keras.KerasTensor, filters: int, size: int, stride: int, *, relu: bool = True) -> keras.KerasTensor:
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(x) if relu else x

    def block(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
        y = conv(conv(x, filters, 3, stride), filters, 3, 1, relu=False)
        if x.shape != y.shape and net.projects:
            x = conv(x, filters, 1, stride, relu=False)
        elif x.shape != y.shape:
            x = layers.AveragePooling2D(1, stride)(x)  # a pool of 1 keeps every second position
            x = layers.Concatenate()([x, layers.Lambda(keras.ops.zeros_like)(x)])
        return layers.ReLU()(layers.Add()([x, y]))

    x = inputs = keras.Input((32, 32, 3))
    x = conv(x, net.widths[0], 3, 1)
    for stage, filters in enumerate(net.widths):
        for number in range(net.blocks):
            x = block(x, filters, 2 if stage and not number else 1)
    outputs = layers.Dense(10, dtype="float32")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def of_keras(net: str, precision: str, _: str) -> Contender:
    """The same net from Keras' own layers, trained by `fit` from arrays in memory."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    keras.config.set_dtype_policy(precision)
    model = keras_net(NETS[net])
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=5e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    random = np.random.default_rng(0)
    images = random.normal(size=(MOST_STEPS * BATCH, 32, 32, 3)).astype(np.float32)
    labels = random.integers(0, 10, len(images))

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        """Times the steps alone: what `fit` does before the first and after the last it does once an epoch."""

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            if batch == 0:
                self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.seconds = time.perf_counter() - self.began

    def train(steps: int) -> float:
        clock, rows = Clock(), slice(steps * BATCH)
        model.fit(images[rows], labels[rows], batch_size=BATCH, verbose=0, callbacks=[clock])
        return clock.seconds

    return Contender(train, sum(weight.value.shape.num_elements() for weight in model.trainable_weights))


def of_torch(net: str, precision: str, layout: str) -> Contender:
    """The same net in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    widths, blocks, projects = NETS[net]

    class Block(nn.Module):
        def __init__(self, inputs: int, filters: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.norm1, self.norm2 = nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)
            self.changes, self.stride, self.added = inputs != filters, stride, filters - inputs
            if self.changes and projects:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
                )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
            if self.changes and projects:
                x = self.shortcut(x)
            elif self.changes:
                x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
            return functional.relu(x + y)

    parts: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    before = widths[0]
    for stage, filters in enumerate(widths):
        for number in range(blocks):
            parts.append(Block(before, filters, 2 if stage and not number else 1))
            before = filters
    model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    if layout:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()

    return Contender(train, sum(parameter.numel() for parameter in model.parameters()))


# -------------------------------------------------------------------------------------------------- rounds and figures


def serve(net: str, name: str) -> None:
    """A contender: for each number on stdin it trains so many steps and prints the seconds they took."""
    out = racing.answers()
    library, precision, variant = CONTENDERS[name]
    train, parameters = {"dlkit": of_dlkit, "keras": of_keras, "torch": of_torch}[library](net, precision, variant)
    train(2)
    train(2)

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        own = train(steps)
        return time.perf_counter() - began if own is None else own

    racing.serve(out, seconds, parameters=parameters)


def race(net: str, names: list[str], torch_python: str | None, rounds: int, steps: int) -> dict[str, list[float]]:
    """Images per second of each contender in each round."""
    processes, parameters = {}, {}
    for name in names:
        python = torch_python if CONTENDERS[name][0] == "torch" else sys.executable
        # A library whose threads wait by spinning would slow down the others.
        environment = {"OMP_WAIT_POLICY": "PASSIVE"}
        command = [str(python), str(Path(__file__).resolve()), "--net", net, "--serve", name]
        processes[name] = racing.start(command, environment)
        parameters[name] = racing.await_ready(name, processes[name])
    racing.check_alike(parameters)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in racing.in_turn(processes, number):
            speeds[name].append(BATCH * steps / racing.ask(processes[name], steps))
    for process in processes.values():
        process.terminate()
    return speeds


def main() -> None:
    """Races the contenders of each net and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=NETS, action="append")
    parser.add_argument("--torch-python", help="an interpreter that has PyTorch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps of each contender in each round")
    parser.add_argument("--only", help="race the contenders whose names contain this, such as bf or float32")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not 0 < given.steps <= MOST_STEPS:
        parser.error(f"--steps is from 1 to {MOST_STEPS}")
    if given.serve:
        serve(given.net[0], given.serve)
        return
    names = [name for name, (library, *_) in CONTENDERS.items() if library != "torch" or given.torch_python]
    names = [name for name in names if given.only is None or given.only in name]
    for net in given.net or NETS:
        speeds = race(net, names, given.torch_python, given.rounds, given.steps)
        if given.json:
            print(json.dumps({"net": net, "images_per_second": speeds}))
            continue
        print(f"{net}, batch {BATCH}, {os.cpu_count()} cores: images/s, median of {given.rounds} rounds (min to max)")
        racing.report(speeds, RATIOS, width=30)


if __name__ == "__main__":
    main()
