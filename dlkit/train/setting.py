"""What a run is evaluated on, and how; and which of that is about runs of some kinds alone. Loads no TensorFlow."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dlkit import runs
from dlkit.errors import UsageError
from dlkit.tasks import TASKS, TaskInfo


class About(NamedTuple):
    """What an option is about.

    Args:
        option: of `dlkit evaluate`.
        what: in words.
        fits: whether runs of a task have such.
    """

    option: str
    what: str
    fits: Callable[[TaskInfo], bool]


def _of(*kinds: str) -> Callable[[TaskInfo], bool]:
    """Whether the data of a task are of these kinds."""
    return lambda task: task.data_kind in kinds


def about_writing(option: str) -> About:
    """What an option is about that asks for something of the texts that a run writes."""
    return About(option, "what is written", _of("pairs", "captions"))


# Field of `Setting`, or key of its `decode` -> what it is about. The fields that are missing are for runs of all kinds;
# what data `data_dir` and `on_bad` are for is asked where these are opened.
ABOUT: dict[str, About] = {
    "mirror": About("--mirror", "classes of images", _of("images")),
    "source": About("--source", "translations", _of("pairs")),
    "target": About("--target", "translations", _of("pairs")),
    "decode.beams": about_writing("--beam"),
    "decode.length_norm": about_writing("--length-norm"),
    "decode.alpha": about_writing("--alpha"),
    "decode.max_len": about_writing("--max-len"),
    "lowercase": about_writing("--lowercase"),
    "own_words": about_writing("--own-words"),
    "shuffle_images": About("--shuffle-images", "captions", _of("captions")),
    "constant": About("--constant", "captions", _of("captions")),
}


def check_about(asked: Iterable[About], run: runs.Run) -> None:
    """Checks that a run is of the kind that some options are about.

    Raises:
        dlkit.errors.UsageError: it is of another.
    """
    task = TASKS[run.task]
    for option, what, fits in asked:
        if not fits(task):
            raise UsageError(f"{option} is about {what}, and {run.path} is a run of {task.title}", "leave it out")


def not_together(option: str) -> UsageError:
    """An error about an option for one run, where several are evaluated as one."""
    return UsageError(f"{option} is about one run, and --ensemble about all together", "leave one of them out")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run is evaluated on, and how.

    Args:
        split: the split's name.
        weights: `raw`, `ema`, or `auto`: the average when the run keeps one.
        data: another dataset, with the classes or in the languages of the run; None for the run's own.
        data_dir: where prepared data lies; None for where it lay in training.
        batch_size: examples at a time; does not change the result.
        limit: use no more than this many examples.
        on_bad: at an image file that cannot be read, `error` or `skip`; None for what was done in training.
        source: language or column of the sources of other pairs; None for the run's.
        target: those of the targets.
        decode: "decode.key" -> value that stands above the run's recipe when outputs are searched for, if it is any.
        lowercase: whether BLEU and chrF are those of lower-cased texts.
        mirror: whether the probabilities of each image and of its mirror image are averaged.
        own_words: whether to measure also the loss of a decoder that reads its own words.
        shuffle_images: whether a captioner is shown another image than that whose captions it is compared with.
        constant: whether one training caption is taken for all images instead of what the captioner writes.

    Raises:
        dlkit.errors.UsageError: a part of it is without effect beside the others.
    """

    split: str = "test"
    weights: runs.Weights = "auto"
    data: str | None = None
    data_dir: Path | None = None
    batch_size: int = 256
    limit: int | None = None
    on_bad: str | None = None
    source: str | None = None
    target: str | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)
    lowercase: bool = False
    mirror: bool = False
    own_words: bool = False
    shuffle_images: bool = False
    constant: bool = False

    def __post_init__(self) -> None:
        asked = self.asked
        if self.data is None and (of_pairs := asked.get("source") or asked.get("target")):
            raise UsageError(f"{of_pairs.option} is about other data than the run's", "name them with --data")
        written = [asked[key] for key in asked if key in self.decode or key in {"own_words", "shuffle_images"}]
        if self.constant and written:
            raise UsageError(
                f"{written[0].option} is about what the run writes, and --constant takes one caption", "leave it out"
            )

    @property
    def asked(self) -> dict[str, About]:
        """What is asked for that is about runs of some kinds alone, by the keys of `ABOUT`."""
        values = {**{key: getattr(self, key) for key in ABOUT if hasattr(self, key)}, **self.decode}
        known = {**ABOUT, **{key: about_writing(key) for key in self.decode if key not in ABOUT}}
        given = {key for key, value in values.items() if value is not None and value is not False}
        return {key: about for key, about in known.items() if key in given}


DEFAULT = Setting()
