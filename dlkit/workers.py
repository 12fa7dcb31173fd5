"""Several processes on this machine that train as one: `dlkit train --workers N`.

The process of the command line starts them, waits, and tells what became of them: a process that is killed can explain
nothing. The first of them, the chief, has its terminal; of the others only the last words are kept.

A signal may come to this process alone, or, as Ctrl-C, the end of a terminal and the cancelling of a batch job do, to
all. So the workers have SIGINT, SIGTERM and SIGHUP blocked, and this process, which gets each of them, passes the first
on as SIGUSR1. That one a worker may also get by itself; it takes one and several for the same, since the second signal
is this process' to act on.
"""

import json
import math
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from dlkit import console, signals
from dlkit.errors import DlkitError, Interrupted, UsageError
from dlkit.runtime import processors

LAUNCHER = "DLKIT_LAUNCHER"
# How a worker ends on account of another, which is gone or says more, and when another program has its port. The
# launcher says the rest.
LOST = 117
PORT_TAKEN = 118
ATTEMPTS = 5
# Below the ports that systems give to outgoing connections, which could take one between the choice and its use.
PORTS = range(20_000, 30_000)
# Seconds for the rest to end by itself: the others know at once that one is gone, unless they have not met yet.
STRAGGLERS = 10

# ---------------------------------------------------------------------------------------------------------- in a worker


@cache
def launcher() -> socket.socket | None:
    """In a worker, the connection to the process that started it, which breaks when that is gone."""
    descriptor = os.environ.get(LAUNCHER)
    return socket.socket(fileno=int(descriptor)) if descriptor else None


def report(message: Mapping[str, Any]) -> None:
    """Tells the process that started this worker, if one did, what it needs to explain the end."""
    if connection := launcher():
        with suppress(OSError):
            connection.sendall(json.dumps(message).encode() + b"\n")


# -------------------------------------------------------------------------------------------------------- the launcher


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    reports: socket.socket
    errors: IO[bytes] | None

    def reported(self) -> dict[str, Any]:
        """All that it has reported, after its end."""
        told: dict[str, Any] = {}
        with suppress(OSError, ValueError), self.reports.makefile(encoding="utf-8") as lines:
            for line in lines:
                told |= json.loads(line)
        return told

    def last_words(self) -> str:
        """The message of the last error that it printed."""
        if self.errors is None:
            return ""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").splitlines()
        return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")


def command(arguments: Sequence[str]) -> list[str]:
    """The command line of another process of dlkit, which looks for modules where this one does.

    `python -m` looks for them in the current folder, the command `dlkit` does not.
    """
    safely = [] if Path(sys.argv[0]).name == "__main__.py" else ["-P"]
    return [sys.executable, *safely, "-m", "dlkit", *arguments]


def train(arguments: Sequence[str], count: int) -> int:
    """Runs `dlkit` with these arguments as `count` processes on this machine, and returns the exit code.

    Raises:
        dlkit.errors.UsageError: TF_CONFIG names the workers already.
        dlkit.errors.DlkitError: a worker was killed, or another program took their ports again and again.
    """
    if os.environ.get("TF_CONFIG"):
        raise UsageError("--workers starts all workers, and TF_CONFIG says that they are started", "leave one of both")
    if count > processors():
        there = f"{processors()} processor{'s' * (processors() > 1)}"
        console.warn(f"--workers {count} on {there}: without a GPU each, workers that share one take longer")
    with signals.noted() as received:
        for _ in range(ATTEMPTS):
            with ExitStack() as stack:
                workers = _start(arguments, count, stack)
                first_to_fail = _wait(workers, received)
                if PORT_TAKEN not in [worker.process.returncode for worker in workers]:
                    return _verdict(workers, first_to_fail, received)
    raise DlkitError(f"cannot find {count} free ports on this machine", "try again")


def _free_ports(count: int) -> list[int]:
    ports = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            break
    return ports


