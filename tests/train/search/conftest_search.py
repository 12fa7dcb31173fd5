"""What the tests of the search share: functions in place of trainings."""

import optuna
import pytest

from dlkit.train.search import study as studies
from dlkit.train.search.loop import Outcome, Search
from dlkit.train.search.space import parse
from dlkit.train.search.study import Plan


class Silent:
    def show(self, found):
        pass

    def waiting(self, numbers):
        pass


class Done:
    """A trial that is trained as soon as it is begun."""

    def __init__(self, scores, figures=None):
        self.seen, self.measured = list(scores), dict(figures or {})

    def outcome(self):
        return Outcome("finished")

    def scores(self):
        return self.seen

    def was_measured(self):
        return bool(self.seen)

    def at_its_end(self):
        return True

    def figures(self):
        return self.measured

    def stop(self):
        pass


class Slow(Done):
    """A trial that makes one evaluation a look, and can be stopped between them."""

    def __init__(self, scores):
        super().__init__(scores)
        self.looks, self.stopped = 0, 0

    def outcome(self):
        if self.stopped:
            return Outcome("stopped")
        self.looks += 1
        return Outcome("finished") if self.looks > len(self.seen) else None

    def scores(self):
        return self.seen[: self.looks]

    def at_its_end(self):
        return self.looks >= len(self.seen)

    def stop(self):
        self.stopped += 1


class Function:
    """Trains by calling a function of the values and the number; what it returns is the job, or the score."""

    def __init__(self, function):
        self.function, self.begun = function, []

    def begin(self, number, values, folder, lock):
        self.begun.append((number, dict(values)))
        made = self.function(dict(values), number)
        return Done([made]) if isinstance(made, int | float) else made


@pytest.fixture
def begin(tmp_path):
    """Begins a search in an empty folder; gives the search, whose trainer has what was begun."""

    def make(spaces, function, *, trials=10, storage=None, name=None, jobs=1, read=dict, **options):
        plan = Plan(spaces=tuple(parse(spaces)), trials=trials, recipe="[train]\nlr = 1\n", **options)
        study, plan, folder = studies.create(tmp_path / "runs", plan, stem="x", storage=storage, name=name)
        return Search(study, plan, Function(function), folder, display=Silent(), jobs=jobs, read=read, poll=0.001)

    return make


@pytest.fixture
def in_memory(tmp_path):
    """Begins a search that is written nowhere but for its locks, which is quicker."""

    def make(spaces, function, *, trials=10, **options):
        plan = Plan(spaces=tuple(parse(spaces)), trials=trials, **options)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction="minimize" if plan.direction == "lower" else "maximize")
        return Search(study, plan, Function(function), tmp_path, display=Silent(), poll=0.001)

    return make


@pytest.fixture
def resume():
    """Opens a search by its folder, as another process would."""

    def make(folder, function, *, trials=None, jobs=1):
        study, plan = studies.open_search(folder, trials=trials)
        return Search(study, plan, Function(function), folder, display=Silent(), jobs=jobs, poll=0.001)

    return make
