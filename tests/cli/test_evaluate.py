"""`dlkit evaluate`: figures against NumPy on the same data, against training's own, and against arithmetic."""

import json
import math
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlkit as package
from dlkit import console, recipe, runs, runtime
from dlkit import data as datasets
from dlkit.cli import main
from dlkit.data.digits import digits
from dlkit.data.folders import divide, list_images
from dlkit.errors import UsageError
from dlkit.tasks.task import open_task
from dlkit.train import checkpoints, start
from dlkit.train.ensembles import evaluate_ensemble
from dlkit.train.evaluation import Evaluation
from dlkit.train.run_evaluation import evaluate_run
from dlkit.train.setting import Setting

sys.path.append(str(Path(__file__).parents[1] / "data"))
import tiny_set

SUPPORT = [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]  # of the ten digits in the test split


def saved(folder, *, name="x", size=8, data=None, bias=None, scale=1.0, model="mlp", sets=()):
    """A run of an mlp of random weights, or one that always says what the head's biases say."""
    options = [("model.hidden", "[16]", "set"), *([("data.size", str(size), "set")] if data is None else [])]
    options += [(*recipe.parse_override(text), "set") for text in sets]
    prepared = start.prepare(recipe.resolve(model, data, overrides=options if model == "mlp" else []))
    task = prepared.task
    info = {"task": prepared.recipe.task, "data": task.info, "model_arguments": task.model_arguments()}
    run = runs.create(folder, prepared.recipe, {**info, "fingerprint": task.fingerprint()}, name=name)
    task.save(run.path)
    arrays = {path: np.asarray(variable) * scale for path, variable in runs.named_variables(prepared.model).items()}
    if bias is not None:
        arrays = {path: np.zeros_like(array) for path, array in arrays.items()}
        arrays["head/bias"] = np.float32(bias)
    checkpoints.write(run.path / "checkpoints" / "step-1", {"weights": arrays}, {"step": 1})
    run.point("best", "step-1")
    return run.path


