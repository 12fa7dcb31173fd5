"""Before the first step: who prepares the data, that all processes have the same, and what the weights follow from."""

import random
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dlkit import cluster, data, recipe, runs, runtime, workers
from dlkit.cli import main
from dlkit.cluster import Peers
from dlkit.data import tfds_prepare
from dlkit.data.images import ImageData, ImageSplit, LazySplit
from dlkit.errors import DataError, DlkitError, UsageError
from dlkit.recipe import TrainSection
from dlkit.tasks.image_classification import ImageClassification
from dlkit.train import start

SMALL = ["--limit", "40", "--batch-size", "20", "--set", "model.hidden=[4]", "--set", "data.size=8"]
FLAGS = {"train.limit": 40, "train.batch_size": 20, "model.hidden": [4], "data.size": 8}


@pytest.fixture
def pair():
    """The chief and a worker that have met."""
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
        addresses = tuple(f"127.0.0.1:{free.getsockname()[1]}" for free in (first, second))
    both = [Peers(runtime.Process(rank, addresses, ("worker 0", "worker 1"))) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Peers.meet, both))
    yield both
    for peers in both:
        peers._parted = True
    for peers in both:
        peers.close()


def as_member(prepared, peers):
    """The same with its number in a cluster, but for the sums over its devices."""
    return replace(prepared, peers=peers, devices=replace(prepared.devices, rank=peers.process.rank))


class Recorded(Peers):
    """One that is alone, and notes what has to wait for the chief."""

    def __init__(self, events):
        super().__init__(runtime.Process())
        self.events = events

    @contextmanager
    def chief_first(self):
        self.events.append("the chief first")
        yield
        self.events.append("all")


def test_the_chief_prepares_the_data_and_all_decode_them_at_once(monkeypatch):
    events = []
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    split = ImageSplit(images, np.arange(40, dtype=np.int32) % 10)

    def load(name, **_):
        events.append(f"decode {name}")
        return ImageData(name, list("0123456789"), {"train": split})

    monkeypatch.setattr(tfds_prepare, "obtain", lambda name, root, wanted: events.append(f"obtain {name}"))
    monkeypatch.setattr(data, "load_images", load)
    resolved = recipe.resolve("mlp", "mnist", flags={"model.hidden": [4]})
    start.prepare(resolved, peers=Recorded(events))
    assert events == ["the chief first", "obtain mnist", "all", "decode mnist"]


@pytest.mark.parametrize(
    ("settings", "began_with", "said"),
    [
        ({"deterministic": True}, 4, "bit for bit"),
        ({"deterministic": True}, 3, "up to rounding"),
        ({}, 4, "up to rounding"),
        ({"precision": "float64"}, 4, "within 1e-5"),
    ],
)
def test_how_near_a_resumed_run_comes(monkeypatch, settings, began_with, said):
    monkeypatch.setattr(runtime, "threads", lambda: 4)
    assert start.resumption(TrainSection(**settings), runtime.Devices(None, ""), began_with) == said


def test_a_set_of_another_package_may_do_anything_so_the_chief_loads_it_first(monkeypatch):
    events = []
    monkeypatch.setitem(data.targets(), "mine", "package.module:function")
    monkeypatch.setattr(data, "builder", lambda name, *_, **options: lambda: None)
    split = ImageSplit(np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32))
    made = ImageData("mine", ["only"], {"train": split})
    monkeypatch.setattr(data, "load_images", lambda name, **_: events.append(f"load {name}") or made)
    resolved = recipe.resolve("mlp", "digits", flags={"model.hidden": [4]})
    resolved = replace(resolved, data=resolved.data.model_copy(update={"name": "mine"}))
    start.prepare(resolved, peers=Recorded(events))
    assert events == ["the chief first", "load mine", "all"]


def test_weights_follow_from_the_seed_whatever_a_set_of_another_package_draws_and_so_does_what_it_draws(monkeypatch):
    drawn = []
    split = ImageSplit(np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32))

    def load(name, **_):
        drawn.append(random.random())
        _ = [random.random() for _ in drawn]  # each time one draw more
        return ImageData(name, ["only"], {"train": split})

    monkeypatch.setattr(data, "load_images", load)
    one, same, other = (
        start.prepare(recipe.resolve("mlp", "digits", flags={"model.hidden": [4], "train.seed": seed})).model
        for seed in (0, 0, 1)
    )
    assert drawn[0] == drawn[1] != drawn[2]
    np.testing.assert_array_equal(one.get_weights()[0], same.get_weights()[0])
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


