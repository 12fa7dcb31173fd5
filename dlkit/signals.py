"""The signals that end the work, and what is done when one comes, wherever the work is then.

A training notes the first one and saves (`noted`, `dlkit.train.loop.stop_signals`); elsewhere it breaks off what is
being done (`raised`), or waits until it can be (`deferred`).
"""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from dlkit.errors import Stopped

# Ctrl-C; what `kill` and most systems send; batch systems, before the time is up; a terminal that is closed.
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

TOGETHER = 1.0  # seconds within which signals of the end of one session come


def note(received: list[int], number: int) -> bool:
    """Adds a signal to those that have come; returns whether it is a second one, of somebody who does not want to wait.

    SIGHUP is no second one and has none: of a terminal that is closed it comes from the system and from the shell, and
    at the end of a session beside SIGTERM.

    Example:
        >>> received = []
        >>> [note(received, number) for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM)]
        [False, False, False, True]
    """
    if not received or received == [signal.SIGHUP]:
        received[:] = [number]
        return False
    if number == signal.SIGHUP:
        return False
    received.append(number)
    return True


@contextmanager
def handled(handler: Callable[[int, FrameType | None], Any], numbers: Iterable[int] = STOP) -> Iterator[None]:
    """In the body `handler` takes these signals. SIGHUP that is ignored stays so, as `nohup` wants it.

    Outside the main thread signals are someone else's, and nothing is done.
    """
    before: dict[int, Any] = {}
    try:
        with suppress(ValueError):  # not in the main thread
            for number in numbers:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextmanager
def noted() -> Iterator[list[int]]:
    """In the body the signals do nothing but to be noted in this list; more than one of them ask for haste."""
    received: list[int] = []
    with handled(lambda number, _: note(received, number)):
        yield received


@contextmanager
def raised() -> Iterator[None]:
    """In the body SIGTERM, SIGUSR1 and SIGHUP raise `dlkit.errors.Stopped`, as Ctrl-C raises `KeyboardInterrupt`.

    So what is being written is removed or becomes whole, and whoever works with this process is told. Each of them
    raises, since code that may not raise, such as a finalizer, passes over what it is interrupted by. But what comes
    within a second of SIGHUP, or SIGHUP within one of another, does not: such are sent together, and the second would
    break off what the first began.
    """
    last, at = 0, -math.inf

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last, at
        now = time.monotonic()
        if signal.SIGHUP in {number, last} and now - at < TOGETHER:
            return
        last, at = number, now
        raise Stopped(number)

    with handled(stop, [number for number in STOP if number != signal.SIGINT]):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """In the body signals wait; the first one is delivered after it, in place of what the body may have raised.

    For the import of native code, whose initialization takes an exception of a handler for a failure of its own.
    """
    received: list[int] = []
    try:
        with handled(lambda number, _: received.append(number), [n for n in STOP if callable(signal.getsignal(n))]):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])
