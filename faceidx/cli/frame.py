"""What every command shares: common options, one JSON object, progress bars, exit codes."""

from __future__ import annotations

import functools
import io
import json
import logging
import math
import os
import re
import signal
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from faceidx.cli.paths import FILE, refuse_lost_inputs
from faceidx.errors import FaceidxError, InputError
from faceidx.escape import for_terminal
from faceidx.progress import Progress, ProgressCallback, silent

# That torch takes.
_LARGEST_SEED = 2**64 - 1
EXIT_FAILED, EXIT_USAGE, EXIT_STRICT, EXIT_INTERRUPTED = 1, 2, 3, 130

_NO_MEMORY = "out of memory; give a smaller batch or a part of the data"
# How libraries say it that have no MemoryError for it: torch, the loader of libraries, threads.
_WORDS_OF_NO_MEMORY = (
    *("out of memory", "cannot allocate memory", "can't allocate memory"),
    *("failed to map segment", "can't start new thread"),
)
_INTERRUPTED = "interrupted; run the same command again to go on"


def run_and_exit(command: click.Command) -> NoReturn:
    """Run a command; an error becomes one line on stderr and the exit code it stands for."""
    os.umask(0o077)  # faces and names are for their owner only, whichever library writes them
    _open_what_is_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name may hold letters that the user's encoding has not: escaped, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    interrupts = _Interrupts()
    try:
        code = _run(command, interrupts)
        sys.stdout.flush()
    except click.exceptions.Exit as wanted:
        code = wanted.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = EXIT_USAGE
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        code = _fail(f"{error.format_message()}{where}", EXIT_USAGE)
    except click.ClickException as error:
        code = _fail(error.format_message(), EXIT_USAGE)
    except InputError as error:
        code = _fail(str(error), EXIT_USAGE)
    except FaceidxError as error:
        code = _fail(str(error), EXIT_FAILED)
    except (KeyboardInterrupt, click.Abort):
        code = _fail(_INTERRUPTED, EXIT_INTERRUPTED)
    except MemoryError:
        code = _fail(_NO_MEMORY, EXIT_FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{where}{error.strerror or error}", EXIT_FAILED)
    except Exception as error:
        if not any(word in str(error).lower() for word in _WORDS_OF_NO_MEMORY):
            raise
        code = _fail(_NO_MEMORY, EXIT_FAILED)
    interrupts.ignore()  # it is done, and nothing is left to be interrupted
    sys.exit(code if isinstance(code, int) else 0)


def _run(command: click.Command, interrupts: _Interrupts) -> Any:
    try:
        return command.main(standalone_mode=False, prog_name="faceidx")
    except click.exceptions.Exit:
        raise
    except Exception:
        if interrupts.seen:  # whatever was made of it: "no face detector", say, by an import
            raise KeyboardInterrupt from None
        raise


class _Interrupts:
    """Ctrl-C and SIGTERM, known as such whatever libraries make of them while being imported.

    A batch system or a container ends a job by SIGTERM, at which Python would die on the spot and
    leave what is half written; as the first process of a container it would not even do that.
    """

    def __init__(self) -> None:
        self.seen = False
        # Not where it is ignored, as for a job in the background, or where somebody else listens.
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        self._ours = [n for n, default in defaults.items() if signal.getsignal(n) is default]
        for number in self._ours:
            signal.signal(number, self._hear)

    def ignore(self) -> None:
        """Listen no more."""
        for number in self._ours:
            signal.signal(number, lambda *_: None)

    def _hear(self, number: int, _: object) -> None:
        self.seen = True
        if number == signal.SIGTERM:  # `timeout` sends it twice, the second amidst the clearing up
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt


def _open_what_is_closed() -> None:
    """Have standard streams lead somewhere: a file of ours would get the number of a closed one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def _fail(message: str, code: int) -> int:
    click.echo(f"faceidx: error: {for_terminal(message)}", err=True)
    return code


class _ConfigOption(click.Option):
    """`--config`, which brings a `--no-FLAG` for each `--FLAG` that a file may set to true."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        options = [p for p in ctx.command.params if isinstance(p, click.Option) and p.is_bool_flag]
        for option in options:
            opposite = [_opposite(flag) for flag in option.opts if flag.startswith("--")]
            parser.add_option(
                obj=option, opts=opposite, dest=option.name, action="store_const", const=False
            )


def _opposite(flag: str) -> str:
    return f"--{flag[5:]}" if flag.startswith("--no-") else f"--no-{flag[2:]}"


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, `--config` and `-v` to a command.

    The command's function returns `(result, summary)`, or `(result, summary, exit code)`: a
    mapping for `--json` and a text for people; this wrapper prints the one that was asked for.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    @click.option(
        "--config",
        cls=_ConfigOption,
        type=FILE,
        is_eager=True,
        expose_value=False,
        callback=_read_config,
        help="TOML file of options; a flag given here beats it, --no-FLAG a flag that is true.",
    )
    @click.option("-v", "--verbose", is_flag=True, help="Name pictures and people on stderr.")
    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, verbose: bool, **kwargs: Any) -> None:
        _set_up_logging(verbose)
        _require_folder()
        refuse_lost_inputs(click.get_current_context())
        result, summary, *code = function(*args, **kwargs)
        if as_json:
            # Kept to ASCII: any terminal and any encoding takes it, whatever the names hold.
            click.echo(json.dumps(_finite(result), allow_nan=False))
        elif summary:
            click.echo(_lines_for_terminal(summary))
        if code and code[0]:
            raise click.exceptions.Exit(code[0])

    return wrapped


