"""The benchmarks compare like with like: nets and images of one size. Their figures follow from what was measured."""

import importlib
import math
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from dlkit import data, models
from dlkit.probe.record import unallocated

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Imports a module of the benchmarks by its name."""
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    yield importlib.import_module
    for name in {path.stem for path in FOLDER.glob("*.py")} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def conv_nets(module):
    return module("conv_nets")


@pytest.fixture
def racing(module):
    return module("racing")


@pytest.mark.parametrize("augment", ["", "crop_flip"])
def test_dlkit_trains_images_of_the_size_of_the_others(conv_nets, monkeypatch, augment):
    monkeypatch.setattr(data, "load_images", data.load_images)  # put back afterwards
    shapes = []
    from dlkit.train.step import TrainingStep

    call = TrainingStep.__call__

    def noted(self, batch, **options):
        shapes.append(batch["images"].shape)
        return call(self, batch, **options)

    monkeypatch.setattr(TrainingStep, "__call__", noted)
    ours = conv_nets.of_dlkit("lenet", "float32", augment)
    ours.train(21)
    assert set(shapes) == {(conv_nets.BATCH, 32, 32, 3)}, "20 batches are an epoch, and the next one is whole, too"
    with unallocated():
        assert ours.parameters == models.build("lenet", input_shape=(32, 32, 3), classes=10).count_params()


@pytest.mark.parametrize(("net", "parameters"), [("resnet18", 11_173_962), ("resnet20", 269_722)])
def test_the_net_of_keras_has_the_parameters_of_ours(conv_nets, net, parameters):
    """Those that tests/models asks of our nets; built without weights."""
    with unallocated():
        model = conv_nets.keras_net(conv_nets.NETS[net])
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == parameters
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 10))


def test_keras_trains_on_whole_batches_of_the_same_size_and_times_the_steps_alone(conv_nets, monkeypatch):
    monkeypatch.setitem(conv_nets.NETS, "tiny", conv_nets.Net((4, 8), 1, projects=False))
    monkeypatch.setattr(conv_nets, "BATCH", 8)
    monkeypatch.setattr(conv_nets, "MOST_STEPS", 2)
    fit, seen = keras.Model.fit, []

    def noted(self, images, labels, **options):
        before = self.get_weights()
        began = conv_nets.time.perf_counter()
        history = fit(self, images, labels, **options)
        moved = [not np.array_equal(a, b) for a, b in zip(before, self.get_weights(), strict=True)]
        seen.append((images.shape, options["batch_size"], all(moved), conv_nets.time.perf_counter() - began))
        return history

    monkeypatch.setattr(keras.Model, "fit", noted)
    theirs = conv_nets.of_keras("tiny", "float32", "")
    seconds = theirs.train(2)
    [(shape, batch, moved, all_in_all)] = seen
    assert (shape, batch) == ((16, 32, 32, 3), 8)
    assert moved, "every weight and every moving statistic"
    assert 0 < seconds < all_in_all
    convolutions = 9 * 3 * 4 + 2 * 9 * 4 * 4 + 9 * 4 * 8 + 9 * 8 * 8
    assert theirs.parameters == convolutions + 2 * (3 * 4 + 2 * 8) + 9 * 10, "norms have two a channel"


def test_the_net_of_pytorch_has_the_parameters_of_the_others(conv_nets):
    pytest.importorskip("torch", reason="PyTorch, which only benchmarks need, is not installed")
    assert conv_nets.of_torch("resnet18", "float32", "").parameters == 11_173_962
    assert conv_nets.of_torch("resnet20", "float32", "channels_last").parameters == 269_722


def test_language_models_of_one_precision_are_held_to_a_mark(module):
    """1.3 times Keras and 1.5 times PyTorch, in each precision that both train in."""
    ratios = {(ours, theirs): mark for ours, theirs, mark in module("language_models").RATIOS["lstm"]}
    for precision, of_keras in (("float32", "float32"), ("bfloat16", "mixed_bfloat16")):
        assert ratios[f"dlkit {precision}", f"keras {of_keras}"] == 1.3
        assert ratios[f"dlkit {precision}", f"torch {precision}"] == 1.5


def test_a_contender_answers_on_what_was_stdout_whatever_its_library_prints(racing):
    work = "racing.serve(out, lambda times: times / 4, parameters=7)"
    script = f"import racing; out = racing.answers(); print('noise'); {work}"
    contenders = {
        name: racing.start([sys.executable, "-c", script], {"PYTHONPATH": str(FOLDER)}) for name in ("one", "other")
    }
    parameters = {name: racing.await_ready(name, process) for name, process in contenders.items()}
    assert parameters == {"one": "7", "other": "7"}
    racing.check_alike(parameters)
    with pytest.raises(SystemExit, match="the models differ: one has 7, other has 7, third has 8"):
        racing.check_alike({**parameters, "third": "8"})
    assert list(racing.in_turn(contenders, 0)) == ["one", "other"]
    assert list(racing.in_turn(contenders, 1)) == ["other", "one"], "nobody is always the first"
    assert [racing.ask(contenders["other"], times) for times in (3, 10)] == [0.75, 2.5]
    contenders["broken"] = racing.start([sys.executable, "-c", "import nothing_of_this_name"], {})
    with pytest.raises(SystemExit, match="broken did not start"):
        racing.await_ready("broken", contenders["broken"])
    for process in contenders.values():
        process.communicate(timeout=10)  # at the end of its input a contender ends


def test_what_is_reported_are_medians_and_the_median_of_the_quotients(racing, capsys):
    """Of the quotients 2, 1/2 and 4 the median is 2, though the medians, 30 and 20, have the quotient 1.5."""
    speeds = {"ours": [20.0, 30.0, 80.0], "theirs": [10.0, 60.0, 20.0]}
    ratios = [("ours", "theirs", 1.3), ("theirs", "ours", None), ("ours", "absent", 2.0)]
    racing.report(speeds, ratios, width=10)
    assert capsys.readouterr().out.splitlines() == [
        "  ours            30   (20 to 80)",
        "  theirs          20   (10 to 60)",
        "  ours / theirs: 2.00x   (to reach: 1.3x)",
        "  theirs / ours: 0.50x",
    ]