def test_other_data_end_a_worker_before_the_first_step(pair, tmp_path):
    chief, worker = pair
    prepared = start.prepare(recipe.resolve("mlp", "digits", flags=FLAGS))
    other = start.prepare(recipe.resolve("mlp", "digits", flags=FLAGS | {"data.size": 9}))
    start.new_loop(as_member(prepared, chief), None, folder=tmp_path, name="x")
    start.new_loop(as_member(prepared, worker), None, folder=tmp_path, name="x")
    start.new_loop(as_member(prepared, chief), None, folder=tmp_path, name="y")
    with pytest.raises(DlkitError, match="the checksum of the data is .* for the chief"):
        start.new_loop(as_member(other, worker), None, folder=tmp_path, name="y")


def test_other_devices_end_a_worker_before_anything_is_summed_up(pair, monkeypatch):
    chief, worker = pair
    resolved = recipe.resolve("mlp", "digits", flags=FLAGS)
    for _ in range(3):
        start.prepare(resolved, devices="cpu", peers=chief)
    start.prepare(resolved, devices="cpu", peers=worker)
    with pytest.raises(DlkitError, match="the number of devices is 2 here and 1 for the chief") as caught:
        start.prepare(resolved, devices="cpu:2", peers=worker)
    assert "CUDA_VISIBLE_DEVICES" in caught.value.hint
    with worker.chief_first():  # what the chief has said besides
        pass
    on_gpu = replace(runtime.devices("cpu"), on_gpu=True)
    monkeypatch.setattr(runtime, "devices", lambda request, *, alone: on_gpu)
    with pytest.raises(DlkitError, match="the kind of devices is GPU here and CPU for the chief"):
        start.prepare(resolved, peers=worker)


PIXELS = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)


def task_that_decodes(read):
    """A task on seven training images, each of which `read` gives."""
    task = ImageClassification({"name": "made"})
    train = LazySplit(read, np.arange(7), np.arange(7, dtype=np.int32) % 2, (8, 8, 3))
    task.data = ImageData("made", ["a", "b"], {"train": train})
    return task


