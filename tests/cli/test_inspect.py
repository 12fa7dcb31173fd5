import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlkit import recipe, runs
from dlkit.cli import main
from dlkit.train import checkpoints, start

sys.path.append(str(Path(__file__).parents[1] / "data"))
import tiny_set

# lenet on the digits, by arithmetic
SHAPES = {
    "conv1": [28, 28, 6], "relu1": [28, 28, 6], "pool1": [14, 14, 6],
    "conv2": [10, 10, 16], "relu2": [10, 10, 16], "pool2": [5, 5, 16],
    "dense1": [120], "dense_relu1": [120], "dense2": [84], "dense_relu2": [84], "head": [10],
}  # fmt: skip


def saved(folder, model, data=None, flags=None, **weights):
    """A run with a checkpoint; `weights` sets variables of the model, by path with `__` for the slash."""
    prepared = start.prepare(recipe.resolve(model, data, flags=flags or {}))
    task = prepared.task
    info = {"task": task_name(model), "data": task.info, "model_arguments": task.model_arguments()}
    run = runs.create(folder, prepared.recipe, info)
    task.save(run.path)
    arrays = {name: np.asarray(variable) for name, variable in runs.named_variables(prepared.model).items()}
    for name, value in weights.items():
        arrays[name.replace("__", "/")] = np.broadcast_to(np.float32(value), arrays[name.replace("__", "/")].shape)
    checkpoints.write(run.path / "checkpoints" / "step-1", {"weights": arrays}, {"step": 1})
    run.point("best", "step-1")
    return run.path


def task_name(model):
    return "translation" if model == "seq2seq" else "image_classification"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def lenet(folder):
    """Biases of the head such that whatever is shown is a 7."""
    bias = [0.0] * 10
    bias[7] = 1000.0
    return saved(folder, "lenet", head__bias=bias)