def _require_folder() -> None:
    """Relative paths mean nothing in a folder that is gone, and MKL ends the process there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the current folder was removed; change to one that is there") from None


def device_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device auto|cpu|cuda|cuda:N`."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        callback=_check_device,
        help="auto, cpu, cuda or cuda:N.",
    )(function)


def take_device(command: click.Command) -> None:
    """Have a command, or all of a group, take `--device` where it has no use for one.

    So scripts and files of options can give it to all. It stays out of the help.
    """
    if isinstance(command, click.Group):
        for one in command.commands.values():
            take_device(one)
    elif all(param.name != "device" for param in command.params):
        hidden = click.Option(
            ["--device"], expose_value=False, hidden=True, callback=_check_device, default="auto"
        )
        command.params.append(hidden)


def seed_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--seed`."""
    return click.option(
        "--seed",
        type=click.IntRange(0, _LARGEST_SEED),
        default=0,
        show_default=True,
        help="Seed of all chance.",
    )(function)


def aligned(rows: Iterable[Sequence[object]]) -> str:
    """Lay rows out as a table for the terminal, names in it made safe; None is an empty cell."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else for_terminal(str(value))


def _check_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise click.BadParameter(f"{value!r} is none of auto, cpu, cuda, cuda:N", ctx, param)
    return value


def _read_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Make a TOML file's values the defaults of this command's options."""
    if value is None:
        return
    try:
        table = tomllib.loads(value.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{value}: no readable TOML file ({error})") from None
    options = [p for p in ctx.command.params if isinstance(p, click.Option) and p is not param]
    by_flag = {flag.lstrip("-"): option for option in options for flag in option.opts}
    values: dict[str, Any] = {}
    for flag, given in table.items():
        option = by_flag.get(flag.replace("_", "-"))
        if option is None or option.name is None:
            raise InputError(f"{value}: {ctx.command_path} has no option --{flag}")
        if isinstance(option.type, click.Path) and not isinstance(given, str):
            raise InputError(f"{value}: {flag} = {given} is no path; put it in quotes")
        given = _as_on_the_command_line(option, given)
        if isinstance(given, str) and "\0" in given:
            raise InputError(f"{value}: {flag} holds a NUL, which no option can")
        if option.is_flag and not isinstance(given, bool):
            raise InputError(f"{value}: {flag} = {given!r} is neither true nor false")
        values[option.name] = given
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _as_on_the_command_line(option: click.Option, given: Any) -> Any:
    """Values as text, which options check as strictly as on the command line; flags stay.

    Numbers or words of a list are joined by commas; one value of a repeatable option is a list.
    """
    if option.is_flag:
        return given
    if option.multiple:
        return list(map(_text, given if isinstance(given, list) else [given]))
    return ",".join(map(_text, given)) if isinstance(given, list) else _text(given)


def _text(value: Any) -> str:
    """A value of TOML as it is typed: `true`, and 2e6 of what is counted as 2000000."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _finite(value: Any) -> Any:
    """Replace what JSON has no word for: NaN and infinities by null, NumPy numbers by plain."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _lines_for_terminal(text: str) -> str:
    return "\n".join(for_terminal(line) for line in text.split("\n"))


class _Formatter(logging.Formatter):
    """Log records may name pictures and people, and names are hostile."""

    def format(self, record: logging.LogRecord) -> str:
        return _lines_for_terminal(super().format(record))


class _ToStderr(logging.StreamHandler):
    """Writes to what stands for stderr just now: above a progress bar, which would erase it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _set_up_logging(verbose: bool) -> None:
    handler = _ToStderr()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("matplotlib", "PIL", "h5py", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """Yield a callback that draws a bar on stderr, with rate and time left, if it is a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(p: Progress) -> None:
            if p.stage not in tasks:
                for task in tasks.values():
                    bars.stop_task(task)
                tasks[p.stage] = bars.add_task(escape(p.stage), total=p.total, rate="", note="")
            task = tasks[p.stage]
            speed = bars.tasks[bars.task_ids.index(task)].speed
            rate = f"{speed:,.0f} {p.unit}/s" if speed else ""
            note = escape(for_terminal(p.note))
            bars.update(task, completed=p.done, total=p.total, rate=rate, note=note)

        yield report
