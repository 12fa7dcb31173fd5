"""What the wheel takes along: the model that ships, the data that work offline, the recipes."""

import json
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def would_be_built():
    """What hatchling puts into a wheel: the packages, without what git ignores, and what is included by force."""
    pathspec = pytest.importorskip("pathspec", reason="which reads .gitignore; a wheel that is installed needs it not")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    assert set(build) == {"targets"}
    assert set(wheel) == {"packages", "force-include"}, "this function knows no other options"
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".gitignore").read_text().splitlines())
    names = {
        file.relative_to(ROOT).as_posix()
        for package in wheel["packages"]
        for file in (ROOT / package).rglob("*")
        if file.is_file()
    }
    forced = {
        f"{place}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, place in wheel["force-include"].items()
        for file in (ROOT / folder).rglob("*")
    }
    return {name for name in names if not ignored.match_file(name)} | forced


@pytest.fixture(scope="module")
def wheel():
    """The files of the wheel that is installed; where it only points here, of the one that would be built."""
    installed = distribution("dlkit-tf")
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return would_be_built()
    return {path.as_posix() for path in installed.files}


def test_the_model_that_ships(wheel):
    folder = "dlkit/shipped/transformer_tatoeba"
    best = (ROOT / folder / "checkpoints" / "best").read_text().strip()
    files = ["recipe.toml", "run.json", "tokenizer.json", "checkpoints/best"]
    files += [f"checkpoints/{best}/{name}" for name in ("manifest.json", "state.json", "weights.safetensors")]
    assert {f"{folder}/{name}" for name in files} <= wheel
    assert "dlkit/shipped/README.md" in wheel  # who is to be thanked for the data


def test_data_that_work_offline(wheel):
    files = ("tatoeba.tsv.gz", "digits.npz", "shakespeare.txt.gz", "README.md")
    assert {f"dlkit/data/files/{name}" for name in files} <= wheel


def test_recipes_and_types(wheel):
    recipes = {f"dlkit/recipes/{file.name}" for file in (ROOT / "recipes").glob("*.toml")}
    assert recipes
    assert recipes | {"dlkit/py.typed"} <= wheel
    assert not {name for name in wheel if name.startswith(("tests/", "recipes/"))}
