"""Help, listings and completion load no TensorFlow: it takes 5 s, and nobody waits 5 s for a list."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import dlkit
from dlkit import recipe

HEAVY = ["tensorflow", "keras", "tensorflow_datasets", "matplotlib", "optuna", "h5py"]

# Runs command lines one after the other in one process and says after each which heavy module is there.
PROBE = f"""
import contextlib, io, json, os, sys
import dlkit, dlkit.cli, typer.main
found = {{}}
def look(label, code):
    heavy = [name for name in {HEAVY} if name in sys.modules]
    if heavy or code:
        found[label] = [code, heavy]
def words(command, path=()):
    yield path
    for name, child in getattr(command, "commands", {{}}).items():
        yield from words(child, (*path, name))
lines = [(*path, "--help") for path in words(typer.main.get_command(dlkit.cli.app))]
assert len(lines) > 10, lines
lines += [("runs", "show", "runs/a"), ("runs", "diff", "runs/a", "runs/a"), ("--version",)]
lines += [("models",), ("models", "--json"), ("data", "list"), ("recipes", "list"), ("runs", "list")]
lines += [("experiment",), ("experiment", "--json")]
for line in lines:
    with contextlib.redirect_stdout(io.StringIO()):
        code = dlkit.cli.main(line)
    look(" ".join(line), code)
for typed in ["", "train ", "train le", "train lenet --data ", "evaluate ", "train --recipe ", "train --set train."]:
    count = str(len(typed.split(" ")))
    os.environ.update(_DLKIT_COMPLETE="complete_bash", COMP_WORDS="dlkit " + typed, COMP_CWORD=count)
    with contextlib.redirect_stdout(io.StringIO()):
        code = dlkit.cli.main([])
    look("completion of " + typed, code)
print(json.dumps(found))
"""


def test_help_listings_and_completion_load_nothing_heavy(tmp_path):
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    info = {"format": 1, "task": "image_classification", "data": {}, "model_arguments": {}}
    (run / "run.json").write_text(json.dumps(info))
    (run / "recipe.toml").write_text(recipe.resolve("lenet").to_toml())
    done = subprocess.run([sys.executable, "-c", PROBE], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_importing_dlkit_loads_nothing_but_itself():
    code = "import sys; before = set(sys.modules); import dlkit; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= {"dlkit", *sys.stdlib_module_names}


def test_modules_of_the_command_line_import_nothing_heavy_at_their_top():
    folder = Path(dlkit.__file__).parent
    paths = [*folder.glob("*.py"), *folder.glob("cli/*.py"), *folder.glob("data/*.py"), *folder.glob("*/__init__.py")]
    paths.remove(folder / "summary.py")
    assert len(paths) > 15
    for path in paths:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            heavy = {name.partition(".")[0] for name in names} & set(HEAVY)
            assert not heavy, f"{path.relative_to(folder)} imports {heavy}"