def _start(arguments: Sequence[str], count: int, stack: ExitStack) -> list[_Worker]:
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    threads = str(max(1, processors() // count))
    workers = []
    for index in range(count):
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        silent = index > 0 and not console.settings.verbose
        errors = stack.enter_context(tempfile.TemporaryFile()) if silent else None  # noqa: SIM115 - the stack closes it
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {
            "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads, **os.environ,
            "TF_CONFIG": json.dumps(config), LAUNCHER: str(theirs.fileno()),
        }  # fmt: skip
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {*signals.STOP} - {signal.SIGUSR1})
        try:
            process = subprocess.Popen(
                command(arguments),
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=None if index == 0 else subprocess.DEVNULL,
                stdout=None if index == 0 else subprocess.DEVNULL,
                stderr=errors,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        stack.callback(_end, process)
        workers.append(_Worker(process, ours, errors))
    return workers


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _wait(workers: list[_Worker], received: list[int]) -> int | None:
    """Waits for all to end, passes the signals on, and returns the first that failed by itself, if one did."""
    first_to_fail, over_since, passed_on = None, math.inf, False
    while True:
        codes = [worker.process.poll() for worker in workers]
        if first_to_fail is None:
            first_to_fail = next((index for index, code in enumerate(codes) if code and _is_failure(code)), None)
        if None not in codes:
            return first_to_fail
        if (received or -signal.SIGUSR1 in codes) and not passed_on:  # it may have come to a worker that was not ready
            passed_on = True
            _signal(workers, signal.SIGUSR1)
        # A chief that was told to stop may still be saving when others have ended.
        if codes[0] is not None or (first_to_fail is not None and not received):
            over_since = min(over_since, time.monotonic())
        if len(received) > 1 or PORT_TAKEN in codes or time.monotonic() > over_since + STRAGGLERS:
            _signal(workers, signal.SIGKILL)
        time.sleep(0.02)


def _signal(workers: list[_Worker], number: int) -> None:
    for worker in workers:
        worker.process.send_signal(number)


def _is_failure(code: int) -> bool:
    """Whether a worker with this exit code was neither stopped nor ended on account of another."""
    return code != -signal.SIGUSR1 and (code < 0 or (code < 128 and code != LOST))


def _verdict(workers: list[_Worker], first_to_fail: int | None, received: list[int]) -> int:
    """The exit code of the whole; what the chief could not say itself is raised."""
    codes = [worker.process.returncode for worker in workers]
    chief = codes[0]
    stopped_by = received[0] if received else signal.SIGUSR1 if -signal.SIGUSR1 in codes else None
    if chief < 0 and console.is_terminal():
        sys.stderr.write("\r\x1b[2K\x1b[?25h")  # a live bar, and the cursor that it hides
    if stopped_by and (chief < 0 or (chief == LOST and first_to_fail is None)):
        at_once = " at once; what was saved before is whole" if len(received) > 1 else ""
        raise Interrupted(f"interrupted{at_once}", _goes_on([worker.reported() for worker in workers]), stopped_by)
    if chief < 0 or chief == LOST:
        raise _explanation(workers, first_to_fail)
    return 128 + stopped_by if stopped_by and chief >= 128 else chief


def _explanation(workers: list[_Worker], first_to_fail: int | None) -> DlkitError:
    """Why the workers have ended, from how the first of them did or from what the others say of it."""
    reports = [worker.reported() for worker in workers]
    hint = _goes_on(reports) or "start again"
    if first_to_fail is None:
        return _of_report(reports, DlkitError("the workers have lost each other", hint))
    culprit = workers[first_to_fail]
    name = f"worker {first_to_fail}{' (the chief)' if first_to_fail == 0 else ''} of {len(workers)}"
    code = culprit.process.returncode
    if code < 0:
        perhaps = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return DlkitError(f"{name} was killed by {signal.Signals(-code).name}{perhaps}", hint)
    return _of_report(reports, DlkitError(f"{name} failed: {culprit.last_words() or f'exit code {code}'}", hint))


def _goes_on(reports: list[dict[str, Any]]) -> str:
    """How the run of the workers goes on; empty before there is one."""
    if run := reports[0].get("run"):
        return f"`dlkit train --resume {shlex.quote(run)} --workers {len(reports)}` goes on from its last checkpoint"
    return ""


def _of_report(reports: list[dict[str, Any]], otherwise: DlkitError) -> DlkitError:
    for report in reports:
        if "end" in report:
            message, hint, code = report["end"]
            failure = DlkitError(message, hint)
            failure.code = code
            return failure
    return otherwise
