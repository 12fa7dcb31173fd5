"""What a run is evaluated on, and how: nothing of it is read and ignored."""

from dataclasses import fields
from pathlib import Path

import pytest

from dlkit import runs
from dlkit.errors import UsageError
from dlkit.recipe import DecodeSection
from dlkit.tasks import TASKS
from dlkit.train.setting import ABOUT, Setting, check_about

FOR_ALL = {"split", "weights", "data", "data_dir", "batch_size", "limit", "on_bad"}
SEARCH = {"--beam", "--length-norm", "--alpha", "--max-len"}
WRITING = {*SEARCH, "--lowercase", "--own-words"}
# What each task has a use for.
USED = {
    "image_classification": {"--mirror"},
    "translation": {*WRITING, "--source", "--target"},
    "captioning": {*WRITING, "--shuffle-images", "--constant"},
    "text_classification": set(),
    "tagging": set(),
    "language_modelling": set(),
    "sequences": set(),
    "video_classification": set(),
}
# A value of each that is about some runs alone, such as a user would give.
GIVEN = {
    "--mirror": {"mirror": True},
    "--source": {"source": "fr", "data": "x.tsv"},
    "--target": {"target": "2", "data": "x.tsv"},
    "--beam": {"decode": {"decode.beams": 1}},
    "--length-norm": {"decode": {"decode.length_norm": "none"}},
    "--alpha": {"decode": {"decode.alpha": 0.0}},
    "--max-len": {"decode": {"decode.max_len": 7}},
    "--lowercase": {"lowercase": True},
    "--own-words": {"own_words": True},
    "--shuffle-images": {"shuffle_images": True},
    "--constant": {"constant": True},
}


def test_each_setting_is_for_all_runs_or_said_to_be_about_some():
    names = {one.name for one in fields(Setting)} - {"decode"}
    assert names - FOR_ALL == {key for key in ABOUT if "." not in key}
    assert {f"decode.{key}" for key in DecodeSection.model_fields} == {key for key in ABOUT if "." in key}
    assert set(GIVEN) == {about.option for about in ABOUT.values()}
    assert set(USED) == set(TASKS)


@pytest.mark.parametrize("option", GIVEN)
@pytest.mark.parametrize("task", USED)
def test_what_a_run_has_no_use_for_is_refused(task, option):
    run, asked = runs.Run(Path("runs/x"), {}, {"task": task}), Setting(**GIVEN[option]).asked
    assert [about.option for about in asked.values()] == [option]
    if option in USED[task]:
        check_about(asked.values(), run)
        return
    with pytest.raises(UsageError) as refused:
        check_about(asked.values(), run)
    assert refused.value.message.startswith(f"{option} is about ")
    assert refused.value.message.endswith(f", and runs/x is a run of {TASKS[task].title}")


def test_what_is_not_given_is_not_asked_for():
    assert Setting().asked == {}
    assert Setting(decode={"decode.beams": None}, limit=3, data="digits").asked == {}


def test_a_key_that_there_is_not_is_no_reason_to_say_nothing():
    with pytest.raises(UsageError, match=r"^decode\.beam is about what is written, and runs/x is"):
        check_about(
            Setting(decode={"decode.beam": 3}).asked.values(), runs.Run(Path("runs/x"), {}, {"task": "tagging"})
        )


@pytest.mark.parametrize("option", sorted({*SEARCH, "--own-words", "--shuffle-images"}))
def test_beside_one_caption_for_all_nothing_is_asked_of_what_a_run_writes(option):
    with pytest.raises(UsageError, match=f"^{option} is about what the run writes, and --constant takes one caption$"):
        Setting(constant=True, **GIVEN[option])


def test_one_caption_for_all_can_be_lower_cased():
    assert [about.option for about in Setting(constant=True, lowercase=True).asked.values()] == [
        "--lowercase",
        "--constant",
    ]


@pytest.mark.parametrize("option", ["--source", "--target"])
def test_the_languages_of_a_run_s_own_data_are_known(option):
    given = {key: value for key, value in GIVEN[option].items() if key != "data"}
    with pytest.raises(UsageError, match=f"^{option} is about other data than the run's$"):
        Setting(**given)
