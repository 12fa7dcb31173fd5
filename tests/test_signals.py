"""Signals that end the work, wherever it is: one line, their exit code, and nobody who goes on waiting."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import typer

from dlkit import signals, workers
from dlkit.cli import main
from dlkit.errors import Stopped, interrupted

INT, TERM, USR1, HUP = signals.STOP


@pytest.fixture(autouse=True)
def _hangup_is_not_ignored():
    """As it is where the tests run under `nohup`."""
    before = signal.signal(HUP, signal.SIG_DFL)
    yield
    signal.signal(HUP, before)


def handlers():
    return [signal.getsignal(number) for number in signals.STOP]


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("numbers", "received", "hasty"),
    [
        ([TERM], [TERM], [False]),
        ([INT, INT], [INT, INT], [False, True]),
        ([USR1, TERM, INT], [USR1, TERM, INT], [False, True, True]),
        ([HUP, HUP, HUP], [HUP], [False, False, False]),  # of the system, and of the shell to its jobs
        ([TERM, HUP], [TERM], [False, False]),  # the end of a session
        ([HUP, TERM, INT], [TERM, INT], [False, False, True]),
    ],
)
def test_a_second_signal_asks_for_haste_and_the_end_of_a_terminal_does_not(numbers, received, hasty):
    come = []
    assert [signals.note(come, number) for number in numbers] == hasty
    assert come == received
    with signals.noted() as listed:
        for number in numbers:
            send(number)
        assert listed == received


def test_handlers_are_put_back_and_what_nohup_ignores_stays_ignored():
    before = handlers()
    signal.signal(HUP, signal.SIG_IGN)
    with pytest.raises(ZeroDivisionError), signals.noted() as received:
        send(HUP)
        send(USR1)
        assert received == [USR1]
        raise ZeroDivisionError
    assert handlers() == [*before[:3], signal.SIG_IGN]


def test_outside_the_main_thread_signals_are_left_alone():
    before, found = handlers(), []

    def work():
        with signals.raised(), signals.noted():
            found.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_each_signal_is_raised_but_for_those_that_come_together_with_the_end_of_a_terminal(monkeypatch):
    """A library may pass over one of them: the next one ends the work all the same."""
    clock, raised = [0.0], []
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    with signals.raised():
        for at, number in ((0, HUP), (0.1, HUP), (0.2, TERM), (5, TERM), (5.1, USR1), (5.2, HUP), (60, HUP)):
            clock[0] = at
            try:
                send(number)
            except KeyboardInterrupt as failure:
                raised.append((at, interrupted(failure).code))
    assert raised == [(0, 128 + HUP), (5, 128 + TERM), (5.1, 128 + USR1), (60, 128 + HUP)]
    assert not issubclass(Stopped, Exception), "code that goes on when something fails would pass over it"


def test_a_signal_while_a_question_waits_has_its_own_code(monkeypatch, capsys):
    def ask(*_, **__):
        try:
            send(TERM)
        except KeyboardInterrupt:
            raise typer.Abort from None

    monkeypatch.setattr("dlkit.models.names", ask)
    assert main(["models"]) == 143
    assert capsys.readouterr() == ("", "error: interrupted\n")


def test_a_signal_waits_for_what_must_not_be_broken_off_and_takes_the_place_of_its_failure():
    before, done = handlers(), []
    with signals.raised():
        with pytest.raises(Stopped) as caught, signals.deferred():
            send(TERM)
            send(USR1)
            done.append(1)
            raise ZeroDivisionError
        assert (done, caught.value.number) == ([1], TERM)
        with pytest.raises(KeyboardInterrupt), signals.deferred():
            send(INT)
            done.append(2)
    assert done == [1, 2]
    assert handlers() == before


def test_an_interrupt_while_libraries_are_imported_is_no_internal_error(tmp_path):
    """Native code that is being initialized takes an exception for its own failure, and says so in words of its own."""
    (tmp_path / "keras.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    [None for _ in range(1000)]\n"
        "except KeyboardInterrupt:\n    raise RuntimeError('initialization failed') from None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "dlkit", "train", "lenet"], check=False, capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (USR1, 138), (HUP, 129)])
def test_a_signal_to_any_command_is_one_line_and_its_code(monkeypatch, capsys, number, code):
    before = handlers()
    monkeypatch.setattr("dlkit.models.names", lambda: send(number))
    assert main(["models"]) == code
    assert capsys.readouterr() == ("", "error: interrupted\n")
    assert handlers() == before


def test_in_a_worker_signals_are_left_to_who_started_it(monkeypatch):
    before, found = handlers(), []
    monkeypatch.setattr(workers, "launcher", object)
    monkeypatch.setattr("dlkit.models.names", lambda: found.append(handlers()) or [])
    assert main(["models"]) == 0
    assert found
    assert all(each == before for each in found)


def test_who_is_interrupted_does_not_wait_for_threads():
    """One of a library that waits for a network, say."""
    code = """
import threading, time
from dlkit import cli

def main(arguments):
    threading.Thread(target=time.sleep, args=(300,)).start()
    print("said")
    return 143

cli.main = main
cli.run()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (143, "said\n", "")
