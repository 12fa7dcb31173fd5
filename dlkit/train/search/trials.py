"""The trials of a search as processes: each is an ordinary `dlkit train` with its own run folder."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlkit import runs, signals, workers
from dlkit.errors import DataError, DlkitError, UsageError
from dlkit.runtime import processors
from dlkit.train.search.effects import figures_of
from dlkit.train.search.loop import Outcome
from dlkit.train.search.space import Value
from dlkit.train.search.study import run_path

STOPPED = {128 + number for number in signals.STOP}


class TrialProcess:
    """The training of one trial in a process of its own.

    Args:
        arguments: of dlkit.
        run: the folder that its run has or will have.
        log: takes what it says.
        environment: what differs from ours.
        lock: a descriptor that it keeps open: whoever wants to take the trial up waits for its end, even without us.
    """

    def __init__(
        self, arguments: Sequence[str], *, run: Path, log: Path, environment: Mapping[str, str], lock: int
    ) -> None:
        self.run, self.log = run, log
        self.asked = False
        with log.open("ab") as stream:
            self.begin = stream.tell()
            # A session of its own: Ctrl-C reaches us alone, and we say what it means for the trials.
            self.process = subprocess.Popen(
                workers.command(arguments),
                env={**os.environ, **environment},
                pass_fds=[lock],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
            )

    def outcome(self) -> Outcome | None:
        """How it ended; None while it goes on."""
        code = self.process.poll()
        if code is None:
            return None
        if code == 0:
            return Outcome("finished")
        if self.asked and (code < 0 or code in STOPPED):
            return Outcome("stopped")
        return Outcome("failed", self._reason(code), perhaps_common=code in {UsageError.code, DataError.code})

    def scores(self) -> list[float]:
        """The metric at each evaluation so far."""
        run = _opened(self.run)
        values = run.monitored() if run else {}
        return [values[step] for step in sorted(values)]

    def was_measured(self) -> bool:
        """Whether the metric was measured at all, finite or not."""
        run = _opened(self.run)
        return run is not None and _was_measured(run)

    def at_its_end(self) -> bool:
        """Whether the last step is made: what is left is the test."""
        run = _opened(self.run)
        lines = [line for line in run.metrics() if line["kind"] == "train"] if run else []
        return bool(lines) and lines[-1].get("seconds_left") == 0

    def figures(self) -> dict[str, float]:
        """What `dlkit.train.search.effects` looks at."""
        run = _opened(self.run)
        return figures_of(run) if run else {}

    def stop(self) -> None:
        """Asks it to save and to end; called again, it ends at once."""
        self.process.send_signal(signal.SIGKILL if self.asked else signal.SIGTERM)
        self.asked = True

    def _reason(self, code: int) -> str:
        with self.log.open("rb") as stream:
            stream.seek(self.begin)
            lines = stream.read().decode(errors="replace").splitlines()
        error = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (", perhaps for want of memory" if code == -signal.SIGKILL else "")
        return error or f"exit code {code}"


class Finished:
    """A trial whose training had ended, and nobody was there to take note."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def outcome(self) -> Outcome:
        """It is done."""
        return Outcome("finished")

    def scores(self) -> list[float]:
        """The metric at each evaluation."""
        values = runs.open_run(self.run).monitored()
        return [values[step] for step in sorted(values)]

    def was_measured(self) -> bool:
        """Whether the metric was measured at all, finite or not."""
        return _was_measured(runs.open_run(self.run))

    def at_its_end(self) -> bool:
        """It is."""
        return True

    def figures(self) -> dict[str, float]:
        """What `dlkit.train.search.effects` looks at."""
        return figures_of(runs.open_run(self.run))

    def stop(self) -> None:
        """Nothing is there to be stopped."""


class Processes:
    """Trains trials with `dlkit train`, as many at a time as there are `jobs`.

    Args:
        recipe: the file with what all trials have in common.
        devices: as `--devices` takes it.
        jobs: among how many the processors are divided.
    """

    def __init__(self, recipe: Path, *, devices: str, jobs: int) -> None:
        self.recipe, self.devices = recipe, devices
        threads = str(max(1, processors() // jobs))
        names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        self.environment = {name: threads for name in names if jobs > 1 and name not in os.environ}

    def begin(self, number: int, values: Mapping[str, Value], folder: Path, lock: int) -> TrialProcess | Finished:
        """Begins a trial, or goes on with its run when it has one."""
        path = run_path(folder, number)
        run = _opened(path)
        if run is not None and "result" in run.info:
            return Finished(path)
        if run is not None:
            arguments = ["train", "--resume", str(path)]
        else:
            sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
            arguments = ["train", "--recipe", str(self.recipe), *sets, "--runs-dir", str(folder), "--name", path.name]
        log = path.with_name(f"{path.name}.log")
        arguments += ["--devices", self.devices]
        return TrialProcess(arguments, run=path, log=log, environment=self.environment, lock=lock)


def _opened(path: Path) -> runs.Run | None:
    """The run of a trial, once there is one."""
    try:
        return runs.open_run(path) if (path / "run.json").exists() else None
    except (DlkitError, OSError):
        return None


def _was_measured(run: runs.Run) -> bool:
    name, _ = run.monitor
    return any(
        line["kind"] == "evaluation" and line.get("split") == "validation" and name in line for line in run.metrics()
    )
