"""A worker whose chief saves slowly, and whose worker 1 meets an image that it cannot read. Run by test_workers.py.

python damaged_worker.py SPLIT SECONDS [WORD ...]

In `train` that is in the fourth epoch, in `validation` at the first evaluation. The words are a command line of dlkit.
"""

import sys
import time

from dlkit import runtime
from dlkit.cli import main
from dlkit.errors import DataError

split, seconds, *words = sys.argv[1:]
runtime.import_tensorflow()

from dlkit.tasks.image_classification import ImageClassification
from dlkit.train import checkpoints

rows_of, write = ImageClassification.rows_of, checkpoints.write


def unread(self, of, indices, rows, *, epoch):
    if of == split and runtime.process().rank == 1 and epoch == (3 if split == "train" else None):
        raise DataError("cat.png is damaged or cut short")
    return rows_of(self, of, indices, rows, epoch=epoch)


def slow(*arguments):
    time.sleep(float(seconds))
    write(*arguments)


ImageClassification.rows_of, checkpoints.write = unread, slow
sys.exit(main(words))
