"""The logic of the search, with functions in place of trainings."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest_search import Done, Slow

from dlkit.errors import DataError, DlkitError, UsageError
from dlkit.train.search import loop
from dlkit.train.search import study as studies
from dlkit.train.search.loop import Outcome
from dlkit.train.search.study import Plan, best_of, results, run_path


def found(search):
    return results(search.study, search.plan)


# ------------------------------------------------------------------------------------------------------ what is drawn


def test_random_values_lie_in_their_spaces_and_follow_from_the_seed(in_memory):
    spaces = ["a.lr=log:1e-4..1", "a.size=int:2..5", "a.kind={x,y}"]
    drawn = []
    for seed, trials in ((1, 100), (1, 5), (2, 5)):
        search = in_memory(spaces, lambda v, n: 0.0, trials=trials, seed=seed)
        assert search.run() == "done"
        drawn.append([values for _, values in search.trainer.begun])
    assert drawn[0][:5] == drawn[1] != drawn[2]
    rates = np.array([values["a.lr"] for values in drawn[0]])
    assert rates.min() >= 1e-4
    assert rates.max() <= 1
    # Even on the logarithmic scale: a quarter in each decade, by the binomial within 5 standard deviations.
    counts = np.histogram(np.log10(rates), bins=[-4, -3, -2, -1, 0])[0]
    assert np.all(np.abs(counts - 25) < 5 * np.sqrt(100 * 0.25 * 0.75))
    assert {values["a.size"] for values in drawn[0]} == {2, 3, 4, 5}
    assert {values["a.kind"] for values in drawn[0]} == {"x", "y"}


def test_a_grid_is_gone_through_once(begin):
    search = begin(["a.b=0..1/3", "c.d={x,y}"], lambda v, n: v["a.b"], trials=6, sampler="grid")
    search.run()
    values = [tuple(values.values()) for _, values in search.trainer.begun]
    assert values == [(b, d) for b in (0, 0.5, 1) for d in ("x", "y")]


def test_tpe_comes_nearer_than_its_random_beginning(in_memory):
    search = in_memory(["a.x=-1..1"], lambda v, n: abs(v["a.x"] - 0.3), trials=30, sampler="tpe")
    search.run()
    scores = [each.score for each in found(search)]
    assert statistics.median(scores[20:]) < 0.5 * statistics.median(scores[:10])


def test_values_that_nothing_reads_are_neither_trained_with_nor_stored(begin):
    def read(values):
        return {key: value for key, value in values.items() if key != "a.momentum" or values["a.rule"] == "sgd"}

    search = begin(["a.rule={sgd,adam}", "a.momentum=0..1"], lambda v, n: 0.0, read=read)
    search.run()
    for (_, values), result in zip(search.trainer.begun, found(search), strict=True):
        assert ("a.momentum" in values) == (values["a.rule"] == "sgd")
        assert result.values == values


# ------------------------------------------------------------------------------------------------------ coarse to fine


def distances(in_memory, seed, refine):
    """How far the best of 30 trials lies from a known optimum, the mean over two keys on their scales of length 1."""
    optimum = np.random.default_rng(seed).uniform(0.1, 0.9, 2)

    def place(values):
        return np.array([np.log10(values["a.lr"]) / 4 + 1, values["a.x"] / 10])

    def bowl(values, _):
        return float(np.sum(np.array([1.0, 3.0]) * (place(values) - optimum) ** 2))

    search = in_memory(["a.lr=log:1e-4..1", "a.x=0..10"], bowl, trials=30, seed=seed, refine=refine)
    assert search.run() == "done"
    assert len(search.trainer.begun) == 30
    return np.abs(place(best_of(found(search), search.plan).values) - optimum).mean()


def test_refine_ends_nearer_than_as_many_random_trials(in_memory):
    coarse, fine = ([distances(in_memory, seed, refine) for seed in range(20)] for refine in (0, 2))
    assert statistics.median(fine) < 0.45 * statistics.median(coarse)  # README: a third as far


def test_the_rounds_lie_within_the_narrowed_spaces(in_memory):
    search = in_memory(["a.x=0..8", "a.kind={w,x,y,z}"], lambda v, n: abs(v["a.x"] - 3), trials=12, refine=2, seed=3)
    search.run()
    rounds = {number: [each for each in found(search) if each.round == number] for number in range(3)}
    assert [len(each) for each in rounds.values()] == [4, 4, 4]
    for number, width in ((1, 4.0), (2, 2.0)):
        best = best_of([each for before in range(number) for each in rounds[before]], search.plan)
        low = min(max(best.values["a.x"] - width / 2, 0), 8 - width)
        for each in rounds[number]:
            assert low - 1e-3 <= each.values["a.x"] <= low + width + 1e-3
        assert len({each.values["a.kind"] for each in rounds[number]}) <= width / 2


def test_a_finer_round_looks_about_the_greatest_where_higher_is_better(in_memory):
    search = in_memory(["a.x=0..8"], lambda v, n: v["a.x"], trials=20, refine=1, metric="accuracy", direction="higher")
    search.run()
    assert min(each.values["a.x"] for each in found(search) if each.round == 1) >= 4


# ------------------------------------------------------------------------------------------------- pruning and failing


def test_the_score_is_the_best_evaluation_and_the_best_trial_is_complete(begin):
    search = begin(["a.x=0..1"], lambda v, n: Done([3.0, 1.0 + n, 2.0 + n]), trials=3)
    search.run()
    assert [each.score for each in found(search)] == [1.0, 2.0, 3.0]
    assert [each.evaluations for each in found(search)] == [3, 3, 3]
    assert best_of(found(search), search.plan).number == 0


def test_median_pruning_stops_what_is_worse_than_half_after_the_first_look(begin):
    """Four good trials, then one that is worse from the beginning: it is stopped after two evaluations, not one."""
    jobs = [Slow([1, 1, 1, 1]), Slow([1, 1, 1, 1]), Slow([1, 1, 1, 1]), Slow([1, 1, 1, 1]), Slow([9, 9, 9, 9])]
    search = begin(["a.x=0..1"], lambda v, n: jobs[n], trials=5, first_look=2)
    search.run()
    assert [each.state for each in found(search)] == ["complete"] * 4 + ["pruned"]
    assert found(search)[4].evaluations == 2
    assert jobs[4].stopped == 1


def test_halving_lets_the_best_third_go_on(begin):
    jobs = [Slow([n] * 4) for n in (1, 2, 3, 4, 5, 0.5)]
    search = begin(["a.x=0..1"], lambda v, n: jobs[n], trials=6, prune="halving")
    search.run()
    assert [each.state for each in found(search)] == ["complete", *["pruned"] * 4, "complete"]
    assert [each.evaluations for each in found(search)][1:5] == [1] * 4


def test_nothing_is_pruned_unless_asked_for_and_nothing_at_its_end(begin):
    worse = [Slow([n] * 4) for n in range(5)]
    search = begin(["a.x=0..1"], lambda v, n: worse[n], trials=5, prune="none")
    search.run()
    ended = [*(Slow([1, 1]) for _ in range(4)), Slow([9, 9])]
    other = begin(["a.x=0..1"], lambda v, n: ended[n], trials=5, first_look=2)
    other.run()
    assert {each.state for each in [*found(search), *found(other)]} == {"complete"}


class Failing(Done):
    def __init__(self, reason, perhaps_common=True):
        super().__init__([])
        self.ending = Outcome("failed", reason, perhaps_common)

    def outcome(self):
        return self.ending


def test_failing_trials_do_not_stop_the_rest(begin):
    def train(_, number):
        return Failing(f"training diverged near step {number}") if number in {0, 2} else float(number)

    search = begin(["a.x=0..1"], train, trials=4)
    assert search.run() == "done"
    assert [each.state for each in found(search)] == ["failed", "complete", "failed", "complete"]
    assert found(search)[2].reason == "training diverged near step 2"
    assert best_of(found(search), search.plan).number == 1


def test_a_trial_that_was_never_evaluated_failed(begin):
    search = begin(["a.x=0..1"], lambda v, n: Done([]), trials=1)
    search.run()
    assert found(search)[0].reason == "its loss was never measured on a validation split"


def test_losses_that_were_never_finite_are_no_common_failure(begin):
    class Divergent(Done):
        def was_measured(self):
            return True

    search = begin(["a.x=0..1"], lambda v, n: Divergent([]), trials=6)
    assert search.run() == "done"
    assert [each.reason for each in found(search)] == ["its loss was never finite"] * 6


def test_failures_that_share_a_value_do_not_end_a_search_before_another_is_tried(begin):
    grid = {"spaces": ["a.kind={no,yes}", "a.x=0..1/6"], "sampler": "grid", "trials": 12}
    search = begin(function=lambda v, n: Failing("unknown") if v["a.kind"] == "no" else 1.0, **grid)
    assert search.run() == "done"
    assert [each.state for each in found(search)] == ["failed"] * 6 + ["complete"] * 6
    with pytest.raises(DlkitError, match="the first 7 trials have all failed: unknown"):
        begin(function=lambda v, n: Failing("unknown"), **grid).run()


def test_a_search_whose_first_trials_all_fail_for_one_reason_ends(begin):
    search = begin(["a.x=0..1"], lambda v, n: Failing("no such data"), trials=100)
    with pytest.raises(DlkitError, match="the first 5 trials have all failed: no such data"):
        search.run()
    assert len(found(search)) == 5
    for train in (
        lambda v, n: Failing("diverged", perhaps_common=False),  # another value may not
        lambda v, n: Failing(f"no layer {n}"),
        lambda v, n: Failing("no such data") if n != 3 else 1.0,
    ):
        assert begin(["a.x=0..1"], train, trials=7).run() == "done"


# ------------------------------------------------------------------------------------------- interruptions, and sharing


def test_what_was_interrupted_is_taken_up_and_what_is_done_stays_done(begin, resume):
    signals = []

    def first(_, number):
        if number == 2:
            signals.append(2)
        return Slow([float(number)] * 3)

    search = begin(["a.x=0..1"], first, trials=5)
    assert search.run(lambda: len(signals)) == "interrupted"
    assert [each.state for each in found(search)] == ["complete", "complete", "running"]

    again = resume(search.folder, lambda v, n: float(n))
    assert again.run() == "done"
    assert [number for number, _ in again.trainer.begun] == [2, 3, 4]
    assert again.trainer.begun[0] == search.trainer.begun[2]  # the same values
    assert [each.state for each in found(again)] == ["complete"] * 5

    nothing = resume(search.folder, lambda v, n: float(n))
    assert (nothing.run(), nothing.trainer.begun) == ("done", [])
    more = resume(search.folder, lambda v, n: float(n), trials=6)
    assert (more.run(), [number for number, _ in more.trainer.begun]) == ("done", [5])


def test_interruptions_do_not_change_what_is_drawn(begin, resume):
    whole = begin(["a.x=0..1"], lambda v, n: v["a.x"], trials=12, refine=2, seed=5)
    whole.run()
    signals = []
    parts = begin(
        ["a.x=0..1"], lambda v, n: (signals.append(2) if n == 6 else None) or Slow([v["a.x"]]), trials=12, refine=2,
        seed=5,
    )  # fmt: skip
    assert parts.run(lambda: len(signals)) == "interrupted"
    rest = resume(parts.folder, lambda v, n: v["a.x"])
    rest.run()
    assert [each.values for each in found(rest)] == [each.values for each in found(whole)]


def test_a_second_signal_stops_at_once(begin):
    job, signals = Slow([1.0] * 9), []

    class Stubborn:
        def outcome(self):
            signals.append(2)
            return Outcome("stopped") if job.stopped >= 2 else None

        def __getattr__(self, name):
            return getattr(job, name)

    search = begin(["a.x=0..1"], lambda v, n: Stubborn(), trials=1)
    assert search.run(lambda: len(signals)) == "interrupted"
    assert job.stopped == 2


class Saving(Slow):
    """Takes three looks to save, unless it is asked a second time."""

    def outcome(self):
        if not self.stopped:
            return super().outcome()
        self.looks += 1
        return Outcome("stopped") if self.looks > len(self.seen) else None

    def at_its_end(self):
        return False


def test_the_first_signal_leaves_a_trial_that_was_pruned_time_to_save(begin):
    jobs = [Slow([1]), Slow([1]), Slow([1]), Slow([1]), Saving([9, 9, 9, 9])]
    search = begin(["a.x=0..1"], lambda v, n: jobs[n], trials=6)
    assert search.run(lambda: jobs[4].stopped) == "interrupted"  # as soon as it is pruned
    assert jobs[4].stopped == 1
    assert found(search)[4].state == "pruned"


def test_what_is_being_saved_after_a_signal_is_not_pruned(begin):
    class Late(Saving):
        def scores(self):
            return self.seen[:1] if self.stopped else []

    jobs = [Slow([1]), Slow([1]), Slow([1]), Slow([1]), Late([9, 9, 9, 9])]
    search = begin(["a.x=0..1"], lambda v, n: jobs[n], trials=6)
    search.run(lambda: len(search.trainer.begun) == 5)
    assert jobs[4].stopped == 1
    assert found(search)[4].state == "running"


@pytest.mark.parametrize("moment", ["report", "set_user_attr"])
def test_a_trial_that_others_have_ended_meanwhile_is_let_go(begin, moment):
    search = begin(["a.x=0..1"], lambda v, n: Slow([1.0, 2.0]), trials=2)
    show, ended = search.display.show, []

    class Meddling:
        waiting = staticmethod(lambda numbers: None)

        def show(self, results):
            show(results)
            for each in search.running if not ended else []:
                if moment == "report" or each.job.looks == 2:
                    ended.append(each.trial.number)
                    search.study.tell(each.trial.number, 0.5)

    search.display = Meddling()
    assert search.run() == "done"
    assert ended == [0]
    assert [each.state for each in found(search)] == ["complete"] * 2
    assert search.study.get_trials()[0].value == 0.5


def test_the_time_limit_leaves_trials_to_be_taken_up(begin):
    search = begin(["a.x=0..1"], lambda v, n: Slow([1.0] * 10**6), trials=3)
    assert search.run(seconds=0.05) == "time is up"
    assert [each.state for each in found(search)] == ["running"]


# A search in a process of its own; its trials take some time, and each leaves a line in a file when it has ended.
WORKER = """
import sys, time
sys.path.insert(0, {tests!r})
from conftest_search import Function, Silent
from dlkit.train.search import study as studies
from dlkit.train.search.loop import Outcome, Search
from dlkit.train.search.space import parse
from pathlib import Path

