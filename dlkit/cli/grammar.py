"""What all commands have in common: the options that each of them takes, plain help, and mistakes in our words."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from dlkit import console
from dlkit.errors import UsageError, nearest

Function = TypeVar("Function", bound=Callable[..., Any])

_COMMON: dict[str, Any] = {
    "json": Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print no notes and no progress.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Print what the libraries have to say, too.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Print the traceback of a failure.")],
}


def taking_common_options(function: Function) -> Function:
    """Adds `--json`, `-q`, `-v` and `--debug` to the parameters of a command; they end up in `console.settings`."""

    @functools.wraps(function)
    def command(**arguments: Any) -> Any:
        for name in _COMMON:
            if arguments.pop(name):
                setattr(console.settings, name, True)
        return function(**arguments)

    own = inspect.signature(function, eval_str=True)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _COMMON.items()
    ]
    signature = own.replace(parameters=[*own.parameters.values(), *common])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return command  # type: ignore[return-value]


class _Group(TyperGroup):
    """A group that knows which command an unknown one was meant to be."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word not in self.commands:
            match = nearest(word, self.commands)
            suggestion = f"did you mean `{ctx.command_path} {match}`? " if match else ""
            path = ctx.command_path.partition(" ")[2]
            raise UsageError(
                f"unknown command: {path} {word}".replace("  ", " "),
                f"{suggestion}`{ctx.command_path} --help` lists all",
            )
        return super().resolve_command(ctx, args)


class _Command(TyperCommand):
    """A command that says of each mistake of usage which command it was made with."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as failure:
            failure.ctx = getattr(failure, "ctx", None) or ctx  # type: ignore[attr-defined]
            raise


class App(typer.Typer):
    """A group of commands. Its help is plain text: quick, the same in a pipe, and with its brackets left alone."""

    def __init__(self, about: str, *, add_completion: bool = False) -> None:
        super().__init__(
            cls=_Group,
            help=about,
            no_args_is_help=True,
            add_completion=add_completion,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def add(self, function: Callable[..., Any], name: str | None = None) -> None:
        """Registers a function as a command that takes the common options; its name is the function's."""
        self.command(name or function.__name__.rstrip("_"), cls=_Command)(taking_common_options(function))


def in_our_words(failure: typer.TyperException) -> UsageError:
    """The mistake of usage that Typer found, as one line and a hint.

    Typer keeps the classes of its mistakes private, so this goes by their attributes.
    """
    context: Any = getattr(failure, "ctx", None)
    parameter = getattr(failure, "param", None)
    option = getattr(failure, "option_name", None)
    help_line = f"`{context.command_path if context else 'dlkit'} --help` shows how"
    if option and hasattr(failure, "possibilities"):
        known = [word for each in context.command.get_params(context) for word in each.opts if word.startswith("-")]
        match = nearest(option, known)
        return UsageError(f"unknown option: {option}", f"did you mean `{match}`? {help_line}" if match else help_line)
    if option:
        return UsageError(f"{option} {'needs a' if 'requires' in failure.message else 'takes no'} value", help_line)
    if parameter and hasattr(failure, "param_type"):
        return UsageError(f"{_name(parameter)} is missing", help_line)
    if parameter:
        return _wrong_value(_name(parameter), failure, help_line)
    if extra := re.fullmatch(r"Got unexpected extra argument\(s\) \((.*)\)", failure.message, re.DOTALL):
        return UsageError(f"too many arguments: {extra[1]}", help_line)
    return UsageError(failure.message[:1].lower() + failure.message[1:].rstrip("."), help_line)


def _wrong_value(name: str, failure: typer.TyperException, help_line: str) -> UsageError:
    message = failure.message.rstrip(".").removeprefix("Value error, ")
    if choices := re.fullmatch(r"'(.*)' is not one of (.*)", message, re.DOTALL):
        words = re.findall(r"'([^']*)'", choices[2])
        match = nearest(choices[1], words)
        hint = f"did you mean `{match}`?" if match else help_line
        return UsageError(f"{name} must be one of {', '.join(words)}, not {choices[1]}", hint)
    if message.startswith("Input should be "):  # of pydantic, which knows what came
        rule = message.removeprefix("Input should be ").partition(", unable to parse")[0]
        rule = rule.replace("a valid integer", "an integer").replace("a valid ", "a ")
        came: list[dict[str, Any]] = getattr(failure.__cause__, "errors", list)()
        return UsageError(f"{name} must be {rule}" + (f", not {came[0]['input']}" if came else ""), help_line)
    return UsageError(f"{name}: {message[:1].lower()}{message[1:]}", help_line)


def _name(parameter: Any) -> str:
    """A parameter as the user sees it: its longest option, or the operand's name in capitals."""
    options = [word for word in parameter.opts if word.startswith("-")]
    return max(options, key=len) if options else str(parameter.metavar or parameter.name).upper()
