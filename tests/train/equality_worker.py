"""Trains a tiny net from a recipe: what test_equality.py does on one device and on several, and runs as two processes.

    python equality_worker.py FOLDER

is one process of the cluster in TF_CONFIG: it trains all of `CASES` and writes what came of each into FOLDER.
"""

import sys
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlkit import models, recipe, runtime

# All that could tell devices apart: norms of images and of vectors, dropout, augmentation, mixes of examples on
# different devices, clipping of some steps, an average of the weights, and batches of 20, 20 and 7 images. Two devices
# have to pad the last one, and three all.
RECIPE = {
    "model.dropout": 0.3, "data.size": 8, "data.augment": ["crop_flip", "mixup", "cutmix"], "train.limit": 47,
    "train.batch_size": 20, "train.steps": 6, "train.seed": 5, "train.schedule": "cosine", "train.clip_norm": 1.6,
    "train.ema": 0.9, "train.precision": "float64",
}  # fmt: skip
BATCHES = [20, 20, 7] * 2
SGD = {"train.optimizer": "sgd", "train.lr": 0.1, "train.weight_decay": 1e-3}
# A unit that is always on has no gradient for its shift, since a norm follows: with the usual epsilon of 1e-8 AdamW
# would make 1e-9 of the rounding error of 1e-17 that is left of it.
ADAMW = {"train.optimizer": "adamw", "train.lr": 0.01, "train.weight_decay": 0.05, "train.epsilon": 1e-6}
CASES = {"sgd": SGD, "adamw": ADAMW, "sgd in float32": SGD | {"train.precision": "float32"}}

MODEL = ("tiny", ("image_classification", "equality_worker:tiny"))


class Trained(NamedTuple):
    """What a checkpoint would hold, as "group/variable" -> array, and what each step measured."""

    arrays: dict
    steps: list


def tiny(input_shape, classes, *, norm="batch", dropout=0.0):
    """A strided convolution, a pool and two dense layers."""
    import keras

    from dlkit.layers.hidden import Hidden, image_input

    layers = Hidden("he", norm, "relu")
    x = inputs = image_input("tiny", input_shape)
    x = layers.conv(x, 4, 3, stride=2, number=1)
    x = keras.layers.Flatten(name="flatten")(keras.layers.MaxPooling2D(2, name="pool")(x))
    x = layers.dense(x, 8, number=1, dropout=dropout)
    return keras.Model(inputs, layers.head(x, classes), name="tiny")


def trained(flags, devices="cpu"):
    """Makes the steps of `RECIPE`, with `flags` above it, by the code that `dlkit train` runs."""
    runtime.import_tensorflow()
    from dlkit.train import loop, schedules, start

    resolved = recipe.resolve("tiny", "digits", flags=RECIPE | flags)
    settings = resolved.train
    prepared = start.prepare(resolved, devices=devices)
    update = start.training_step(prepared)
    lr = schedules.schedule(settings.schedule, lr=settings.lr, total_steps=settings.steps)
    batches = islice(loop.batches(prepared.task, settings, loop.Progress(), prepared.devices), settings.steps)
    steps = [
        {name: float(value) for name, value in update(drawn.batch, step=step, lr=lr(step), size=drawn.size).items()}
        for step, drawn in enumerate(batches)
    ]
    groups = update.arrays()
    return Trained({f"{group}/{name}": array for group in groups for name, array in groups[group].items()}, steps)


def main(folder):
    models.targets().update([MODEL])
    runtime.devices = cache(runtime.devices)  # a process joins its cluster once
    runtime.import_tensorflow()
    rank = runtime.devices("auto").rank
    for case, flags in CASES.items():
        np.savez(folder / f"{case} {rank}.npz", **trained(flags, "auto").arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