class Job:
    def __init__(self, values, number):
        self.ends, self.value, self.number = time.monotonic() + {seconds}, values["a.x"], number
    def outcome(self):
        if time.monotonic() < self.ends:
            return None
        with open({log!r}, "a") as stream:
            stream.write(f"{{self.number}}\\n")
        return Outcome("finished")
    def scores(self):
        return [self.value] if time.monotonic() >= self.ends else []
    def at_its_end(self):
        return True
    def figures(self):
        return {{}}
    def stop(self):
        self.ends = 0

plan = studies.Plan(spaces=tuple(parse(["a.x=0..1"])), trials={trials}, recipe="")
study, plan, folder = studies.create(Path({runs!r}), plan, stem="x", storage={storage!r})
print(folder, flush=True)
Search(study, plan, Function(Job), folder, display=Silent(), poll=0.005).run()
"""


@pytest.fixture
def worker(tmp_path):
    """Starts such a process; `log` has the numbers of the trials that have ended."""
    started = []

    def start(*, seconds, trials, storage=None, runs="runs"):
        code = WORKER.format(
            tests=str(Path(__file__).parent), seconds=seconds, trials=trials, log=str(tmp_path / "log"),
            runs=str(tmp_path / runs), storage=storage,
        )  # fmt: skip
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def ended(tmp_path):
    log = tmp_path / "log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def test_a_kill_in_the_middle_repeats_no_finished_trial(worker, resume, tmp_path):
    process = worker(seconds=0.05, trials=400)
    folder = Path(process.stdout.readline().strip())
    deadline = time.monotonic() + 120
    while len(ended(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = ended(tmp_path)
    assert len(before) >= 3
    rest = resume(folder, lambda v, n: v["a.x"], trials=len(before) + 3)
    assert rest.run() == "done"
    again = [number for number, _ in rest.trainer.begun]
    assert len(found(rest)) == len(before) + 3
    assert {each.state for each in found(rest)} == {"complete"}
    # The trial whose end was logged just before the kill may not have been told: it alone may come again.
    assert set(again) & set(before) <= {before[-1]}


def test_two_processes_share_one_storage(worker, tmp_path):
    storage = str(tmp_path / "shared.journal")
    processes = [worker(seconds=0.05, trials=12, storage=storage, runs=runs) for runs in ("a", "b")]
    folders = [Path(process.stdout.readline().strip()) for process in processes]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert sorted(ended(tmp_path)) == list(range(12))  # each once, whoever trained it
    for folder in folders:
        study, plan = studies.open_search(folder)
        assert [each.state for each in results(study, plan)] == ["complete"] * 12
        assert len({each.values["a.x"] for each in results(study, plan)}) == 12


def test_what_another_process_trains_is_waited_for_and_not_trained_twice(begin, resume):
    search = begin(["a.x=0..1"], lambda v, n: float(n), trials=2)
    asked = search.study.ask()
    asked.set_user_attr("folder", str(search.folder))
    lock = studies.claim(search.folder, asked.number)
    told = []

    class Watching:
        def show(self, found):
            pass

        def waiting(self, numbers):
            told.append(list(numbers))
            if len(told) == 3:
                os.close(lock)  # the other one is gone

    search.display = Watching()
    assert search.run() == "done"
    assert told == [[0]] * 3
    assert [number for number, _ in search.trainer.begun] == [1, 0]


def test_one_too_many_is_not_trained(begin):
    """Two processes may begin a trial at the same moment; the one beyond the number is left."""
    search = begin(["a.x=0..1"], lambda v, n: float(n), trials=1)
    ask = search.study.ask

    def slower():
        other = ask()
        other.set_user_attr("folder", "/nowhere/to/be/seen")
        search.study.ask = ask
        return ask()

    search.study.ask = slower
    assert search.run() == "done"
    assert search.trainer.begun == []
    assert [each.number for each in found(search)] == [0]


def test_a_trial_of_a_machine_that_cannot_be_seen_is_not_waited_for(begin):
    search = begin(["a.x=0..1"], lambda v, n: float(n), trials=4, refine=1)
    asked = search.study.ask()
    asked.set_user_attr("folder", "/nowhere/to/be/seen")
    asked.set_user_attr("host", "another")
    assert search.run() == "done"
    assert [number for number, _ in search.trainer.begun] == [1, 2, 3]


def test_an_equal_path_on_another_machine_is_another_folder(begin):
    """Only who can see the lock of a trial goes on with it."""
    search = begin(["a.x=0..1"], lambda v, n: float(n), trials=2)
    asked = search.study.ask()
    asked.set_user_attr("folder", str(search.folder))  # of the same path, but there
    asked.set_user_attr("host", "another")
    assert search.run() == "done"
    assert [number for number, _ in search.trainer.begun] == [1]
    os.close(studies.claim(search.folder, asked.number))
    assert search.run() == "done"
    assert [number for number, _ in search.trainer.begun] == [1, 0]


def test_a_trial_without_a_place_gets_the_one_it_would_have_had(begin, monkeypatch):
    """A kill just after it was begun; number 0 was one too many, and so is number 3."""
    search = begin(["a.x=0..1/2"], lambda v, n: v["a.x"], trials=2, sampler="grid")
    search.study.ask().set_user_attr("surplus", True)
    for _ in range(3):
        search.study.ask()
    monkeypatch.setattr(loop, "ORPHAN", -1.0)
    assert search.run() == "done"
    assert search.trainer.begun == [(1, {"a.x": 0.0}), (2, {"a.x": 1.0})]
    assert [each.number for each in found(search)] == [1, 2]
    assert search.study.get_trials()[3].state.name == "FAIL"


def test_a_shared_storage_holds_one_search_of_a_name(begin, tmp_path):
    storage = str(tmp_path / "shared.journal")
    first = begin(["a.x=0..1"], lambda v, n: 0.0, trials=3, storage=storage)
    first.run()
    joined = begin(["a.x=0..1"], lambda v, n: 0.0, trials=5, storage=storage)
    assert joined.folder == first.folder
    assert len(found(joined)) == 3
    with pytest.raises(UsageError, match=r"holds another search: its a.x is 0..1, here it is 0..2"):
        begin(["a.x=0..2"], lambda v, n: 0.0, storage=storage)
    with pytest.raises(UsageError, match="its sampler is random, here it is tpe"):
        begin(["a.x=0..1"], lambda v, n: 0.0, storage=storage, sampler="tpe")
    other = begin(["a.x=0..2"], lambda v, n: 0.0, storage=storage, name="other")
    assert other.folder.name == "other"
    assert found(other) == []


def test_a_database_does_for_a_storage(begin, tmp_path, resume):
    search = begin(["a.x=0..1", "a.k={x,y}"], lambda v, n: v["a.x"], trials=4, storage=f"sqlite:///{tmp_path / 'x.db'}")
    search.run()
    again = resume(search.folder, lambda v, n: 0.0)
    assert [each.values for each in found(again)] == [values for _, values in search.trainer.begun]


def test_a_password_of_a_storage_is_kept_nowhere(begin, tmp_path):
    with pytest.raises(DlkitError, match=r"cannot use the storage what://me:\*\*\*@there/x"):
        begin(["a.x=0..1"], lambda v, n: 0.0, storage="what://me:secret@there/x")
    assert studies.without_password("postgresql://me:secret@there/x") == "postgresql://me:***@there/x"
    options = "postgresql://there/x?user=me&{}&sslmode=require&sslPassword={}"
    assert studies.without_password(options.format("password=secret", "s")) == options.format("password=***", "***")
    for nothing_to_hide in ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db?timeout=5", "postgresql://me@there/x", "x.log"):
        assert studies.without_password(nothing_to_hide) == nothing_to_hide


# --------------------------------------------------------------------------------------------------------- on the disk


def test_a_folder_that_was_moved_goes_on(begin, resume, tmp_path):
    signals = []
    search = begin(["a.x=0..1"], lambda v, n: (signals.append(2) if n else None) or Slow([1.0] * 3), trials=3)
    assert search.run(lambda: len(signals)) == "interrupted"
    moved = search.folder.rename(tmp_path / "elsewhere")
    again = resume(moved, lambda v, n: 2.0)
    assert again.run() == "done"
    assert [number for number, _ in again.trainer.begun] == [1, 2]
    assert [each.run for each in results(again.study, again.plan, moved)] == [f"{moved}/trial-{n}" for n in range(3)]


def test_processes_that_begin_at_the_same_moment_begin_one_search(begin, tmp_path, monkeypatch):
    """Both look before either has written: they must come to the same."""
    storage = str(tmp_path / "shared.journal")
    opened = [studies._study(storage, studies.ONE_STUDY, Plan((), 1)) for _ in range(2)]
    blind = iter(opened)

    class Blind:
        def __init__(self, study):
            self.study, self.looked = study, False

        @property
        def user_attrs(self):
            looked, self.looked = self.looked, True
            return self.study.user_attrs if looked else {}

        def __getattr__(self, name):
            return getattr(self.study, name)

    monkeypatch.setattr(studies, "_study", lambda *_: Blind(next(blind)))
    folders = [begin(["a.x=0..1"], None, storage=storage).folder for _ in range(2)]
    monkeypatch.undo()
    assert len(set(folders)) == 2
    for folder in folders:
        studies.open_search(folder)


def test_a_journal_that_was_cut_in_the_middle_of_a_line_goes_on(begin, resume):
    search = begin(["a.x=0..1"], lambda v, n: float(n), trials=2)
    search.run()
    journal = search.folder / "journal.log"
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":6,"work')
    again = resume(search.folder, lambda v, n: float(n), trials=3)
    assert again.run() == "done"
    assert len(found(resume(search.folder, None))) == 3


def test_a_line_that_another_process_has_cut_meanwhile_does_not_spoil_the_journal(begin, resume):
    search = begin(["a.x=0..1"], lambda v, n: float(n), trials=2)
    with (search.folder / "journal.log").open("ab") as stream:
        stream.write(b'{"op_code":6,"work')  # the disk was full
    assert search.run() == "done"
    assert len(found(resume(search.folder, None))) == 2


def test_folders_that_are_no_searches(begin, tmp_path):
    with pytest.raises(DataError, match="no search"):
        studies.open_search(tmp_path)
    search = begin(["a.x=0..1"], lambda v, n: 0.0, trials=1)
    file = search.folder / "search.json"
    content = json.loads(file.read_text())
    (search.folder / "journal.log").unlink()
    with pytest.raises(DataError, match=r"the journal .* is gone"):
        studies.open_search(search.folder)
    file.write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(DataError, match="newer dlkit"):
        studies.open_search(search.folder)
    file.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        studies.open_search(search.folder)


def test_the_number_of_trials_that_were_shared_out_stays(begin):
    search = begin(["a.x=0..1"], lambda v, n: 0.0, trials=4, refine=1)
    with pytest.raises(UsageError, match="cannot change: --refine has shared them out"):
        studies.open_search(search.folder, trials=5)


def test_names(begin, tmp_path):
    first, second = (begin(["a.x=0..1"], lambda v, n: 0.0) for _ in range(2))
    assert [each.folder.name for each in (first, second)] == ["x-search-1", "x-search-2"]
    assert begin(["a.x=0..1"], None, name="mine").folder == tmp_path / "runs" / "mine"
    with pytest.raises(UsageError, match="exists"):
        begin(["a.x=0..1"], None, name="mine")
    assert run_path(first.folder, 3).name == "trial-3"
