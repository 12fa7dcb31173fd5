"""Trains the same run twice with --deterministic, once whole and once in three parts. Run by test_resume.py.

python deterministic.py FOLDER MODEL [OPTION ...]
"""

import signal
import sys

from dlkit.cli import main

folder, model, *settings = sys.argv[1:]
start = ["train", model, "--runs-dir", folder, *settings, "--deterministic", "-q"]
assert main([*start, "--name", "whole"]) == 0

from dlkit.train.loop import Loop

one_step = Loop._one_step


def stopped_at_times(self, drawn):
    one_step(self, drawn)
    if self.progress.step in {3, 7}:
        signal.raise_signal(signal.SIGTERM)


Loop._one_step = stopped_at_times
assert main([*start, "--name", "parts"]) == 128 + signal.SIGTERM
assert main(["train", "--resume", f"{folder}/parts"]) == 128 + signal.SIGTERM
assert main(["train", "--resume", f"{folder}/parts"]) == 0
