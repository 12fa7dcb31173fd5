"""Says in words what is in images, with a run, or with several as one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from dlkit import runs
from dlkit.data.image_files import decoders, read_image
from dlkit.data.images import standardize
from dlkit.data.tokenizer import Tokenizer
from dlkit.errors import DataError, UsageError
from dlkit.tasks.run_files import load_tokenizer, open_run_of
from dlkit.tasks.translator import Hypothesis, Search, Translator, precision_of

USUAL = Search()

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Captioned:
    """One image and its captions.

    Args:
        pixels: (height, width, channels) uint8, as the first model takes it.
        hypotheses: the captions, the best first.
    """

    pixels: Images
    hypotheses: list[Hypothesis]


class Captioner:
    """Writes captions with a model; with several, their probabilities are averaged at each step.

    Args:
        models: with `start` and `step`, see `dlkit.decode.step`.
        infos: of each model what its run stores of its data: "mean", "std" and "shape" of the images.
        words: the tokenizer, the same for all.
        max_len: most tokens of a caption, the end token included, where a search does not say it.
        workers: see `dlkit.decode.decoder.Decoder`.

    Example:
        >>> load("runs/captioner_shapes-1")("scene.png")
        'a large red circle above a small blue square'
    """

    def __init__(
        self,
        models: Sequence[Any],
        infos: Sequence[Mapping[str, Any]],
        words: Tokenizer,
        max_len: int,
        *,
        workers: int = 1,
    ) -> None:
        self.infos = list(infos)
        self.writer = Translator(models, [(words, words)] * len(models), max_len, workers=workers)
        self.models = tuple(models)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the places that the model looks at.

        Raises:
            dlkit.errors.UsageError: it looks at none, or there are several models.
        """
        grid = getattr(self.models[0], "grid", None)
        if grid is None or len(self.models) > 1:
            what = "several models have no one grid of places" if grid else "this model looks at no places of an image"
            raise UsageError(f"{what} that could be shown", "leave out --align, or name one run of captioner_attention")
        return grid

    @overload  # a text, too, is a sequence of texts
    def __call__(self, images: str | Path, search: Search = ...) -> str: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Sequence[str | Path], search: Search = ...) -> list[str]: ...
    def __call__(self, images: str | Path | Sequence[str | Path], search: Search = USUAL) -> str | list[str]:
        """The best caption of an image file, or of each of several.

        Raises:
            dlkit.errors.DataError: a file cannot be read as an image.
        """
        if isinstance(images, str | Path):
            return self([images], search)[0]
        found = []
        for captioned in self.each(images, search):
            if isinstance(captioned, DataError):
                raise captioned
            found.append(captioned.hypotheses[0].text)
        return found

    def each(
        self, paths: Iterable[str | Path], search: Search = USUAL, *, batch_size: int = 32
    ) -> Iterator[Captioned | DataError]:
        """Captions any number of image files, in their order, or says why a file cannot be read.

        Args:
            paths: the files; no more are drawn from it than the next batch takes.
            search: how.
            batch_size: images at a time; results do not depend on it.

        Raises:
            dlkit.errors.UsageError: a setting is out of range, the prefix has an unknown word or leaves no room for an
                end, or there is no one grid of places that could be shown.
        """
        self.writer.check_prefix(search)
        if search.align:
            _ = self.grid
        waiting, before = iter(paths), 0
        while group := list(islice(waiting, batch_size)):
            read = list(decoders().map(self._attempt, group))
            rows = [row for row, images in enumerate(read) if not isinstance(images, DataError)]
            arrays = [[images[at] for images in read if not isinstance(images, DataError)] for at in range(self._sizes)]
            numbers = [before + row + 1 for row in rows]
            made = iter(self.of_pixels([np.stack(of) for of in arrays], numbers, search) if rows else ())
            before += len(group)
            for images in read:
                yield images if isinstance(images, DataError) else Captioned(images[0], next(made))

    def of_pixels(self, pixels: Sequence[Images], numbers: Sequence[int], search: Search) -> list[list[Hypothesis]]:
        """The captions of a batch of images.

        Args:
            pixels: for each size of images that the models take (n, height, width, channels).
            numbers: of the images among all, which draws depend on.
            search: how.
        """
        by_shape = dict(zip(self._shapes, pixels, strict=True))
        sources = tuple(standardize(by_shape[tuple(info["shape"])], info["mean"], info["std"]) for info in self.infos)
        decoded = self.writer.decode(sources if len(sources) > 1 else sources[0], numbers, search)
        places = int(np.prod(self.grid)) if search.align else 0
        return [self.writer.hypotheses(decoded, row, places, search) for row in range(len(numbers))]

    @property
    def _shapes(self) -> list[tuple[int, int, int]]:
        """The different shapes that the models take, that of the first model first."""
        return list(dict.fromkeys(tuple(info["shape"]) for info in self.infos))

    @property
    def _sizes(self) -> int:
        return len(self._shapes)

    def _attempt(self, path: str | Path) -> list[Images] | DataError:
        try:
            return [read_image(path, shape) for shape in self._shapes]
        except DataError as failure:
            return failure


def load(names: str | Path | Sequence[str | Path], *, workers: int = 1, precision: str | None = None) -> Captioner:
    """The captioner of a run or a checkpoint, or of several together.

    Args:
        names: runs or checkpoints.
        workers: see `dlkit.decode.decoder.Decoder`.
        precision: what the models compute in; None for float32 where they were trained in bfloat16.

    Raises:
        dlkit.errors.UsageError: a run is of another task, or several have different vocabularies.
        dlkit.errors.CheckpointError: a tokenizer does not belong to its model, or a checkpoint to its run.
    """
    names = [names] if isinstance(names, str | Path) else list(names)
    opened = [open_run_of("captioning", name) for name in names]
    words = [load_tokenizer(run.path, run.info["data"]) for run in opened]
    for run, own in zip(opened, words, strict=True):
        if own != words[0]:
            raise UsageError(
                f"{opened[0].path} and {run.path} have different vocabularies",
                "an ensemble is of runs that were trained on the same data",
            )
    models = [
        runs.load_model(name, precision=precision or precision_of(run)) for name, run in zip(names, opened, strict=True)
    ]
    longest = max(int(run.recipe["decode"]["max_len"]) for run in opened)
    return Captioner(models, [run.info["data"] for run in opened], words[0], longest, workers=workers)
