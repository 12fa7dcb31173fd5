"""The whitening convolution: covariances of what it gives, against the property and NumPy's SVD; and in a training."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from dlkit import recipe, runs
from dlkit.cli import main
from dlkit.data.images import standardize
from dlkit.layers.whitening import EPSILON, Whitening
from dlkit.tasks.captioning import Captioning
from dlkit.tasks.image_classification import ImageClassification
from dlkit.tasks.task import open_task
from dlkit.train import checkpoints


def smooth_images(count=400, channels=3):
    """Images whose neighbouring pixels and channels are alike, as those of photographs are; mean 0, deviation 1."""
    random = np.random.default_rng(0)
    images = random.normal(size=(count, 12, 10, channels)).cumsum(1).cumsum(2)
    images += random.normal(size=(count, 12, 10, 1)) * 3
    return ((images - images.mean((0, 1, 2))) / images.std((0, 1, 2))).astype("float32")


def adapted(images, size):
    layer = Whitening(size, images.shape[-1])
    layer.adapt(images)
    return layer


@pytest.mark.parametrize(("size", "channels"), [(2, 3), (2, 1), (3, 2)])
def test_outputs_are_uncorrelated_and_of_variance_1(size, channels):
    images = smooth_images(channels=channels)
    count = size * size * channels
    outputs = np.asarray(adapted(images, size)(images))
    assert outputs.shape == (400, 13 - size, 11 - size, 2 * count)
    first, second = np.split(outputs.reshape(-1, 2 * count).astype("float64"), 2, axis=1)
    np.testing.assert_array_equal(second, -first)
    covariance = first.T @ first / len(first)
    # From the singular values of all patches: what varies by lambda comes out with lambda / (lambda + epsilon).
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    patches = np.moveaxis(windows, 3, -1).reshape(-1, count)
    variances = np.linalg.svd(patches.astype("float64"), compute_uv=False) ** 2 / len(patches)
    np.testing.assert_allclose(covariance, np.diag(variances / (variances + EPSILON)), atol=2e-5)


def test_directions_do_not_depend_on_the_signs_that_a_machine_finds(monkeypatch):
    images = smooth_images()
    expected = adapted(images, 2).kernel.numpy()
    found = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (found(matrix)[0], -found(matrix)[1]))
    np.testing.assert_array_equal(adapted(images, 2).kernel, expected)


def test_what_does_not_vary_gives_finite_filters():
    layer = adapted(np.zeros((4, 8, 8, 3), "float32"), 2)
    assert np.isfinite(layer.kernel.numpy()).all()
    assert not np.asarray(layer(np.zeros((1, 8, 8, 3)))).any()


def test_filters_do_not_train_and_biases_do():
    model = keras.Sequential([Whitening(2, 3)])
    model.build((None, 8, 8, 3))
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [(24,)]
    assert [tuple(weight.shape) for weight in model.non_trainable_weights] == [(2, 2, 3, 24)]
    model.trainable = False
    model.trainable = True
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [(24,)]


SMALL = [*("--set", "data.size=16", "--set", "data.train=48", "--set", "data.validation=8", "--set", "data.test=8")]
SMALL += [*("--set", "model.width=4", "--batch-size", "16", "-q")]


def kernel_of(folder, name):
    path = runs.find_checkpoint(runs.open_run(folder / name))
    return checkpoints.read(path, "weights")["whitening/kernel"]


def test_a_training_adapts_to_its_images_once(tmp_path, capsys):
    """Filters come from the standardized training images, stay as they are, and go on with the run."""
    command = ["train", "airbench", "--data", "synthetic:shapes", *SMALL, "--runs-dir", str(tmp_path)]
    assert main([*command, "--name", "x", "--epochs", "2"]) == 0
    run = runs.open_run(tmp_path / "x")
    resolved = recipe.resolve(recipe_path=run.path / "recipe.toml")
    task = open_task(run.task, {"name": resolved.data.name, **resolved.data.options}, seed=resolved.train.seed)
    pixels = task.data.splits["train"].fetch(np.arange(48)) / 255
    images = (pixels - run.info["data"]["mean"]) / run.info["data"]["std"]
    expected = adapted(images.astype("float32"), 2).kernel.numpy()
    np.testing.assert_allclose(kernel_of(tmp_path, "x"), expected, atol=1e-4)

    for name in run.checkpoints():
        (run.path / "checkpoints" / name / "manifest.json").unlink()
    assert main(["train", "--resume", str(run.path), "-q"]) == 0
    assert "starting from its beginning" in capsys.readouterr().err
    np.testing.assert_allclose(kernel_of(tmp_path, "x"), expected, atol=1e-4)

    assert np.abs(adapted(images[:24].astype("float32"), 2).kernel.numpy() - expected).max() > 1e-2
    other = ["--epochs", "1", "--set", "data.train=24", "--init-from", str(tmp_path / "x"), "--name", "y"]
    assert main([*command, *other]) == 0
    np.testing.assert_allclose(kernel_of(tmp_path, "y"), expected, atol=1e-4)


def test_of_large_images_fewer_are_looked_at(monkeypatch):
    """As many pixels, from all over the split; a training never holds thousands of large images at once."""
    for task, model in ((ImageClassification, lambda net: net), (Captioning, lambda net: SimpleNamespace(encoder=net))):
        monkeypatch.setattr(task, "adapted_pixels", 5 * 16 * 16)
        made = task({"name": "synthetic:shapes", "size": 16, "train": 41})
        layer = Whitening(2, 3, name="whitening")
        made.adapt(model(keras.Sequential([layer])))
        split = made.data.splits["train"]
        pixels = (split if task is ImageClassification else split.images).fetch(np.array([0, 10, 20, 30, 40]))
        images = standardize(pixels, made.info["mean"], made.info["std"])
        np.testing.assert_array_equal(layer.kernel, adapted(images, 2).kernel)


def test_before_it_has_seen_images_a_layer_hands_them_on():
    """A net that is built and has met no data yet tells images apart."""
    layer = Whitening(2, 3)
    images = np.random.default_rng(0).standard_normal((2, 5, 5, 3)).astype("float32")
    found = np.asarray(layer(images))  # (2, 4, 4, 24)
    patches = np.concatenate([images[:, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1)], axis=-1)
    np.testing.assert_allclose(found, np.concatenate([patches, -patches], axis=-1), rtol=1e-6)


def test_nested_layers_see_the_images_too():
    from dlkit import recipe
    from dlkit.train import start

    task = start.prepare(recipe.resolve("lenet", flags={"train.limit": 20}), devices="cpu").task
    inner = keras.Sequential([keras.Input((32, 32, 1)), Whitening(2, 1)])
    before = inner.layers[0].kernel.numpy()
    task.adapt(keras.Sequential([keras.Input((32, 32, 1)), inner]))
    assert not np.array_equal(inner.layers[0].kernel.numpy(), before)
