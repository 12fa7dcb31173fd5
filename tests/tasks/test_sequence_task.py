"""Sequences of numbers: losses by hand, padding, devices, and that they are learned and resumed."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlkit import models, runs, runtime
from dlkit.cli import main
from dlkit.errors import UsageError
from dlkit.recipe import TrainSection
from dlkit.runtime import Devices
from dlkit.tasks.sequences import judged_steps, step_sums
from dlkit.tasks.task import open_task
from dlkit.train import checkpoints
from dlkit.train.comparison import check_same_examples
from dlkit.train.evaluation import Evaluation
from dlkit.train.optimizers import optimizer
from dlkit.train.step import TrainingStep

SMALL = {"train": 40, "validation": 10, "test": 30}
VARIED = {"name": "synthetic:adding", "length": 9, "shortest": 2, **SMALL}
COPY = {"name": "synthetic:copy_delay", "delay": 2, "symbols": 2, "remembered": 2, **SMALL}


def opened(options, **more):
    return open_task("sequences", options, seed=3, **more)


def net(task, cell="gru", **options):
    keras.utils.set_random_seed(0)
    return models.build(cell, **task.model_arguments(), width=8, **options)


# ------------------------------------------------------------------------------------------------------ what is summed


def test_outputs_are_standardized_with_the_training_split_which_the_run_keeps():
    task = opened(VARIED)
    numbers = task.data.splits["train"].fetch(np.arange(40)).targets.astype(np.float64)
    mean, std = numbers.mean(), numbers.std()
    assert task.info["output_mean"] == pytest.approx([mean])
    assert task.info["output_std"] == pytest.approx([std])
    elsewhere = opened(VARIED | {"train": 7}, info=task.info)
    assert elsewhere.info["output_mean"] == task.info["output_mean"], "not those of other data"


@pytest.mark.parametrize("output", [0.0, 2.0])
def test_a_constant_has_the_error_of_arithmetic(output):
    """In standardized units 0 is the training mean, and 2 two deviations above it."""
    task = opened(VARIED)
    batch = task.batch("test", np.arange(30), epoch=None)

    def constant(inputs, lengths, training):
        return tf.fill((len(inputs), 1), output)

    sums = task.loss_sums(constant, batch, training=False, smoothing=0)
    (mean,), (std,) = task.info["output_mean"], task.info["output_std"]
    errors = task.data.splits["test"].fetch(np.arange(30)).targets - (mean + output * std)
    total, weight = sums.metrics["mse"]
    assert float(total / weight) == pytest.approx(np.mean(errors**2), rel=1e-5)
    assert float(sums.loss / sums.weight) == pytest.approx(np.mean((errors / std) ** 2), rel=1e-5)
    judged = task.judged(batch, sums.logits.numpy())
    np.testing.assert_allclose(judged.outputs, mean + output * std, rtol=1e-6)
    np.testing.assert_array_equal(judged.labels, task.data.splits["test"].fetch(np.arange(30)).targets)


def test_only_labels_are_smoothed(capsys):
    smoothed = TrainSection(label_smoothing=0.1)
    opened(COPY).check_settings(smoothed)
    opened(VARIED).check_settings(TrainSection())
    message = "train.label_smoothing is for classes, and synthetic:adding has numbers"
    with pytest.raises(UsageError, match=message):
        opened(VARIED).check_settings(smoothed)
    assert main(["train", "gru", "--label-smoothing", "0.1", "--set", "data.train=40", "--dry-run", "-q"]) == 2
    assert message in capsys.readouterr().err


def test_steps_are_summed_as_by_hand():
    """Three rows: the first whole, the second ends after two steps, the third is no row at all."""
    sure = np.log(np.float32([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]))  # says 0, 1, 2
    logits = sure[[[0, 1, 2], [0, 2, 1], [0, 0, 0]]]
    batch = {
        "labels": np.int32([[0, 1, 1], [0, 1, 0], [0, 0, 0]]),
        "lengths": np.int32([3, 2, 3]),
        "row_weights": np.float32([1, 1, 0]),
    }
    sums = step_sums(tf.constant(logits), {k: tf.constant(v) for k, v in batch.items()}, blank=0, smoothing=0)
    assert float(sums.weight) == 5
    assert float(sums.loss) == pytest.approx(3 * np.log(2) + 2 * np.log(4), rel=1e-6)  # three right, two wrong
    metrics = {name: [float(value) for value in pair] for name, pair in sums.metrics.items()}
    assert metrics == {"accuracy": [3, 5], "exact": [0, 2], "recalled": [1, 3]}
    labels, chosen, rows = judged_steps({"labels": batch["labels"][:2], "lengths": batch["lengths"][:2]}, logits[:2])
    assert labels.tolist() == [0, 1, 1, 0, 1]
    assert chosen.argmax(1).tolist() == [0, 1, 2, 0, 2]
    assert rows.tolist() == [0, 0, 0, 1, 1]


def test_runs_on_other_sequences_are_not_compared():
    one = opened(VARIED)
    check_same_examples(["one", "same"], [one, opened(VARIED | {"train": 9})], "test")
    with pytest.raises(UsageError, match="one and longer are tested on different sequences"):
        check_same_examples(["one", "longer"], [one, opened(VARIED | {"length": 12})], "test")


def test_without_a_blank_nothing_is_recalled_and_a_row_whose_steps_are_all_right_is_exact():
    logits = np.float32([[[0, 9], [9, 0]], [[9, 0], [9, 0]]])
    sums = step_sums(tf.constant(logits), {"labels": tf.constant([[1, 0], [1, 0]])}, blank=None, smoothing=0)
    assert {name: float(total) for name, (total, _) in sums.metrics.items()} == {"accuracy": 3, "exact": 1}


# --------------------------------------------------------------------------------------- padding, lengths and devices


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "layers": 2}])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_neither_padding_nor_neighbours_change_what_is_told(cell, options):
    task = opened(VARIED)
    model = net(task, cell, **options)
    batch = task.batch("test", np.arange(30), epoch=None)
    assert set(batch["lengths"]) >= {2, 9}
    together = model(batch["inputs"], batch["lengths"]).numpy()
    for row in range(6):
        length = batch["lengths"][row]
        alone = model(batch["inputs"][row : row + 1, :length]).numpy()
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_sequence_of_one_step_is_one_step_of_the_cell(cell):
    task = opened(COPY)
    model = net(task, cell)
    inputs = task.batch("test", np.arange(3), epoch=None)["inputs"][:, :1]
    layer = model.stack.levels[0][0]
    state, _ = layer.step(inputs[:, 0], layer.zero_state(3))
    np.testing.assert_allclose(model(inputs)[:, 0], model.head(state), rtol=1e-5, atol=1e-6)


def test_a_plain_net_of_relu_that_begins_as_the_identity_adds_up():
    """Le et al. 2015: with U = 1, W = 1 and b = 0 the state is the sum of what went by."""
    model = models.build("rnn", features=3, outputs=3, width=3, recurrent_init="identity", activation="relu")
    layer = model.stack.levels[0][0]
    np.testing.assert_array_equal(layer.recurrent_kernel, np.eye(3))
    layer.kernel.assign(np.eye(3))
    inputs = np.random.default_rng(0).uniform(size=(2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(model.stack(inputs)[1][0], inputs.sum(1), rtol=1e-6)


@pytest.mark.parametrize("options", [VARIED, COPY], ids=["numbers", "labels"])
def test_two_devices_make_the_update_of_one(options):
    """Seven rows: one device has a padded one."""
    task, ends = opened(options), []
    for replicas in (1, 2):
        places = [place.name for place in tf.config.list_logical_devices("CPU")[:replicas]]
        strategy = (
            tf.distribute.MirroredStrategy(places, tf.distribute.ReductionToOneDevice())
            if replicas > 1
            else tf.distribute.get_strategy()
        )
        with runtime.precision("float64"), strategy.scope():
            step = TrainingStep(
                task, net(task, dropout=0.3), optimizer("sgd", momentum=0.9), Devices(strategy, "", replicas=replicas)
            )
            measured = step(task.batch("train", np.arange(7), epoch=0), step=0, lr=0.1)
        ends.append((float(measured["loss"]), [variable.value.numpy() for variable in step.variables.values()]))
    (loss, weights), (same, others) = ends
    assert same == pytest.approx(loss, rel=1e-9)
    for one, two in zip(weights, others, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-9)


@pytest.mark.parametrize("options", [VARIED, COPY], ids=["numbers", "labels"])
def test_the_batch_size_of_an_evaluation_changes_nothing(options):
    task = opened(options)
    model, devices = net(task), Devices(tf.distribute.get_strategy(), "")
    (first, outputs), (second, other) = (
        Evaluation(task, model, devices, batch_size=size).with_outputs("test") for size in (30, 7)
    )
    assert first == pytest.approx(second, rel=1e-5)
    np.testing.assert_array_equal(outputs.labels, other.labels)
    np.testing.assert_allclose(outputs.logits, other.logits, rtol=1e-4, atol=1e-5)
    if options is COPY:
        np.testing.assert_array_equal(outputs.examples, np.repeat(np.arange(30), 6))
        assert outputs.right_examples.sum() == round(first["exact"] * 30)
        assert outputs.right.mean() == pytest.approx(first["accuracy"])


# ---------------------------------------------------------------------------------------------- from recipe to verdict

SETTINGS = [
    "--set=data.length=10", "--set=data.train=6400", "--set=data.validation=200", "--set=data.test=500",
    "--set=model.width=32", "--set=train.evaluate_every=0.5", "--batch-size=32", "--lr=0.01", "-q",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GRU that learns to add over 10 steps, in two parts, and a plain net that has hardly begun."""
    folder = tmp_path_factory.mktemp("runs")
    place = ["--runs-dir", str(folder), "--name"]
    assert main(["train", "gru", *place, "gru", "--steps=300", *SETTINGS]) == 0
    assert main(["train", "rnn", *place, "rnn", "--steps=4", *SETTINGS]) == 0
    return folder


