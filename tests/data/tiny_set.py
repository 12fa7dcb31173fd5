"""A tiny set of labelled pictures in the way of TensorFlow Datasets, and a process that prepares or loads it.

    python tiny_set.py prepare ROOT
    python tiny_set.py load ROOT

With TINY_MARKS in its environment, a process that prepares writes a file with its number there and goes on when there
is a file `go`.
"""

import os
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np

NAME = "tiny_pictures"
CLASSES = ["circle", "square", "star"]
COUNTS = {"train": 20, "validation": 8, "test": 6}
# Configuration -> the shape of its pictures, None where it is left open, and its splits.
CONFIGS = {
    "color": ((4, 5, 3), ["train", "test"]),
    "gray": ((4, 5, 1), ["train", "validation", "test"]),
    "alike": ((None, None, 3), ["train", "test"]),
    "varied": ((None, None, 3), ["train", "test"]),
    "published": ((4, 5, 3), ["train", "validation"]),
    "hidden": ((4, 5, 3), ["train", "validation", "test"]),
    "renamed": ((4, 5, 3), ["train", "val", "extra"]),
    "tested": ((4, 5, 3), ["test"]),
    "texts": (None, ["train"]),
    "fetched": ((4, 5, 3), ["train"]),
    "manual": ((4, 5, 3), ["train"]),
}


def picture(split, number, channels=3):
    """The picture of this number: its first value says which it is, the others are noise."""
    pixels = np.random.default_rng([len(split), number]).integers(0, 256, (4, 5, channels), dtype=np.uint8)
    pixels[0, 0, 0] = number
    return pixels


def label(number):
    return number % len(CLASSES)


@cache
def builder_class():
    """The builder, which is registered under its name when it is defined."""
    import tensorflow_datasets as tfds

    class TinyPictures(tfds.core.GeneratorBasedBuilder):
        """Pictures of 4 x 5 pixels."""

        VERSION = tfds.core.Version("1.2.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in CONFIGS]  # noqa: RUF012
        files = ()  # of `varied`: paths of picture files
        address = ""  # of `fetched`
        hook = staticmethod(lambda: None)  # called before the first record is made
        url_infos = None

        def _info(self):
            shape, _ = CONFIGS[self.builder_config.name]
            features = {"title": tfds.features.Text()}
            if shape:
                features |= {"photo": tfds.features.Image(shape=shape), "kind": tfds.features.ClassLabel(names=CLASSES)}
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("photo", "kind") if shape else ("title", "title"),
            )

        def _split_generators(self, dl_manager):
            if self.builder_config.name == "fetched":
                Path(dl_manager.download(self.address)).read_bytes()
            return {split: self._generate_examples(split) for split in CONFIGS[self.builder_config.name][1]}

        def _generate_examples(self, split):
            self.hook()
            shape, _ = CONFIGS[self.builder_config.name]
            pictures = self.files or [
                picture(split, number, (shape or [3])[-1]) for number in range(COUNTS.get(split, 8))
            ]
            for number, photo in enumerate(pictures):
                secret = split == "test" and self.builder_config.name == "hidden"
                both = {"photo": photo, "kind": -1 if secret else label(number)}
                yield number, {"title": f"{split} {number}"} | (both if shape else {})

    return TinyPictures


def prepared(class_of, root, **options):
    """Prepares a set with the machinery of TensorFlow Datasets alone; returns its builder.

    `class_of` makes the class of the set, which imports that machinery.
    """
    from dlkit.data.tfds_prepare import _silence

    with _silence():
        import tensorflow_datasets as tfds

        download = {key: options.pop(key) for key in ("num_shards",) if key in options}
        builder = class_of()(data_dir=root, **options)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**download))
    return builder


def build(root, config="color", **options):
    """Prepares a configuration of the tiny pictures; returns its builder."""
    return prepared(builder_class, root, config=config, **options)


def _marked():
    marks = Path(os.environ["TINY_MARKS"])
    (marks / str(os.getpid())).touch()
    while not (marks / "go").exists():
        time.sleep(0.02)


def main(command, root):
    from dlkit import cli, data
    from dlkit.data import tfds_names, tfds_prepare

    tfds_names.names = lambda: [NAME]
    import_tfds = tfds_prepare._import_tfds

    def import_and_register():
        tfds = import_tfds()
        if "TINY_MARKS" in os.environ:
            builder_class().hook = staticmethod(_marked)
        return tfds

    tfds_prepare._import_tfds = import_and_register
    if command == "prepare":
        sys.exit(cli.main(["data", "prepare", NAME, "--yes", "--data-dir", root]))
    loaded = data.load(NAME, dir=Path(root), validation=0)
    print(len(loaded.splits["train"]), "tensorflow" in sys.modules, "tensorflow_datasets" in sys.modules)


if __name__ == "__main__":
    main(*sys.argv[1:])
