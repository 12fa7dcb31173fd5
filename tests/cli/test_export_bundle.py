"""A bundle: a run with what using it needs, its weights in half precision, which can stand wherever a run can."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dlkit import runs
from dlkit.cli import main

SMALL = ["--set=data.length=4", "--set=data.train=200", "--set=data.validation=20", "--set=data.test=20"]
MODEL = ["--set=model.layers=1", "--set=model.width=16", "--set=model.ffn=16", "--set=model.heads=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    command = ["train", "transformer", "--data", "synthetic:reverse", *SMALL, *MODEL, "--steps", "3", "--ema", "0.5"]
    assert main([*command, "--set", "train.precision=bfloat16", "--runs-dir", str(folder), "--name", "own", "-q"]) == 0
    return runs.open_run(folder / "own")


@pytest.fixture(scope="module")
def bundle(run):
    assert main(["export", str(run.path), "--to", "bundle", "-q"]) == 0
    return runs.open_run(run.path / "export" / "bundle")


def weights_of(run, group):
    return load_file(runs.find_checkpoint(run) / f"{group}.safetensors")


def test_the_averaged_weights_come_in_half_precision(run, bundle):
    stored, trained = weights_of(bundle, "weights"), weights_of(run, "ema")
    assert set(stored) == set(trained)
    for name, array in stored.items():
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, trained[name].astype(np.float16))
    files = {str(file.relative_to(bundle.path)) for file in bundle.path.rglob("*") if file.is_file()}
    step = f"checkpoints/{runs.find_checkpoint(run).name}"
    assert files == {
        "dlkit.json", "run.json", "recipe.toml", "tokenizer.json", "checkpoints/best",
        f"{step}/weights.safetensors", f"{step}/state.json", f"{step}/manifest.json",
    }  # fmt: skip


def test_nothing_of_the_machine_goes_along(bundle):
    assert not {"command", "devices", "threads", "attempt"} & set(bundle.info)


def test_a_result_goes_along_with_the_checkpoint_that_it_is_of(run, bundle, tmp_path):
    assert bundle.info["result"] == run.info["result"]
    assert bundle.info["fingerprint"] == run.info["fingerprint"], "trained on the same data"
    (other,) = set(run.checkpoints()) - {runs.find_checkpoint(run).name}
    place = tmp_path / "other"
    assert main(["export", f"{run.path}@{other}", "--to", "bundle", "-o", str(place), "-q"]) == 0
    assert "result" not in runs.open_run(place).info


def test_it_computes_in_float32_and_says_what_the_run_says(run, bundle, capsys):
    model = runs.load_model(bundle.path)
    assert model.dtype_policy.compute_dtype == "float32"
    assert runs.load_model(run.path).dtype_policy.compute_dtype == "bfloat16"
    source, target = np.array([[4, 5, 6, 2]]), np.array([[1, 6, 5]])
    ours = runs.load_model(run.path)((source, target)).numpy()
    np.testing.assert_allclose(model((source, target)).numpy(), ours, atol=0.1)
    assert main(["translate", "a b c", "--model", str(bundle.path), "-q"]) == 0
    assert main(["evaluate", str(bundle.path), "--json", "-q"]) == 0


def test_a_new_run_starts_from_it(bundle, tmp_path):
    command = ["train", "transformer", "--data", "synthetic:reverse", *SMALL, *MODEL, "--steps", "1", "-q"]
    assert main([*command, "--init-from", str(bundle.path), "--runs-dir", str(tmp_path)]) == 0


def test_it_cannot_be_resumed(bundle, capsys):
    assert main(["train", "--resume", str(bundle.path)]) == 2
    printed = capsys.readouterr().err
    assert "is a bundle" in printed
    assert "--init-from" in printed


def test_an_earlier_export_is_replaced_and_nothing_else(run, tmp_path, capsys):
    place = tmp_path / "mine"
    for _ in range(2):
        assert main(["export", str(run.path), "--to", "bundle", "-o", str(place), "--quantization", "float32"]) == 0
    assert Path(capsys.readouterr().out.split()[-1]) == place
    assert weights_of(runs.open_run(place), "weights")["target_embedding/embeddings"].dtype == np.float32
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("kept")
    assert main(["export", str(run.path), "--to", "bundle", "-o", str(other)]) == 2
    assert (other / "file").read_text() == "kept"


def test_json(run, tmp_path, capsys):
    place = tmp_path / "small"
    assert main(["export", str(run.path), "--to", "bundle", "-o", str(place), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    assert said == {"folder": str(place), "to": "bundle", "quantization": "float16", "bytes": size}


def test_int8_is_not_for_bundles(run, capsys):
    assert main(["export", str(run.path), "--to", "bundle", "--quantization", "int8"]) == 2
    assert "a bundle is not stored in int8" in capsys.readouterr().err


def test_a_weight_too_large_for_half_precision(bundle, tmp_path, capsys):
    """Of a run whose checkpoint is written anew with such a weight."""
    from dlkit.train import checkpoints

    large = tmp_path / "large"
    assert main(["export", str(bundle.path), "--to", "bundle", "-o", str(large), "--quantization", "float32"]) == 0
    opened = runs.open_run(large)
    arrays = weights_of(opened, "weights")
    name = next(iter(arrays))
    arrays[name] = np.full_like(arrays[name], 70_000)  # the largest float16 is 65,504
    checkpoints.write(runs.find_checkpoint(opened), {"weights": arrays}, {"step": 3})
    assert main(["export", str(large), "--to", "bundle", "-o", str(tmp_path / "not")]) == 4
    assert f"{name} holds values too large" in capsys.readouterr().err
    assert not (tmp_path / "not").exists()
