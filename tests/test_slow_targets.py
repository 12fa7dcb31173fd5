"""What the project promises in seconds, bytes and per cent. By hand, on a machine at rest: `pytest -m slow`."""

import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlkit.cli import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README_COMMANDS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[:2]

# Runs a command and prints seconds and peak memory. A process of its own, since a child's peak starts at the memory of
# the process that forked it, and that of pytest contains TensorFlow.
MEASURE = """
import os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(status != 0)
"""
PYTHON = sys.executable
DLKIT = str(Path(PYTHON).with_name("dlkit"))


def measure(*command):
    """Seconds and peak memory of one run of a command that must succeed."""
    printed = subprocess.check_output([PYTHON, "-c", MEASURE, *command], text=True)
    return tuple(map(float, printed.split()))


def test_lenet_reads_the_digits(tmp_path, capsys):
    accuracies = []
    for seed in range(5):
        capsys.readouterr()
        assert main(["train", "lenet", "--seed", str(seed), "--json", "-q", "--runs-dir", str(tmp_path)]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["split"] == "test"
        accuracies.append(result["metrics"]["accuracy"])
    print("test accuracies", accuracies)
    assert statistics.mean(accuracies) >= 0.985


def test_accuracy_falls_with_length_without_attention_and_holds_with_it(tmp_path, capsys):
    """The commands of the recipe `seq2seq_attention_reverse`."""
    options = ["-q", "--runs-dir", str(tmp_path)]
    assert main(["train", "seq2seq_attention", "--name", "attention", *options]) == 0
    longer = ["--set", "data.length=20", "--set", "decode.max_len=26"]
    assert main(["train", "seq2seq", "--name", "plain", *longer, *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "attention"), str(tmp_path / "plain"), "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    with_attention, without = ([group["exact"] for group in run["by_length"]] for run in found)
    print("exact by length", with_attention, without)
    assert min(with_attention) > 0.97
    assert without[0] > 0.97
    assert without[-1] < 0.8


def test_help_comes_at_once():
    seconds = [measure(DLKIT, "--help")[0] for _ in range(7)]
    print("seconds", seconds)
    assert statistics.median(seconds) < 0.3


def test_vgg16_is_summarized_at_the_cost_of_importing_tensorflow():
    importing, summarizing = zip(
        *[(measure(PYTHON, "-c", "import tensorflow"), measure(DLKIT, "summarize", "vgg16")) for _ in range(5)],
        strict=True,
    )
    seconds, memory = (
        statistics.median(ours) / statistics.median(theirs)
        for ours, theirs in zip(zip(*summarizing, strict=True), zip(*importing, strict=True), strict=True)
    )
    print(f"{seconds:.3f} of the time and {memory:.3f} of the memory")
    assert seconds <= 1.2
    assert memory <= 1.15


@pytest.fixture
def clone(tmp_path):
    """What is committed, as a newcomer gets it."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git repository to clone")
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    return tmp_path / "clone"


def test_the_first_command_of_the_readme_in_a_clean_clone(clone):
    # Bash says when it begins which part: only the last one, the training, has a limit. As root it takes no PS4 from
    # its environment.
    script = f"LC_ALL=C; PS4='+ $EPOCHREALTIME '; set -x; {README_COMMANDS[0]}"
    done = subprocess.run(["bash", "-c", script], cwd=clone, stderr=subprocess.PIPE, text=True, check=False)
    end = time.time()
    assert done.returncode == 0, done.stderr
    start = re.search(r"^\+ ([\d.]+) \S*dlkit train", done.stderr, re.MULTILINE)
    print(f"trained in {end - float(start[1]):.0f} s")
    assert end - float(start[1]) < 180
    (run,) = (clone / "runs").iterdir()
    result = json.loads((run / "run.json").read_text())["result"]
    assert result["split"] == "test"
    assert result["metrics"]["accuracy"] > 0.97


def test_the_second_command_of_the_readme_in_a_clean_clone(clone):
    done = subprocess.run(["bash", "-c", README_COMMANDS[1]], cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^=+ \d+ passed", done.stdout, re.MULTILINE)
