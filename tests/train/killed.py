"""A training process that kills itself in the middle of a write. Run by test_resume.py.

    python killed.py FOLDER WRITE

SIGKILL comes at the WRITE-th time that a file or folder of a checkpoint is to be synced, so always with a checkpoint
half written; how far it got is on the disk.
"""

import os
import signal
import sys
from pathlib import Path

from dlkit import durable, runtime
from dlkit.cli import main

runtime.import_tensorflow()
folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
synced = 0
sync = durable._sync


def count_and_kill(path: Path) -> None:
    global synced
    if ".step-" in str(path):
        synced += 1
        if synced == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    sync(path)


durable._sync = count_and_kill
sys.exit(main(["train", "mlp", "--runs-dir", str(folder), "--name", "killed", *sys.argv[3:]]))
