"""What a user did wrong, in their words: a message, a hint and the exit code that the README documents."""

import difflib
import errno
import signal
from collections.abc import Iterable
from pathlib import Path


class DlkitError(Exception):
    """A mistake or a failure that is explained in one line, without a traceback.

    Args:
        message: what is wrong, without a leading "error:".
        hint: the next step, a whole phrase; empty when there is none.
    """

    code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DlkitError):
    """A wrong name, option, value or recipe."""

    code = 2


class DataError(DlkitError):
    """Data or a file is missing, unreadable or not what it claims to be."""

    code = 3


class CheckpointError(DlkitError):
    """A checkpoint is damaged or does not fit the model."""

    code = 4


class DivergedError(DlkitError):
    """The loss or a gradient is no longer a finite number."""

    code = 5


class Interrupted(DlkitError):
    """A signal ended the work; after the first one a training saves. The exit code is the shell's, 128 + signal."""

    def __init__(self, message: str, hint: str, signal_number: int) -> None:
        super().__init__(message, hint)
        self.code = 128 + signal_number


class Stopped(KeyboardInterrupt):
    """What a signal raises that ends the work as Ctrl-C does.

    It is no `Exception`: code that goes on when something fails does not take it for that.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def interrupted(failure: KeyboardInterrupt, hint: str = "") -> Interrupted:
    """The error of a command that Ctrl-C or another signal broke off; `hint` says how to go on, where one can."""
    return Interrupted("interrupted", hint, failure.number if isinstance(failure, Stopped) else signal.SIGINT)


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Returns the name that `word` was probably meant to be, or None when nothing is near.

    Capitals do not count. A name of the same length is somewhat likelier, since one wrong letter is commoner than two
    missing ones: `cifar11` is `cifar10` and not `cifar10_1`. Of equals it is the first.
    """
    likeness = {name: difflib.SequenceMatcher(None, name.casefold(), word.casefold()).ratio() for name in names}
    near = [name for name, ratio in likeness.items() if ratio >= 0.6]
    return max(near, key=lambda name: likeness[name] + 0.05 * (len(name) == len(word)), default=None)


def not_there(what: str, path: Path) -> DataError:
    """An error about a folder or a file, as `what` says, that is not there."""
    moved = "it may have been moved or renamed, or its disk is not mounted"
    hint = moved if path.is_absolute() else "the path counts from the current folder"
    return DataError(f"no such {what}: {path}", hint)


def unreadable(what: str, failure: OSError) -> DataError:
    """An error about a folder or a file that is there, and that the system does not let one read."""
    hint = "`ls -l` says who may read it" if isinstance(failure, PermissionError) else ""
    return DataError(f"cannot read {what}: {str(failure.strerror).lower()}", hint)


def cannot_write(path: Path, failure: OSError, *, full: str = "free some space, or write elsewhere") -> DlkitError:
    """An error about a folder or a file that takes no more, whatever the reason.

    Args:
        path: the place.
        failure: what the system says of it.
        full: the hint when there is no space left.
    """
    is_full = failure.errno in {errno.ENOSPC, errno.EDQUOT}
    reason = failure.strerror or str(failure)
    return DlkitError(f"cannot write to {path}: {reason}", full if is_full else "choose a place that you may write to")


def nothing_to_train_on(name: str, splits: Iterable[str]) -> UsageError:
    """An error about data without a training split; `splits` are those that it has."""
    return UsageError(
        f"{name} has nothing to train on: it has only {' and '.join(splits)}",
        "`dlkit evaluate RUN --data NAME` tests a run on such data",
    )


def unknown(what: str, word: str, names: Iterable[str], listing: str = "") -> UsageError:
    """An error about a name that does not exist, with the nearest one that does.

    Args:
        what: the kind of thing, such as "model".
        word: what the user wrote.
        names: all valid names.
        listing: where the names are listed, such as "`dlkit models` lists all"; empty to name them all.
    """
    names = list(names)
    match = nearest(word, names)
    parts = [f"did you mean `{match}`?"] if match else []
    parts.append(listing or "known: " + ", ".join(names))
    return UsageError(f"unknown {what}: {word}", " ".join(parts))
