"""Trains the same run twice with --deterministic, once whole and once in three parts. Run by test_resume.py.

python deterministic.py FOLDER [OPTION ...]
"""

import sys

from dlkit.cli import main

folder, settings = sys.argv[1], [*sys.argv[2:], "--deterministic", "-q"]
start = ["train", "mlp", "--runs-dir", folder, *settings]
assert main([*start, "--name", "whole"]) == 0
assert main([*start, "--name", "parts", "--max-time", "0.001s"]) == 0
assert main(["train", "--resume", f"{folder}/parts"]) == 0  # the recipe's limit stops it after a step, again
assert main(["train", "--resume", f"{folder}/parts", "--max-time", "1h"]) == 0
