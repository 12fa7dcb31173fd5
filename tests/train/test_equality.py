"""How a batch is divided changes nothing: one device, several, several processes and micro-batches, to 1e-9."""

import json
import os
import signal
import subprocess
import sys
from functools import cache

import equality_worker
import keras
import numpy as np
import pytest
import tensorflow as tf
from equality_worker import BATCHES, CASES, trained

from dlkit import models, runtime, workers
from dlkit.layers.norms import EPSILON, MOMENTUM, BatchNorm
from dlkit.tasks.image_classification import ImageClassification
from dlkit.train import optimizers
from dlkit.train.clipping import Clipping
from dlkit.train.step import TrainingStep

# Float64 rounds at 1e-16 and float32 at 1e-7; six steps amplify it, and a difference in what is computed shows in the
# first digits.
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """The worker's net among the models, as one from a package of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.targets(), *equality_worker.MODEL)
        yield


@pytest.fixture(scope="module", autouse=True)  # they start first, and train while the other tests run
def two_processes(tmp_path_factory):
    """(case, process) -> its arrays, of two processes that train all cases together."""
    folder = tmp_path_factory.mktemp("two")
    processes = []

    def start():
        """Starts both; another program may take one of their ports before they do, and then they never meet."""
        addresses = [f"127.0.0.1:{port}" for port in workers._free_ports(2)]
        for index in range(2):
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            command = [sys.executable, equality_worker.__file__, str(folder)]
            environment = os.environ | {"TF_CONFIG": json.dumps(cluster)}
            processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))

    def results():
        found = []
        for process in processes[-2:]:
            try:
                _, error = process.communicate(timeout=120)
            except subprocess.TimeoutExpired:  # waiting for the other one, which may have failed
                process.kill()
                _, error = process.communicate()
            found.append((process.returncode, error))
        return found

    @cache
    def ended():
        found = results()
        if any(code == -signal.SIGKILL for code, _ in found):  # they did not meet: once more
            start()
            found = results()
        return found

    start()

    def arrays(case, process):
        assert [code for code, _ in ended()] == [0, 0], ended()
        with np.load(folder / f"{case} {process}.npz") as file:
            return dict(file)

    yield arrays
    for process in processes:
        process.kill()
        process.communicate()


@cache
def alone(case, norm="batch"):
    """The case on one device."""
    one = trained(CASES[case] | {"model.norm": norm})
    assert [step["weight"] for step in one.steps] == BATCHES
    assert 1.0 in [step["clipped"] for step in one.steps], "clipping has to be active"
    assert {name.partition("/")[0] for name in one.arrays} == {"weights", "optimizer", "ema"}
    assert ("weights/dense_norm1/moving_variance" in one.arrays) == (norm == "batch")
    return one


def assert_equal(ours, theirs, tolerance=TOLERANCE["float64"]):
    """Every array agrees, relative to the largest of its entries."""
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        limit = tolerance * np.abs(array).max()
        assert limit > 0
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=limit, err_msg=name)


# --------------------------------------------------------------------------------------------------- several devices


@pytest.mark.parametrize("devices", ["cpu:2", "cpu:3"])
@pytest.mark.parametrize("case", ["sgd", "adamw"])
def test_several_devices_equal_one(case, devices):
    one, several = alone(case), trained(CASES[case], devices)
    assert_equal(several.arrays, one.arrays)
    for ours, theirs in zip(several.steps, one.steps, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_in_float32_two_devices_equal_one():
    one, two = alone("sgd in float32"), trained(CASES["sgd in float32"], "cpu:2")
    assert one.arrays["weights/conv1/kernel"].dtype == np.float32
    assert_equal(two.arrays, one.arrays, TOLERANCE["float32"])


# ------------------------------------------------------------------------------------------------- several processes


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_device(two_processes, case, process):
    tolerance = TOLERANCE["float32" if "float32" in case else "float64"]
    assert_equal(two_processes(case, process), alone(case).arrays, tolerance)


# ------------------------------------------------------------------------------------------------------ micro-batches


@pytest.mark.parametrize(("case", "parts", "devices"), [("sgd", 2, "cpu"), ("adamw", 2, "cpu"), ("sgd", 3, "cpu:2")])
def test_without_batch_norm_micro_batches_equal_the_whole_batch(case, parts, devices):
    divided = trained(CASES[case] | {"model.norm": "none", "train.accumulate": parts}, devices)
    assert_equal(divided.arrays, alone(case, norm="none").arrays)


def patches(images):
    """The 3x3 windows of (n, 8, 8) images as rows, (n * 36, 9)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    return windows.reshape(-1, 9)