def one_hot(index, classes=10, value=5.0):
    return [value if at == index else 0.0 for at in range(classes)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def random(folder):
    """A net of random weights, large enough that it is sure of what it says."""
    return saved(folder, name="random", scale=3.0)


@pytest.fixture(scope="module")
def threes(folder):
    return saved(folder, name="threes", bias=one_hot(3))


@pytest.fixture(scope="module")
def fives(folder):
    return saved(folder, name="fives", bias=one_hot(5))


@pytest.fixture(scope="module")
def sequences(folder):
    return saved(folder, name="sequences", model="seq2seq")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Makes a folder of small images with so many classes, two of each in train and one in test."""

    def make(count, *, names=None, size=8):
        root = tmp_path_factory.mktemp("photos")
        for index, name in enumerate(names or [f"class{at}" for at in range(count)]):
            for split, copies in (("train", 2), ("test", 1)):
                (root / split / name).mkdir(parents=True)
                for copy in range(copies):
                    pixels = np.full((size, size), 10 * index + copy, np.uint8)
                    Image.fromarray(pixels).save(root / split / name / f"{copy}.png")
        return root

    return make


# -------------------------------------------------------------------------------------------------------------- figures


def test_the_figures_are_those_of_numpy_on_the_same_images(as_json, random):
    found = as_json(random)
    info, test = runs.open_run(random).info["data"], digits(size=8).splits["test"]
    logits = package.load(random).predict((test.images / 255 - info["mean"]) / info["std"], verbose=0)
    p = np.exp(np.float64(logits))
    p /= p.sum(axis=1, keepdims=True)
    own, said = p[np.arange(360), test.labels], p.argmax(axis=1)
    right = said == test.labels
    assert 0.02 < right.mean() < 0.5, "some are right"
    assert found["examples"] == 360
    assert found["accuracy"] == right.mean()
    assert found["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
    assert found["top_5"] == np.mean((p > own[:, None]).sum(axis=1) < 5)
    assert found["brier"] == pytest.approx(np.mean(((p - np.eye(10)[test.labels]) ** 2).sum(axis=1)), rel=1e-4)
    counts = [[np.sum((test.labels == true) & (said == other)) for other in range(10)] for true in range(10)]
    assert found["confusion"] == np.array(counts).tolist()
    assert [record["support"] for record in found["classes"]] == SUPPORT
    assert [record["class"] for record in found["classes"]] == list("0123456789")
    bins = np.minimum(np.floor(p.max(axis=1) * 15), 14)  # no confidence lies on an edge
    gaps = [abs((right[bins == m] - p.max(axis=1)[bins == m]).sum()) for m in range(15)]
    assert found["ece"] == pytest.approx(sum(gaps) / 360, rel=1e-4)
    assert [record["examples"] for record in found["reliability"]] == [int(np.sum(bins == m)) for m in range(15)]
    assert found["reliability"][3]["above"] == 0.2
    low, high = found["intervals"]["accuracy"]
    assert low < right.mean() < high


def test_a_net_that_always_says_3(as_json, threes):
    """37 of 360 are a 3: precision 37/360, recall 1, F1 74/397; no other class is ever predicted."""
    found = as_json(threes)
    assert found["accuracy"] == pytest.approx(37 / 360)
    assert found["macro_f1"] == pytest.approx(74 / 397 / 10)
    three, four = found["classes"][3:5]
    assert (three["precision"], three["recall"], three["f1"]) == pytest.approx((37 / 360, 1, 74 / 397))
    assert (four["precision"], four["recall"], four["f1"]) == (None, 0, 0)
    assert [[row[at] for at in range(10) if at != 3] for row in found["confusion"]] == [[0] * 9] * 10
    assert [row[3] for row in found["confusion"]] == SUPPORT
    assert found["most_confused"][0] == {"class": "1", "predicted": "3", "count": 37, "share": 1.0}
    odds = math.exp(5) / (math.exp(5) + 9)
    assert found["ece"] == pytest.approx(odds - 37 / 360, rel=1e-5)
    assert found["loss"] == pytest.approx(math.log(math.exp(5) + 9) - 5 * 37 / 360, rel=1e-5)
    assert found["top_5"] == pytest.approx(sum(SUPPORT[:4] + SUPPORT[3:4] + SUPPORT[4:5]) / 360 - 37 / 360)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_loss_and_accuracy_are_what_training_logged(tmp_path, capsys, as_json, precision):
    """Raw and averaged weights, at the checkpoint of each, on both splits that training looked at."""
    arguments = ["--runs-dir", str(tmp_path), "--name", "x", "--epochs", "2", "--ema", "0.9", "--precision", precision]
    small = ["--set", "data.size=8", "--set", "model.hidden=[16]", "--set", "data.augment=[]", "--lr", "0.01"]
    assert main(["train", "mlp", *arguments, *small, "-q"]) == 0
    capsys.readouterr()
    run = runs.open_run(tmp_path / "x")
    logged = [line for line in run.metrics() if line["kind"] == "evaluation"]
    assert {(line["split"], line["weights"]) for line in logged} == {
        ("validation", "raw"), ("validation", "ema"), ("test", "ema")
    }  # fmt: skip
    for line in logged:
        operand = f"{run.path}@step-{line['step']}"
        found = as_json(operand, "--split", line["split"], "--weights", line["weights"], "--batch-size", "100")
        assert found["accuracy"] == line["accuracy"]
        assert found["loss"] == pytest.approx(line["loss"], rel=1e-6)


@pytest.mark.parametrize("replicas", [2, 3])
def test_several_devices_say_the_same_of_each_example_in_order(random, replicas):
    """360 examples in batches of 100 and 102: an uneven last batch, padded rows on the last device."""
    run = runs.open_run(random)
    found = []
    for devices in (runtime.devices("cpu"), runtime.devices(f"cpu:{replicas}")):
        task = open_task(run.task, run.recipe["data"], info=run.info["data"], folder=run.path)
        with devices.strategy.scope():
            model = runs.load_model(random)
        evaluation = Evaluation(task, model, devices, batch_size=100)
        values, outputs = evaluation.with_outputs("test")
        assert values == evaluation("test"), "one pass gives the same sums with and without the rows"
        assert outputs.right.mean() == pytest.approx(values["accuracy"], abs=1e-12)
        found.append(outputs)
    np.testing.assert_array_equal(found[0].labels, digits(size=8).splits["test"].labels)
    np.testing.assert_array_equal(found[1].labels, found[0].labels)
    assert found[1].logits.shape == (360, 10)
    np.testing.assert_allclose(found[1].logits, found[0].logits, rtol=1e-5, atol=1e-5)


def test_the_limit_and_the_batch_size(as_json, random):
    assert as_json(random, "--limit", "7")["examples"] == 7
    one, other = (as_json(random, "--batch-size", size) for size in (7, 1000))
    assert one["confusion"] == other["confusion"]
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)


def test_a_run_of_few_examples_is_told_where_all_are_evaluated(evaluate, random, tmp_path):
    path = shutil.copytree(random, tmp_path / "few")
    recipe_file = path / "recipe.toml"
    recipe_file.write_text(recipe_file.read_text().replace("[train]\n", "[train]\nlimit = 50\n"))
    told = "was trained with `--limit 50`, and its figures are of so many examples"
    assert told in " ".join(evaluate(path)[2].split())
    assert told not in " ".join(evaluate(path, "--limit", "50")[2].split())
    assert told not in " ".join(evaluate(random)[2].split())


# --------------------------------------------------------------------------------------------------------------- tables


def cells(out):
    """The tables of stdout, each as rows of cells."""
    return [[line.split() for line in table.splitlines()] for table in out.split("\n\n")]


def test_what_a_reader_sees(evaluate, threes):
    code, out, error = evaluate(threes)
    assert code == 0
    assert error == f"{threes}/checkpoints/step-1, raw weights, 360 examples of digits, test\n"
    metrics, classes, confused = cells(out)
    assert [row[0] for row in metrics] == ["metric", "loss", "accuracy", "top-5", "macro", "calibration", "Brier"]
    # Wilson's interval of 37 of 360: centre (37 + z^2/2) / (360 + z^2), by hand 0.1070 +- 0.0320
    assert metrics[2] == ["accuracy", "10.28", "%", "7.55", "to", "13.85", "%", "37", "of", "360"]
    assert classes[0] == ["class", "precision", "recall", "F1", "support"]
    assert classes[4] == ["3", "10.28", "%", "100.00", "%", "18.64", "%", "37"]
    assert classes[5] == ["4", "-", "0.00", "%", "0.00", "%", "36"]
    assert confused[1] == ["1", "3", "37", "100.00", "%"]
    assert len(confused) == 6, "a title and five pairs"


def test_more_tables_when_they_are_asked_for(evaluate, threes):
    _, out, _ = evaluate(threes, "--no-per-class", "--reliability", "--confusion")
    _, confused, reliability, confusion = cells(out)
    assert confused[0][0] == "true"
    assert len(reliability) == 16
    assert confusion[0] == ["true", *"0123456789"]
    assert confusion[1] == ["0", ".", ".", ".", "36", ".", ".", ".", ".", ".", "."]


def test_the_confusion_matrix_names_long_classes_before_the_rows(evaluate, photos, tmp_path):
    names = ["cat", "dog", "mouse"]
    run = saved(tmp_path, data=str(photos(3, names=names)), bias=one_hot(1, 3))
    code, out, _ = evaluate(run, "--confusion")
    assert code == 0
    metrics, *_, confusion = cells(out)
    assert "top-5" not in out, "with 3 classes everything is among the first 5"
    assert confusion == [
        ["true", "0", "1", "2"], ["0", "cat", ".", "1", "."], ["1", "dog", ".", "1", "."], ["2", "mouse", ".", "1", "."]
    ]  # fmt: skip
    assert metrics[2][:3] == ["accuracy", "33.33", "%"]


def test_hostile_class_names_are_shown_as_text(evaluate, tmp_path, monkeypatch):
    classes = ["\x1b[31m[bold]", "\u202eb", "c"]
    run = runs.open_run(saved(tmp_path, bias=one_hot(0)))
    names = [f"{name}{at}" for at, name in enumerate(classes * 4)][:10]
    data = digits(size=8)
    monkeypatch.setattr(
        datasets, "builder", lambda *_, **__: lambda *, size=8: type(data)("digits", names, data.splits)
    )
    run.update_info(data={**run.info["data"], "classes": names})
    code, out, error = evaluate(run.path, "--confusion", "--png")
    assert code == 0
    assert out.count("\\x1b[31m[bold]0") == 7, "a class, what five others are taken for, a row of the matrix"
    assert not {"\x1b", "\u202e"} & set(out + error)


def test_many_classes_are_listed_when_asked_for(evaluate, photos, tmp_path, monkeypatch):
    run = saved(tmp_path, data=str(photos(21)), bias=one_hot(1, 21))
    _, out, _ = evaluate(run)
    assert [table[0][0] for table in cells(out)] == ["metric", "true"]
    _, out, _ = evaluate(run, "--per-class")
    assert [len(table) for table in cells(out)] == [7, 22, 6]
    monkeypatch.setattr(console, "width", lambda name: 80)
    code, out, error = evaluate(run, "--confusion")
    assert code == 0
    assert len(cells(out)) == 2
    assert "the confusion matrix of 21 classes is wider than this terminal" in error


def test_mirror_images_are_averaged_when_they_are_asked_for(as_json, evaluate, random):
    """By NumPy: the mean of two softmaxes, the second of the images read from right to left."""
    found, plain = as_json(random, "--mirror"), as_json(random)
    info, test = runs.open_run(random).info["data"], digits(size=8).splits["test"]
    images = (test.images / 255 - info["mean"]) / info["std"]
    net = package.load(random)
    p = np.exp([np.float64(net.predict(each, verbose=0)) for each in (images, images[:, :, ::-1])])
    p = (p / p.sum(axis=-1, keepdims=True)).mean(axis=0)
    assert found["mirrored"] is True
    assert found["accuracy"] == np.mean(p.argmax(axis=1) == test.labels)
    assert found["loss"] == pytest.approx(-np.log(p[np.arange(360), test.labels]).mean(), rel=1e-5)
    assert found["brier"] == pytest.approx(np.mean(((p - np.eye(10)[test.labels]) ** 2).sum(axis=1)), rel=1e-4)
    assert "mirrored" not in plain
    assert plain["loss"] != pytest.approx(found["loss"], rel=1e-4)
    code, _, error = evaluate(random, "--mirror")
    assert code == 0
    assert "averaged with mirror images" in error


REFUSED = [
    ("sequences", {"mirror": True}, ["--mirror"], "classes of images"),
    ("sequences", {"shuffle_images": True}, ["--shuffle-images"], "captions"),
    ("sequences", {"constant": True}, ["--constant"], "captions"),
    ("random", {"own_words": True}, ["--own-words"], "what is written"),
    ("random", {"lowercase": True}, ["--lowercase"], "what is written"),
    ("random", {"constant": True}, ["--constant"], "captions"),
    ("random", {"shuffle_images": True}, ["--shuffle-images"], "captions"),
    ("random", {"decode": {"decode.beams": 3}}, ["--beam", "3"], "what is written"),
    ("random", {"decode": {"decode.length_norm": "avg"}}, ["--length-norm", "avg"], "what is written"),
    ("random", {"decode": {"decode.alpha": 0.0}}, ["--alpha", "0"], "what is written"),
    ("random", {"decode": {"decode.max_len": 9}}, ["--max-len", "9"], "what is written"),
    ("random", {"source": "fr", "data": "digits"}, ["--source", "fr", "--data", "digits"], "translations"),
    ("random", {"target": "fr", "data": "digits"}, ["--target", "fr", "--data", "digits"], "translations"),
]


@pytest.mark.parametrize(("run", "setting", "options", "what"), REFUSED)
def test_a_setting_that_a_run_has_no_use_for_is_refused_in_python_as_on_the_command_line(
    request, evaluate, run, setting, options, what
):
    path = request.getfixturevalue(run)
    title = {"sequences": "translation", "random": "image classification"}[run]
    with pytest.raises(UsageError) as refused:
        evaluate_run(str(path), Setting(**setting))
    assert refused.value.message == f"{options[0]} is about {what}, and {path} is a run of {title}"
    code, out, error = evaluate(path, *options)
    assert (code, out) == (2, "")
    assert error.splitlines()[0] == f"error: {refused.value.message}"


def test_a_run_that_writes_nothing_has_nothing_to_write_with(random):
    with pytest.raises(UsageError) as refused:
        evaluate_run(str(random), write=print)
    assert refused.value.message == f"`write` is about what is written, and {random} is a run of image classification"


def test_what_is_about_one_run_is_refused_of_several_together(evaluate, sequences):
    with pytest.raises(UsageError) as refused:
        evaluate_ensemble([str(sequences)] * 2, Setting(own_words=True))
    assert refused.value.message == "--own-words is about one run, and --ensemble about all together"
    code, out, error = evaluate(sequences, sequences, "--ensemble", "--own-words")
    assert (code, out) == (2, "")
    assert error.splitlines()[0] == f"error: {refused.value.message}"


def test_images_that_cannot_be_read_are_no_matter_of_texts(evaluate, folder, tmp_path):
    run, other = saved(folder, name="letters", model="lstm_lm"), tmp_path / "other.txt"
    other.write_text("to be or not to be\n" * 50)
    with pytest.raises(UsageError) as refused:
        evaluate_run(str(run), Setting(data=str(other), on_bad="skip"))
    assert refused.value.message == f"{other} is no folder of images: --on-bad is for those"
    code, out, error = evaluate(run, "--data", other, "--on-bad", "skip")
    assert (code, out) == (2, "")
    assert error.splitlines()[0] == f"error: {refused.value.message}"


def test_a_run_of_sequences_has_no_classes(evaluate, sequences):
    for option in ("--confusion", "--per-class", "--no-per-class"):
        code, out, error = evaluate(sequences, option)
        assert (code, out) == (2, "")
        assert error.startswith(f"error: {option} is about classes, and {sequences} is a run of translation\n")


# ----------------------------------------------------------------------------------------------------------- other data


def test_the_classes_of_other_data_agree_by_name(as_json, evaluate, tmp_path):
    """A run whose classes stand the other way round says index 0, which it calls 9: 36 of 360 are."""
    run = runs.open_run(saved(tmp_path, bias=one_hot(0)))
    backwards = {**run.info["data"], "classes": list("9876543210")}
    run.update_info(data=backwards)
    found = as_json(run.path, "--data", "digits")
    assert found["accuracy"] == pytest.approx(36 / 360)
    assert [record["support"] for record in found["classes"]] == SUPPORT[::-1]
    run.update_info(data={**backwards, "classes": [*"987654321", "zero"]})
    code, out, error = evaluate(run.path, "--data", "digits")
    assert (code, out) == (2, "")
    assert error.startswith("error: digits has other classes than the run was trained on: only digits has 0\n")


def test_another_folder_is_scaled_to_the_images_of_the_run(as_json, photos, tmp_path):
    run = saved(tmp_path, data=str(photos(3)), bias=one_hot(1, 3))
    other = photos(3, size=20)
    found = as_json(run, "--data", other)
    assert (found["data"], found["examples"]) == (str(other), 3)
    assert found["accuracy"] == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def undivided(tmp_path_factory):
    """A folder of 50 images of each of three classes, without splits."""
    root = tmp_path_factory.mktemp("undivided")
    for index in range(3):
        (root / f"class{index}").mkdir()
        for copy in range(50):
            pixels = np.full((8, 8), 60 * index + copy, np.uint8)
            Image.fromarray(pixels).save(root / f"class{index}" / f"{copy}.png")
    return root


def test_another_folder_without_splits_is_tested_on_as_a_whole(as_json, undivided, photos, tmp_path):
    """Unless a run was trained on it: then on what was held out, a tenth of the 150, the same for all that compare."""
    foreign = saved(tmp_path, name="foreign", data=str(photos(3)), bias=one_hot(1, 3))
    own = saved(tmp_path, name="own", data=str(undivided), bias=one_hot(1, 3))
    found = as_json(foreign, "--data", undivided)
    assert (found["examples"], found["accuracy"]) == (150, pytest.approx(1 / 3))
    held_out = as_json(own)
    assert 4 < held_out["examples"] < 30
    assert as_json(own, "--data", undivided)["examples"] == held_out["examples"]
    assert as_json(own, "--data", f"{undivided}/.")["examples"] == held_out["examples"]
    compared = as_json(foreign, own, "--data", undivided)
    assert [result["examples"] for result in compared["runs"]] == [held_out["examples"]] * 2


def test_a_set_of_the_users_own_lies_where_data_dir_says(as_json, evaluate, photos, tmp_path):
    """TensorFlow Datasets has no set of that name: it is known in this folder alone."""
    run = saved(tmp_path, data=str(photos(3, names=tiny_set.CLASSES)), bias=one_hot(1, 3))
    tiny_set.build(tmp_path / "prepared", "gray")
    found = as_json(run, "--data", f"{tiny_set.NAME}/gray", "--data-dir", tmp_path / "prepared")
    assert found["examples"] == tiny_set.COUNTS["test"]
    assert found["accuracy"] == pytest.approx(2 / 6), "of six pictures two are of the class that it always says"
    code, _, error = evaluate(run, "--data", f"{tiny_set.NAME}/gray")
    assert (code, error.splitlines()[0]) == (2, f"error: unknown dataset: {tiny_set.NAME}/gray")


def test_data_without_a_test_split_are_evaluated_on_another(as_json, evaluate, photos, tmp_path):
    root = photos(3)
    (root / "test").rename(root / "val")
    run = saved(tmp_path, data=str(root), bias=one_hot(1, 3))
    code, _, error = evaluate(run)
    assert (code, error) == (
        2, f"error: no split test in {root}\nhint: known: train, validation; `--split validation` takes that one\n"
    )  # fmt: skip
    assert as_json(run, "--split", "validation")["examples"] == 3


def test_data_that_are_for_tests_only_are_tested_on(as_json, photos, tmp_path):
    run = saved(tmp_path, data=str(photos(3)), bias=one_hot(1, 3))
    other = photos(3)
    shutil.rmtree(other / "train")
    assert as_json(run, "--data", other)["examples"] == 3


def test_only_the_split_that_is_evaluated_has_to_be_whole(as_json, evaluate, photos, tmp_path):
    own, other = photos(3), photos(3)
    run = saved(tmp_path, data=str(own), bias=one_hot(1, 3))
    for root in (own, other):
        (root / "train" / "class0" / "0.png").write_bytes(b"")
        assert as_json(run, "--data", root)["examples"] == 3
        (root / "test" / "class0" / "0.png").write_bytes(b"")
        code, _, error = evaluate(run, "--data", root)
        assert code == 3
        assert error.startswith(f"error: {root / 'test' / 'class0' / '0.png'} is not an image: the file is empty\n")
        assert "`--on-bad skip` leaves them out" in error
        code, out, error = evaluate(run, "--data", root, "--on-bad", "skip", "--json")
        assert code == 0, error
        assert json.loads(out)["examples"] == 2
        assert "skipped 2 of 9 images" in error
    assert evaluate(run)[0] == 3
    assert evaluate(run, "--on-bad", "skip")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits"], "digits is no folder of images: --on-bad is for those"),
        ([], '--on-bad must be one of error, skip, not "stop"'),
    ],
)
def test_a_wrong_way_with_bad_files(evaluate, photos, tmp_path, arguments, message):
    run = saved(tmp_path, data=str(photos(3)), bias=one_hot(1, 3))
    code, _, error = evaluate(run, "--on-bad", "stop", *arguments)
    assert code == 2
    assert error.startswith(f"error: {message}")


def test_images_of_another_shape_are_refused(evaluate, threes, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "builder", lambda *_, **__: lambda: digits(size=9))
    code, out, error = evaluate(threes, "--data", "nines")
    assert (code, out) == (2, "")
    assert error == "error: the images of nines are 9x9x1, and the run takes 8x8x1\n"


def test_the_data_may_have_moved(as_json, evaluate, threes, tmp_path, monkeypatch):
    places = []

    def elsewhere(*, size: int = 8, dir: Path | None = None):  # noqa: A002
        places.append(dir)
        return digits(size=size)

    code, _, error = evaluate(threes, "--data-dir", tmp_path)
    assert code == 2
    assert error.startswith("error: digits is no set of TensorFlow Datasets: --data-dir is for those")
    monkeypatch.setattr(datasets, "builder", lambda *_, **__: elsewhere)
    as_json(threes, "--data-dir", tmp_path)
    as_json(threes)
    assert places == [tmp_path, None]


def test_an_empty_split_is_told(evaluate, threes, monkeypatch):
    data = digits(size=8)
    nothing = data.splits["test"].take(np.arange(0))
    without = type(data)("digits", data.classes, {**data.splits, "test": nothing})
    monkeypatch.setattr(datasets, "builder", lambda *_, **__: lambda *, size=8: without)
    code, out, error = evaluate(threes)
    assert (code, out) == (3, "")
    assert error == "error: the test split of digits is empty\n"


# --------------------------------------------------------------------------------------------------------- several runs


def test_two_runs_are_tested_on_the_same_examples(as_json, evaluate, threes, fives):
    """One says 3 (37 times right), the other 5 (36 times), never both."""
    found = as_json(threes, fives)
    assert [result["accuracy"] for result in found["runs"]] == pytest.approx([37 / 360, 36 / 360])
    paired = found["paired"]
    assert [paired[key] for key in ("both_right", "only_first", "only_second", "both_wrong")] == [0, 37, 36, 287]
    assert paired["difference"] == pytest.approx(1 / 360)
    assert paired["p_value"] == 1, "nothing is less uneven than 37 to 36"
    assert paired["better"] is None
    code, out, error = evaluate(threes, fives)
    assert code == 0
    metrics, test = cells(out)
    assert metrics[0] == ["metric", str(threes), str(fives)]
    assert [row[0] for row in metrics[1:]] == ["loss", "accuracy", "top-5", "macro", "calibration", "Brier"]
    assert test[2:4] == [["only", str(threes), "right", "37"], ["only", str(fives), "right", "36"]]
    assert error.splitlines()[-2].startswith("Neither is shown to be better: of 73 examples on which one alone")


def test_the_p_value_is_that_of_the_coins(as_json, threes, folder):
    """Of equal logits the first counts, so a net of zeros says 0; on 25 examples the two share no hit."""
    zeros = saved(folder, name="zeros", bias=[0.0] * 10)
    found = as_json(zeros, threes, "--limit", "25")["paired"]
    labels = digits(size=8).splits["test"].labels[:25]
    first, second = int((labels == 0).sum()), int((labels == 3).sum())
    assert (found["only_first"], found["only_second"]) == (first, second)
    tail = sum(math.comb(first + second, heads) for heads in range(min(first, second) + 1))
    assert found["p_value"] == pytest.approx(min(1.0, float(Fraction(2 * tail, 2 ** (first + second)))), rel=1e-12)


def test_the_better_one_is_named(as_json, threes, fives, monkeypatch):
    """On the 37 threes of the test split alone one is always right and the other never."""
    data = digits(size=8)
    rows = np.flatnonzero(data.splits["test"].labels == 3)
    only = type(data)("digits", data.classes, {**data.splits, "test": data.splits["test"].take(rows)})
    monkeypatch.setattr(datasets, "builder", lambda *_, **__: lambda *, size=8: only)
    found = as_json(fives, threes)
    assert found["paired"]["p_value"] == 2 / 2**37
    assert found["paired"]["better"] == 1
    assert found["paired"]["difference"] == -1
    assert found["verdict"].startswith(f"{threes} is better: of 37 examples on which one alone is right, {fives} has 0")
    assert as_json(threes, threes)["verdict"] == "Neither is better: they are right on the same examples."


def test_more_than_two_stand_side_by_side(as_json, evaluate, threes, fives, random):
    found = as_json(threes, fives, random)
    assert len(found["runs"]) == 3
    assert "paired" not in found
    code, out, _ = evaluate(threes, fives, random)
    assert code == 0
    assert len(cells(out)) == 1
    assert len(cells(out)[0][0]) == 4


def test_runs_on_other_examples_are_not_compared_unless_on_data_that_both_read(as_json, evaluate, threes, tmp_path):
    larger = saved(tmp_path, size=9, bias=one_hot(3))
    code, out, error = evaluate(threes, larger)
    assert (code, out) == (2, "")
    told = (
        f"error: {threes} and {larger} are tested on different images\nhint: `--data NAME` evaluates both on the images"
    )
    assert error.startswith(told)
    assert evaluate(threes, larger, "--ensemble")[2].startswith(told)
    found = as_json(threes, larger, "--data", "digits")
    assert found["paired"]["both_right"] == 37


def test_runs_that_held_out_different_numbers_to_validate_on_are_compared_on_their_test_images(
    as_json, evaluate, undivided, tmp_path
):
    """As recipes do of one published set; on the validation images themselves they cannot be."""
    few, many = (
        saved(tmp_path, name=name, data=str(undivided), bias=one_hot(index, 3), sets=[f"data.validation={count}"])
        for name, index, count in (("few", 1, 10), ("many", 2, 40))
    )
    assert len({runs.open_run(run).info["fingerprint"] for run in (few, many)}) == 2
    files = divide(list_images(undivided).files)["test"]
    right = [sum(file.label == label for file in files) for label in ("class1", "class2")]
    paired = as_json(few, many)["paired"]
    assert [paired["only_first"], paired["only_second"]] == right
    assert as_json(few, many, "--ensemble")["examples"] == len(files)
    code, _, error = evaluate(few, many, "--split", "validation")
    assert (code, error.splitlines()[0]) == (2, f"error: {few} and {many} are tested on different images")


def test_runs_that_see_a_published_set_at_other_sizes_are_compared_on_its_test_images(as_json, evaluate, tmp_path):
    """As lenet and a residual net do that look at 32 and at 28 pixels of the same images."""
    for config in ("gray", "color"):
        tiny_set.build(tmp_path / "prepared", config)
    own, large, other = (
        saved(tmp_path, name=name, data=f"{tiny_set.NAME}/{config}", bias=one_hot(index, 3),
              sets=[f"data.dir={tmp_path / 'prepared'}", *sets])
        for name, config, index, sets in (
            ("own", "gray", 1, []), ("large", "gray", 2, ["data.size=8"]), ("other", "color", 1, [])
        )
    )  # fmt: skip
    assert [runs.open_run(run).info["data"]["shape"] for run in (own, large)] == [[4, 5, 1], [8, 8, 1]]
    paired = as_json(own, large)["paired"]
    assert [paired[key] for key in ("both_right", "only_first", "only_second", "both_wrong")] == [0, 2, 2, 2]
    assert as_json(own, large, "--ensemble")["examples"] == tiny_set.COUNTS["test"]
    code, _, error = evaluate(own, other)
    assert (code, error.splitlines()[0]) == (2, f"error: {own} and {other} are tested on different images")


def test_what_cannot_be_compared(evaluate, threes, sequences, photos, tmp_path):
    others = saved(tmp_path, data=str(photos(3)), bias=one_hot(1, 3))
    for runs_, message in [
        ((threes, others), "tell different classes apart"),
        ((threes, sequences), f"{threes} is a run of image classification, and {sequences} of translation"),
        ((threes, threes, "--confusion"), "--confusion is about one run, and here are 2"),
        ((threes, threes, "--png"), "--png is about one run, and here are 2"),
    ]:
        code, out, error = evaluate(*runs_)
        assert (code, out) == (2, "")
        assert message in error
        assert error.count("\n") == 2


# ------------------------------------------------------------------------------------------------------------- pictures


def test_a_picture_goes_into_the_run_or_where_it_is_told(as_json, evaluate, threes, tmp_path):
    assert as_json(threes, "--png")["picture"] == str(threes / "evaluation.png")
    with Image.open(threes / "evaluation.png") as picture:
        assert min(picture.size) > 500
    assert as_json(threes, "--png", tmp_path / "a.png")["picture"] == str(tmp_path / "a.png")
    code, _, error = evaluate(threes, "--png", tmp_path / "a.png")
    assert code == 2
    assert error.startswith(f"error: {tmp_path / 'a.png'} exists\n")
    code, _, error = evaluate(threes, "--png")
    assert code == 0, "the run's own picture is made anew"
    assert error.endswith(f"picture {threes / 'evaluation.png'}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["a.png"], "what to do with a.png?"), (["--png", "a.png"], "RUN is missing"), (["lenet"], "without weights")],
)
def test_operands_that_are_no_run(evaluate, arguments, message):
    code, out, error = evaluate(*arguments)
    assert (code, out) == (2, "")
    assert message in error


def test_under_tf_config_it_waits_for_nobody(as_json, threes, monkeypatch):
    """An evaluation is of one process; the other worker of this cluster does not exist."""
    cluster = {"cluster": {"worker": ["127.0.0.1:9", "127.0.0.1:19"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert as_json(threes)["examples"] > 0