def one_of_two(rank, *, others=0, other_fails=False):
    """The devices of one of two processes: what the other one counts, and whether its data fail, is given."""

    class OneOfTwo(runtime.Devices):
        def any(self, flag):
            return flag or other_fails

        def sum(self, counts):
            return counts + others

    return OneOfTwo(tf.distribute.get_strategy(), "some", rank=rank, processes=2, replicas=2)


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_decodes_its_part_of_the_images_that_all_are_standardized_by(rank):
    decoded = []
    task = task_that_decodes(lambda row: decoded.append(row) or PIXELS[row])
    others = np.stack([np.bincount(PIXELS[1 - rank :: 2, ..., channel].ravel(), minlength=256) for channel in range(3)])
    resolved = recipe.resolve("mlp", "digits", flags={"model.hidden": [4]})
    prepared = start.build(resolved, task, one_of_two(rank, others=others))
    assert sorted(decoded) == list(range(rank, 7, 2))
    np.testing.assert_allclose(prepared.task.info["mean"], (PIXELS / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(prepared.task.info["std"], (PIXELS / 255).std(axis=(0, 1, 2)), rtol=1e-12)
    assert sorted(decoded) == list(range(rank, 7, 2)), "and no other one for it"


def test_a_training_image_that_one_process_cannot_read_ends_all(pair, monkeypatch):
    monkeypatch.setattr(Peers, "say_goodbye", lambda self: None)  # the other one is of the same thread
    chief, worker = pair

    def read(row):
        if row == 3:
            raise DataError("cat.png is damaged", "look at it")
        return PIXELS[row]

    resolved = recipe.resolve("mlp", "digits", flags={"model.hidden": [4]})
    with pytest.raises(DataError, match="^cat.png is damaged$"):
        start.build(resolved, task_that_decodes(read), one_of_two(1), worker)
    with pytest.raises(DataError, match=r"^worker 1 \(127.0.0.1:\d+\) failed: cat.png is damaged$") as told:
        start.build(resolved, task_that_decodes(read), one_of_two(0, other_fails=True), chief)
    assert told.value.hint == "look at it"


@pytest.fixture
def divided(tmp_path):
    """A folder of images with all three splits."""
    for number in range(6):
        path = tmp_path / "photos" / ("train", "val", "test")[number // 2] / "ab"[number % 2] / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize("value", ["validation=0.1", "test=0.1"])
def test_a_division_that_a_user_asks_for_of_data_that_are_divided_is_refused(divided, tmp_path, value):
    """Even where the value is the default, which a recipe, a run's too, may hold."""
    key, _, number = value.partition("=")
    small = {"model.hidden": [4], "train.batch_size": 2}
    asked = recipe.resolve("mlp", str(divided), overrides=[(f"data.{key}", number, "set")], flags=small)
    with pytest.raises(UsageError) as caught:
        start.prepare(asked)
    assert caught.value.message == f"data.{key} changes nothing: the data have the splits train, validation, test"
    (tmp_path / "recipe.toml").write_text(asked.to_toml())
    held = recipe.load(tmp_path / "recipe.toml", {})
    assert held.data.options[key] == 0.1
    start.new_loop(start.prepare(held), None, folder=None)


def test_a_recipe_that_holds_images_out_is_overruled_for_data_that_are_divided(divided, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        '[model]\nname = "mlp"\nhidden = [4]\n[data]\nvalidation = 5\n[train]\nbatch_size = 2\n'
    )
    with pytest.raises(UsageError, match="data.validation changes nothing") as caught:
        start.prepare(recipe.resolve("mlp", str(divided), recipe_path=tmp_path / "recipe.toml"))
    assert "`--set data.validation=0`" in caught.value.hint
    nothing = [("data.validation", "0", "set")]
    asked = recipe.resolve("mlp", str(divided), recipe_path=tmp_path / "recipe.toml", overrides=nothing)
    start.new_loop(start.prepare(asked), None, folder=None)


def test_another_newest_checkpoint_ends_a_worker_before_the_first_step(pair, tmp_path):
    chief, worker = pair
    assert main(["train", "mlp", "--runs-dir", str(tmp_path), "--name", "x", "--epochs", "2", *SMALL, "-q"]) == 0
    run = runs.open_run(tmp_path / "x")
    shutil.copytree(run.path, tmp_path / "copy")
    behind = runs.open_run(tmp_path / "copy")
    shutil.rmtree(behind.path / "checkpoints" / run.checkpoints()[-1])
    prepared = start.prepare(recipe.load(run.path / "recipe.toml", {}), run=run)
    start.resumed_loop(run, as_member(prepared, chief), None)
    with pytest.raises(DlkitError, match="newest checkpoint is step-2 here and step-4 for the chief") as failure:
        start.resumed_loop(behind, as_member(prepared, worker), None)
    assert "share" in failure.value.hint


@pytest.mark.parametrize(("launched", "fits"), [(None, True), (object(), False)])
def test_workers_of_one_machine_share_its_memory(monkeypatch, launched, fits):
    """Three workers need three times what one of three machines needs."""
    prepared = start.prepare(recipe.resolve("mlp", "digits", flags=FLAGS | {"model.hidden": [4000]}))
    prepared = replace(prepared, devices=replace(prepared.devices, processes=3, replicas=3))
    needed = start.expected(prepared).memory
    monkeypatch.setattr(runtime, "memory", lambda: 2 * needed)
    monkeypatch.setattr(workers, "launcher", lambda: launched)
    if fits:
        assert start.expected(prepared).memory == needed
    else:
        with pytest.raises(DlkitError, match="and this machine has"):
            start.expected(prepared)


def test_more_memory_than_there_is_for_batches_by_tokens(monkeypatch):
    """Ten letters and the end are 11 tokens: of the longest pairs 3,000 tokens are 272."""
    flags = {"train.batch_tokens": 3000, "model.width": 4, "model.layers": 1}
    prepared = start.prepare(recipe.resolve("seq2seq", "synthetic:reverse", flags=flags))
    monkeypatch.setattr(runtime, "memory", lambda: 10**15)
    needed = start.expected(prepared).memory
    monkeypatch.setattr(runtime, "memory", lambda: needed - 1)
    with pytest.raises(DlkitError, match="with 3,000 tokens per update takes about") as caught:
        start.expected(prepared)
    parts, at_a_time = re.match(r"`--accumulate (\d+)` .* from ([\d,]+) tokens at a time", caught.value.hint).groups()
    assert int(at_a_time.replace(",", "")) == 3000 // int(parts)
    many = replace(prepared.recipe, train=prepared.recipe.train.model_copy(update={"accumulate": int(parts)}))
    assert start.expected(replace(prepared, recipe=many)).memory <= needed // 2


def test_one_process_tells_all_why_the_data_fail(pair):
    chief, worker = pair
    failure = cluster.DataError("cat.png is damaged", "look at it")
    assert worker.share(failure) is failure
    told = chief.share(None)
    assert told.message == f"worker 1 ({worker.process.addresses[1]}) failed: cat.png is damaged"
    assert (told.hint, told.code) == ("look at it", 3)