class Reference:
    """Convolution 3x3, batch norm, ReLU and a dense layer in NumPy: SGD with momentum, decay and clipping.

    The gradients are those of Ioffe and Szegedy 2015, section 3, of each micro-batch by itself.
    """

    def __init__(self, kernel, head, bias):
        filters = kernel.shape[-1]
        self.weights = [kernel.reshape(9, filters), np.ones(filters), np.zeros(filters), head, bias]
        self.velocities = [np.zeros_like(weight) for weight in self.weights]
        self.mean, self.variance = np.zeros(filters), np.ones(filters)

    def gradients(self, images, labels):
        """Those of the summed loss of one micro-batch, whose statistics enter the moving ones."""
        kernel, gamma, beta, head, bias = self.weights
        rows = len(images)
        x = patches(images)
        maps = x @ kernel  # (rows * 36, filters)
        values = len(maps)
        mean, variance = maps.mean(0), maps.var(0)
        self.mean = MOMENTUM * self.mean + (1 - MOMENTUM) * mean
        self.variance = MOMENTUM * self.variance + (1 - MOMENTUM) * variance * values / (values - 1)
        deviation = np.sqrt(variance + EPSILON)
        normal = (maps - mean) / deviation
        units = np.maximum(gamma * normal + beta, 0).reshape(rows, -1)
        logits = units @ head + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)

        error = p.copy()
        error[np.arange(rows), labels] -= 1
        d_shifted = (error @ head.T * (units > 0)).reshape(maps.shape)
        d_normal = d_shifted * gamma
        d_maps = (d_normal - d_normal.mean(0) - normal * (d_normal * normal).mean(0)) / deviation
        return [x.T @ d_maps, (d_shifted * normal).sum(0), d_shifted.sum(0), units.T @ error, error.sum(0)]

    def step(self, images, labels, *, parts, lr, momentum, decay, limit):
        """One update; returns the norm of its gradient."""
        size = -(-len(images) // parts)
        micro = [self.gradients(images[at : at + size], labels[at : at + size]) for at in range(0, len(images), size)]
        gradients = [sum(group) / len(images) for group in zip(*micro, strict=True)]
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        for index, gradient in enumerate(gradients):
            weight = self.weights[index]
            penalty = decay * weight if weight.ndim > 1 else 0
            self.velocities[index] = momentum * self.velocities[index] + gradient * min(1, limit / norm) + penalty
            self.weights[index] = weight - lr * self.velocities[index]
        return norm


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_with_batch_norm_micro_batches_equal_numpy(parts):
    """Each micro-batch is normalized by its own statistics, and all move the averages, one after the other."""
    runtime.set_precision("float64")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    conv = keras.layers.Conv2D(3, 3, use_bias=False, name="conv")
    norm, head = BatchNorm(name="norm"), keras.layers.Dense(10, name="head")
    x = keras.layers.Flatten(name="flatten")(keras.layers.ReLU(name="relu")(norm(conv(inputs))))
    model = keras.Model(inputs, head(x))
    reference = Reference(conv.kernel.numpy(), *head.get_weights())
    task = ImageClassification({"name": "digits", "size": 8, "augment": ["crop_flip"]}, seed=1, limit=47)
    limit = 2.5
    step = TrainingStep(
        task,
        model,
        optimizers.SGD(momentum=0.9, weight_decay=0.01),
        runtime.Devices(tf.distribute.get_strategy(), "one"),
        clipping=Clipping(norm=limit),
        accumulate=parts,
    )
    norms = []
    for done, indices in enumerate([*task.plan("train", batch_size=20, epoch=0)] * 2):  # of 20, 20 and 7 images, twice
        batch = task.batch("train", indices, epoch=0)
        measured = step(batch, step=done, lr=0.1)
        images = batch["images"][..., 0].astype(np.float64)
        norms.append(
            reference.step(images, batch["labels"], parts=parts, lr=0.1, momentum=0.9, decay=0.01, limit=limit)
        )
        assert float(measured["gradient_norm"]) == pytest.approx(norms[-1], rel=1e-9)
        assert bool(measured["clipped"]) == (norms[-1] > limit)
    assert min(norms) < limit < max(norms)

    arrays = step.arrays()
    names = ["conv/kernel", "norm/gamma", "norm/beta", "head/kernel", "head/bias"]
    expected = dict(zip(names, reference.weights, strict=True))
    expected |= {"norm/moving_mean": reference.mean, "norm/moving_variance": reference.variance}
    flat = {name: array.reshape(expected[name].shape) for name, array in arrays["weights"].items()}
    assert_equal(flat, expected)
    velocities = {f"momentum/{name}": v for name, v in zip(names, reference.velocities, strict=True)}
    flat = {name: array.reshape(velocities[name].shape) for name, array in arrays["optimizer"].items()}
    assert_equal(flat, velocities)