@pytest.fixture
def inspect(capfd):
    def run(*arguments):
        code = main(["inspect", *map(str, arguments)])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def as_json(inspect):
    def run(*arguments):
        code, out, err = inspect(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


def test_features_of_a_test_image(as_json, lenet):
    found = as_json(lenet, "features", "--index", "1")
    assert {layer["layer"]: layer["shape"] for layer in found["layers"]} == SHAPES
    # TEST_ROWS[1] is row 7 of the published set, a 7
    assert found["image"] == "test image 1, labelled 7"
    assert (found["predicted"], found["probability"]) == ("7", 1.0)
    by_name = {layer["layer"]: layer for layer in found["layers"]}
    assert by_name["relu1"]["min"] == 0
    assert by_name["relu1"]["max"] == by_name["conv1"]["max"]


def test_activations_over_a_split(as_json, lenet):
    found = as_json(lenet, "activations", "--split", "validation")
    assert found["examples"] == 144
    assert {layer["layer"]: layer["shape"] for layer in found["layers"]} == SHAPES
    dead = {layer["layer"]: layer["dead"] for layer in found["layers"]}
    assert {name for name, count in dead.items() if count is not None} == {
        "relu1",
        "relu2",
        "dense_relu1",
        "dense_relu2",
    }
    assert as_json(lenet, "activations", "--limit", "5")["examples"] == 5


def test_the_images_are_standardized_as_the_run_says(as_json, lenet, tmp_path):
    """A black file is -mean/sd everywhere: each map of the first convolution is that times the sum of its weights."""
    Image.new("L", (40, 30), 0).save(tmp_path / "black.png")
    info = runs.open_run(lenet).info["data"]
    value = -info["mean"][0] / info["std"][0]
    kernel = checkpoints.read(lenet / "checkpoints" / "step-1", "weights")["conv1/kernel"]
    sums = value * kernel.sum(axis=(0, 1, 2))
    (conv1,) = as_json(lenet, "features", "--image", tmp_path / "black.png", "--layer", "conv1")["layers"]
    assert conv1["min"] == pytest.approx(sums.min(), rel=1e-4)
    assert conv1["max"] == pytest.approx(sums.max(), rel=1e-4)
    assert conv1["mean"] == pytest.approx(sums.mean(), rel=1e-4, abs=1e-6)


def test_filters_are_those_of_the_checkpoint(as_json, lenet):
    found = as_json(lenet, "filters")
    weights = checkpoints.read(lenet / "checkpoints" / "step-1", "weights")
    assert [(layer["layer"], layer["shape"]) for layer in found["layers"]] == [
        ("conv1", [5, 5, 1, 6]),
        ("conv2", [5, 5, 6, 16]),
    ]
    for layer in found["layers"]:
        norms = np.linalg.norm(weights[f"{layer['layer']}/kernel"].reshape(-1, layer["shape"][-1]), axis=0)
        assert layer["norms"] == pytest.approx(norms.tolist(), rel=1e-5)


@pytest.mark.parametrize("view", ["activations", "features", "filters", "gradcam"])
def test_a_view_of_layers_is_a_table_and_a_picture(inspect, lenet, view):
    code, out, err = inspect(lenet, view, "--png", "--layer", "conv*")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("layer ")
    assert [line.split()[0] for line in lines[1:]] == ["conv1", "conv2"]
    assert f"picture {lenet / view}.png" in err
    with Image.open(lenet / f"{view}.png") as picture:
        assert min(picture.size) > 150


def test_a_picture_goes_where_it_is_told(as_json, inspect, lenet, tmp_path):
    assert as_json(lenet, "filters", "--png", tmp_path / "a.png")["picture"] == str(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = inspect(lenet, "filters", "--png", tmp_path / "nowhere" / "a.png")
    assert (code, out) == (2, "")
    assert "there is no folder" in err


def test_no_file_of_the_user_is_replaced(inspect, lenet, tmp_path, monkeypatch):
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"precious")
    code, out, err = inspect(lenet, "filters", "--png", mine)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {mine} exists\n")
    assert mine.read_bytes() == b"precious"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # a run that is only to be read
    for name in (f"{lenet.name}_filters.png", f"{lenet.name}_filters-2.png"):
        assert inspect(lenet, "filters", "--png")[2].endswith(f"picture {name}\n")


def test_the_picture_in_the_run_is_made_anew(inspect, lenet):
    own = lenet / "filters.png"
    for arguments in ([], [own]):
        own.write_bytes(b"old")
        assert inspect(lenet, "filters", "--png", *arguments)[0] == 0
        assert own.read_bytes().startswith(b"\x89PNG")


def test_a_hostile_file_name_stays_text(inspect, lenet, tmp_path):
    path = tmp_path / "\x1b[31m[bold]$x$\u202e.png"
    Image.new("RGB", (8, 8)).save(path)
    code, _, err = inspect(lenet, "features", "--image", path, "--png", tmp_path / "out.png")
    assert code == 0
    assert "\\x1b[31m[bold]$x$\\u202e.png: the model says 7" in err
    assert not {"\x1b", "\u202e"} & set(err)


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["features", "--index", "360"], 2, "no image 360 in test", "from 0 to 359"),
        (["features", "--split", "tset"], 2, "no split tset", "train, validation, test"),
        (["features", "--image", "nothing.png"], 3, "no such file: nothing.png", ""),
        (["features", "--image", "a.png", "--index", "1"], 2, "--image names a file", ""),
        (["features", "--layer", "cvon1"], 2, "no layer of this view is named cvon1", "`conv1`"),
        (["features", "--layer", "dense*", "--png"], 2, "none of these layers has maps", ""),
        (["activation"], 2, "unknown view: activation", "`activations`"),
        (["filters", "--index", "1"], 2, "filters has no use for --index", "features"),
        (["filters", "out.png"], 2, "what to do with out.png", "`--png out.png`"),
        (["filters", "--png", "out.jpg"], 2, "out.jpg", ".png"),
        (["filters", "out.html"], 2, "what to do with out.html", "`--html out.html`"),
        (["filters", "--html", "out.png"], 2, "out.png has no name for a page", ".html"),
        (["filters", "--html", "--png", "out.png"], 2, "one name for two files", ""),
        (["activations", "--all", "--limit", "3"], 2, "--all looks at the whole split", ""),
        (["gradcam", "--class", "eight"], 2, "unknown class: eight", ""),
        (["gradcam", "--layer", "dense1"], 2, "no layer of this view is named dense1", ""),
        (["embeddings"], 2, "is a model for image classification", "activations"),
        (["jacobian", "--limit", "5"], 2, "are those at one example", "leave out --limit"),
        (["shift", "--limit", "101"], 2, "of 100 images at most", "--limit 100 or less"),
        (["shift", "--limit", "1"], 2, "one image is not enough", "give --limit 2 or more"),
        (["shift", "--against", "mlp"], 2, "shift has no use for --against", "gradients, jacobian"),
    ],
)
def test_mistakes(inspect, lenet, *, arguments, code, message, hint):
    found, out, err = inspect(lenet, *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert hint in err
    assert "Traceback" not in err


def test_a_page_goes_into_the_run_and_is_made_anew(as_json, inspect, lenet, tmp_path, monkeypatch):
    for _ in range(2):
        found = as_json(lenet, "gradcam", "--html")
        assert found["page"] == str(lenet / "gradcam.html")
    page = (lenet / "gradcam.html").read_text()
    assert page.count("<img") == 2
    assert "http" not in page.replace("http-equiv", "")
    monkeypatch.chdir(tmp_path)
    assert as_json("lenet", "gradcam", "--html")["page"] == "lenet_gradcam.html"


def test_gradcam_of_a_class_that_is_asked_for(as_json, lenet):
    """The head's bias makes every answer a 7; a class that is named is asked for all the same."""
    assert as_json(lenet, "gradcam", "--index", "1")["number"].startswith("logit of 7, whose probability is 100.0 %")
    assert as_json(lenet, "gradcam", "--index", "1", "--class", "3")["number"].startswith("logit of 3,")


def test_gradients_over_a_run_and_where_clipping_would_begin(as_json, inspect, lenet):
    run = runs.open_run(lenet)
    assert as_json(lenet, "gradients")["logged"] is None
    for step in range(1, 11):
        run.log({"kind": "train", "step": step, "epoch": step / 4, "gradient_norm": float(step), "clipped": 0.5})
    found = as_json(lenet, "gradients", "--limit", "4", "--layer", "conv1", "--layer", "conv2/b*")
    assert found["suggested_clip_norm"] == 9.1  # 90 % of the way from 1 to 10
    shown = [(one["layer"], one["variable"]) for one in found["layers"]]
    assert shown == [("conv1", "kernel"), ("conv1", "bias"), ("conv2", "bias")], "patterns of layers, or of weights"
    code, _, err = inspect(lenet, "gradients", "--limit", "4", "--png")
    assert code == 0
    assert "it clips at 1, 50 % of the updates" in err
    assert "suggested limit for --clip-norm: 9.1, which 90 % of the mean norms" in err
    for step in range(11, 21):
        norms = {"gradient_norm": 1.0, "gradient_norm_p90": float(step)}
        run.log({"kind": "train", "step": step, "epoch": step / 8, **norms, "clipped": 0.5})
    code, _, err = inspect(lenet, "gradients", "--limit", "4")
    assert code == 0
    assert "suggested limit for --clip-norm: 19; in 90 % of the intervals" in err  # of the way from 11 to 20: 19.1


def test_what_is_no_conv_net(inspect, folder):
    code, _, err = inspect(folder / "nothing", "filters")
    assert code == 3
    code, _, err = inspect("lenets", "filters")
    assert (code, "did you mean `lenet`?" in err) == (2, True)
    code, _, err = inspect(saved(folder, "seq2seq"), "filters")
    assert code == 2
    assert "is a model for translation, and filters is not for such" in err
    assert "activations" in err
    mlp = saved(folder, "mlp")
    code, _, err = inspect(mlp, "filters")
    assert code == 2
    assert "no convolutions" in err
    assert inspect(mlp, "activations", "--limit", "3")[0] == 0


def test_the_name_of_a_model_has_fresh_weights(as_json, inspect, lenet):
    """He et al.: N(0, 2 / 25) for the 25 inputs of a filter; another seed, other weights; a run is settled."""
    first, again, other = (as_json("lenet", "filters", "--seed", seed) for seed in (1, 1, 2))
    assert first == again
    assert first["layers"] != other["layers"]
    small = as_json("lenet", "filters", "--set", "model.init=gaussian:0.0001")["layers"]
    assert [layer["std"] for layer in small] == pytest.approx([1e-4, 1e-4], rel=0.25)
    code, _, err = inspect(lenet, "filters", "--seed", "1")
    assert (code, "is a run, whose model is settled" in err) == (2, True)


def test_a_prepared_set_lies_where_data_dir_says(tmp_path, capsys):
    """TensorFlow Datasets has no set of that name: it is known in this folder alone, and the folder may move."""
    name, before, after = f"{tiny_set.NAME}/gray", tmp_path / "before", tmp_path / "after"
    tiny_set.build(before, "gray")
    run = saved(tmp_path / "runs", "mlp", name, {"data.dir": before})
    before.rename(after)

    def looked_at(model, *options):
        code = main(["inspect", str(model), "activations", *map(str, options), "--json", "--quiet"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if code == 0 else captured.err

    code, error = looked_at(run)
    assert code != 0
    assert name in error
    code, found = looked_at(run, "--data-dir", after)
    assert (code, found["examples"]) == (0, tiny_set.COUNTS["test"])
    code, found = looked_at("mlp", "--data", name, "--data-dir", after)
    assert (code, found["examples"]) == (0, tiny_set.COUNTS["test"])
    code, error = looked_at("mlp", "--data-dir", after)
    assert (code, error.splitlines()[0]) == (
        2, "error: digits is no set of TensorFlow Datasets: --data-dir is for those"
    )  # fmt: skip
