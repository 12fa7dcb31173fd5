"""What data a run is evaluated on: its own, divided as in training, or others that its classes or languages fit."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dlkit import data as datasets
from dlkit import file_system
from dlkit.errors import UsageError
from dlkit.recipe import check_data_dir
from dlkit.runs import Run
from dlkit.tasks import TASKS
from dlkit.tasks.language_modelling import other_text
from dlkit.train import translation_quality
from dlkit.train.setting import Setting
from dlkit.values import check_value, defaults_of


def data_section(run: Run, setting: Setting, among: Sequence[Run]) -> dict[str, Any]:
    """The section [data] of a run, or one for another dataset.

    Its images are then made as large as the run's, and its pairs go the run's way. Data that one of the runs was
    trained on is divided as it was then. Any other folder without splits, or file of pairs, is tested on as a whole.
    """
    section: dict[str, Any] = dict(run.recipe["data"])
    kind = TASKS[run.task].data_kind
    own: Mapping[str, Any] = {}
    if setting.data is not None and kind == "corpus":
        if setting.on_bad is not None:
            raise _no_images(setting.data)
        return other_text(
            section, setting.data, is_known=any(_is_same(each.recipe["data"]["name"], setting.data) for each in among),
            folder=setting.data_dir,
        )  # fmt: skip
    if setting.data is not None:
        own = next((each.recipe["data"] for each in among if _is_same(each.recipe["data"]["name"], setting.data)), {})
        section = {**own, "name": setting.data}
        if not own and datasets.is_undivided(setting.data, setting.data_dir, kind=kind):
            section["test"] = "all"
    if setting.data_dir is not None:
        check_data_dir(section["name"], setting.data_dir, kind=kind)
        section["dir"] = setting.data_dir
    options = defaults_of(datasets.builder(section["name"], section.get("dir"), kind=kind))
    if setting.data is not None and kind == "pairs":
        section |= translation_quality.other_pairs(run, setting.data, options, is_known=bool(own))
        section |= {key: value for key in ("source", "target") if (value := getattr(setting, key)) is not None}
    elif setting.data is not None and "size" in options:
        height, width = [*run.info["data"].get("shape", ()), 0, 0][:2]
        if height == width:
            section["size"] = height
    if setting.on_bad is not None:
        if "on_bad" not in options:
            raise _no_images(section["name"])
        section["on_bad"] = check_value(Literal["error", "skip"], setting.on_bad, "--on-bad")
    return section


def _no_images(name: str) -> UsageError:
    return UsageError(f"{name} is no folder of images: --on-bad is for those", "leave it out")


def _is_same(own: str, other: str) -> bool:
    """Whether two names are those of one dataset: the same, or paths of the same folder."""
    one, two = ([file_system.real(path) for path in datasets.paths(name)] or name for name in (own, other))
    return one == two