def test_adding_over_ten_steps_is_solved(folder):
    result = runs.open_run(folder / "gru").info["result"]
    assert result["metrics"]["mse"] < 0.01  # always the mean: 0.167
    records = [r["mse"] for r in runs.open_run(folder / "gru").metrics() if r["kind"] == "evaluation"]
    assert records[-1] < records[0]


def test_evaluate_compares_and_draws(folder, capsys):
    picture = folder / "two.png"
    paths = [str(folder / name) for name in ("rnn", "gru")]
    assert main(["evaluate", *paths, "--png", str(picture), "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    rnn, gru = found["runs"]
    assert found["paired"]["better"] == 1
    assert found["paired"]["difference"] == pytest.approx(rnn["mse"] - gru["mse"], rel=1e-4)
    assert gru["mean_mse"] == pytest.approx(1 / 6, rel=0.15)
    assert gru["r2"] == pytest.approx(1 - gru["mse"] / gru["mean_mse"], rel=1e-4)
    assert gru["intervals"]["mse"][0] < gru["mse"] < gru["intervals"]["mse"][1]
    assert gru["memoryless"] == {"mse": 1 / 6}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", paths[1], "--png", str(folder / "one.png")]) == 0
    out, error = capsys.readouterr()
    assert "mse of always the mean" in out
    assert "picture" in error
    assert main(["evaluate", paths[1], "--confusion"]) == 2
    assert main(["evaluate", paths[1], "--mirror"]) == 2
    assert "--mirror is about classes of images" in capsys.readouterr().err


def test_a_run_that_lost_its_last_checkpoint_goes_on_to_the_same_end(tmp_path):
    settings = [*SETTINGS, "--steps=8", "--set=train.checkpoint_every=4", "--set=train.keep=9", "--set=data.shortest=2"]
    assert main(["train", "lstm", "--runs-dir", str(tmp_path), "--name", "run", *settings]) == 0
    last = tmp_path / "run" / "checkpoints" / "step-8"
    whole = checkpoints.read(last, "weights")
    shutil.rmtree(last)
    assert main(["train", "--resume", str(tmp_path / "run"), "-q"]) == 0
    resumed = checkpoints.read(last, "weights")
    assert resumed.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_allclose(resumed[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
