from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from faceidx.cli import frame
from faceidx.errors import FaceidxError, InputError, JobError
from faceidx.files import whole_file
from faceidx.progress import Progress
from tests.conftest import RunCli

_HOSTILE = "bad\x1b[31m\x9b2J\n\u202ename"

Run = Callable[..., int]
Configured = Callable[..., dict[str, Any]]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    run_cli: RunCli,  # puts umask and logging back
) -> Run:
    """Run a command made of a function with these words; its exit code."""

    def call(function: Callable[..., Any], *words: str, options: Any = ()) -> int:
        command = frame.common_options(function)
        for option in options:
            command = option(command)
        monkeypatch.setattr(sys, "argv", ["faceidx", *words])
        with pytest.raises(SystemExit) as ended:
            frame.run_and_exit(click.command("try")(command))
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return call


def _raising(error: BaseException) -> Callable[[], Any]:
    def command() -> Any:
        raise error

    return command


# --- exit codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("wrong file"), 2),
        (JobError("disk full"), 1),
        (FaceidxError("something"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (MemoryError(), 1),
        (RuntimeError("can't start new thread"), 1),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 1),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."), 1),
        (PermissionError(13, "Permission denied", "/secret"), 1),
        (click.UsageError("wrong use"), 2),
        (click.BadParameter("wrong value"), 2),
        (click.ClickException("wrong somehow"), 2),
    ],
)
def test_an_error_is_its_exit_code_and_one_line(
    error: BaseException, code: int, run: Run, capfd: Capture
) -> None:
    assert run(_raising(error), "--json") == code
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("faceidx: error: ")
    if isinstance(error, PermissionError):
        assert "/secret: Permission denied" in err


def test_a_done_job_is_0_and_one_with_failures_under_strict_is_3(run: Run, capfd: Capture) -> None:
    assert run(lambda: ({"a": 1}, "done")) == 0
    assert capfd.readouterr().out == "done\n"
    assert run(lambda: ({"a": 1}, "done", frame.EXIT_STRICT)) == 3
    assert capfd.readouterr().out == "done\n"
    assert run(lambda: ({"a": 1}, "done", 0)) == 0


@pytest.mark.parametrize("words", [["--none"], ["extra"]])
def test_wrong_usage_is_2_and_names_the_help(words: list[str], run: Run, capfd: Capture) -> None:
    assert run(lambda: ({}, ""), *words) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "--help" in err


def test_an_empty_path_is_not_the_current_folder(run_cli: RunCli, tmp_path: Path) -> None:
    _, err = run_cli("embed", "", "--model", "m.safetensors", "--out", tmp_path / "o.h5", code=2)
    assert "the path is empty" in err


def test_a_current_folder_that_was_removed_is_named_as_the_reason(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for words in (("embed", "a", "--model", "m.onnx", "--out", "o.h5"), ("models", "list")):
        assert "the current folder was removed" in run_cli(*words, code=2)[1]


@pytest.fixture
def _listening() -> Iterator[None]:
    """Signals as they are in a command in the foreground; a job in the background ignores one."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, default) for number, default in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_listening")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("made_of_it", [ImportError, InputError, JobError, OSError])
def test_an_interrupt_is_130_whatever_a_library_makes_of_it(
    sent: signal.Signals, made_of_it: type[Exception], run: Run, capfd: Capture
) -> None:
    def command() -> Any:
        try:
            os.kill(os.getpid(), sent)
            time.sleep(10)
        except KeyboardInterrupt:
            raise made_of_it("initialization failed") from None

    assert run(command) == 130
    assert capfd.readouterr().err == f"faceidx: error: {frame._INTERRUPTED}\n"
    os.kill(os.getpid(), sent)  # when all is done it changes nothing


@pytest.mark.usefixtures("_listening")
def test_sigterm_leaves_nothing_half_written(run: Run, tmp_path: Path) -> None:
    def command() -> Any:
        with whole_file(tmp_path / "out") as temporary:
            temporary.write_bytes(b"half")
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` does

    assert run(command) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_cost_nothing_but_what_went_there(closed: str, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m faceidx models list {closed}'
    assert subprocess.run(["sh", "-c", command], capture_output=True).returncode == 0
    wrong = f'"{sys.executable}" -m faceidx models info "{tmp_path}/none" {closed}'
    assert subprocess.run(["sh", "-c", wrong], capture_output=True).returncode == 2


def test_without_a_command_the_help_is_shown_as_lines(run_cli: RunCli) -> None:
    out, err = run_cli(code=2)
    assert out == ""
    assert "\n  embed " in err
    assert "faceidx: error" not in err
    assert "\n  embed " in run_cli("--help")[0]
    assert "No such command 'none'" in run_cli("none", code=2)[1]


def test_a_reader_that_goes_away_ends_the_command_without_a_word() -> None:
    # More lines than a pipe holds, to a reader that takes one.
    code = (
        "import click\nfrom faceidx.cli import frame\n"
        "@click.command()\n@frame.common_options\n"
        "def many(): return {}, '\\n'.join(map(str, range(100000)))\n"
        "frame.run_and_exit(many)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) in (0, 1)  # click's versions differ in what it counts as


def test_files_of_any_library_are_for_their_owner_only(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    assert run(lambda: ({"n": path.write_text("x")}, "")) == 0
    assert path.stat().st_mode & 0o777 == 0o600


# --- what is printed ---------------------------------------------------------------------------


def test_json_is_one_object_and_what_cannot_be_computed_is_null(run: Run, capfd: Capture) -> None:
    result = {
        "nan": float("nan"),
        "infinite": [float("inf"), -float("inf"), 1.5],
        "numpy": {"f": np.float32("nan"), "i": np.int64(3), "b": np.bool_(True), 4: (1, 2)},
        "path": Path("/a/b"),
        "none": None,
        "name": _HOSTILE,
        "raw": "\udcff",
    }
    assert run(lambda: (result, "for people"), "--json") == 0
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert out.isascii()
    assert out.strip().isprintable()
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert found == {
        "nan": None,
        "infinite": [None, None, 1.5],
        "numpy": {"f": None, "i": 3, "b": True, "4": [1, 2]},
        "path": "/a/b",
        "none": None,
        "name": _HOSTILE,
        "raw": "\udcff",
    }


def test_names_reach_a_terminal_without_what_could_steer_it(run: Run, capfd: Capture) -> None:
    def command() -> Any:
        logging.getLogger("faceidx").warning("left out %s", _HOSTILE)
        return {}, f"two\nlines {_HOSTILE}"

    assert run(command) == 0
    assert run(_raising(InputError(_HOSTILE))) == 2
    out, err = capfd.readouterr()
    assert out == "two\nlines bad\\x1b[31m\\x9b2J\n\\u202ename\n"
    for text in (out, err):
        assert all(line.isprintable() for line in text.split("\n"))
    assert r"error: bad\x1b[31m\x9b2J\n\u202ename" in err


def test_debug_messages_which_may_name_people_are_shown_on_request_alone(
    run: Run, capfd: Capture
) -> None:
    def command() -> Any:
        logging.getLogger("faceidx").debug("anna/1.jpg")
        logging.getLogger("faceidx").warning("1 picture")
        return {}, ""

    run(command)
    assert capfd.readouterr().err == "WARNING: 1 picture\n"
    run(command, "-v")
    assert capfd.readouterr().err == "DEBUG: anna/1.jpg\nWARNING: 1 picture\n"


def test_there_is_no_bar_where_stderr_is_no_terminal(run: Run, capfd: Capture) -> None:
    def command() -> Any:
        with frame.progress_bar() as progress:
            progress(Progress("embed", 1, 2))
        return {}, ""

    assert run(command) == 0
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_without_markup_or_controls_of_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pty

    main, end = pty.openpty()
    with os.fdopen(end, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "200")
        with frame.progress_bar() as progress:
            progress(Progress("embed", 1, 4, note="[bold]\x1b]0;title\x07"))
            progress(Progress("merge", 4, 4))
    pieces = []
    with contextlib.suppress(OSError):  # what Linux says at the end
        while piece := os.read(main, 1 << 16):
            pieces.append(piece)
    os.close(main)
    shown = b"".join(pieces).decode()
    assert "embed" in shown
    assert "[bold]" in shown
    assert "\x1b]0;title" not in shown


def test_every_command_takes_a_device(run_cli: RunCli) -> None:
    words = ["index info", "index build", "models list", "models info", "align", "cluster", "embed"]
    for word in words:
        _, said = run_cli(*word.split(), "--device", "gpu7", code=2)
        assert "'gpu7' is none of auto, cpu, cuda" in said
        assert "such option" not in run_cli.ended(*word.split(), "--device", "cpu").stderr
    run_cli("models", "list", "--device", "cpu")


# --- --config ----------------------------------------------------------------------------------

_OPTIONS = (
    click.option("--rate", type=float, default=1.0),
    click.option("--from", "from_model", type=frame.FILE),
    click.option("--rates", default="0.5"),
    click.option("--aux-loss", multiple=True),
    click.option("--flip", is_flag=True),
    click.option("--no-names", is_flag=True),
    frame.seed_option,
    frame.device_option,
)


@pytest.fixture
def configured(run: Run, tmp_path: Path) -> Configured:
    """Run with a config of this text and these words; the options that arrive."""

    def call(text: str, *words: str, code: int = 0) -> dict[str, Any]:
        file = tmp_path / "options.toml"
        file.write_text(text)
        found: dict[str, Any] = {}

        def command(**options: Any) -> Any:
            found.update(options)
            return {}, ""

        assert run(command, "--config", str(file), *words, options=_OPTIONS) == code
        return found

    return call


def test_a_flag_beats_the_config_which_beats_the_default(configured: Configured) -> None:
    assert configured("")["rate"] == 1.0
    assert configured("rate = 2.5")["rate"] == 2.5
    assert configured("rate = 2.5", "--rate", "4")["rate"] == 4.0
    assert configured("rate = 2.5", "--rate", "1.0")["rate"] == 1.0
    assert configured("rate = 2.5\nseed = 7")["seed"] == 7


def test_a_flag_that_the_config_sets_is_beaten_by_its_opposite(configured: Configured) -> None:
    text = "flip = true\nno-names = true"
    assert configured(text)["flip"] is configured(text)["no_names"] is True
    assert configured(text, "--no-flip")["flip"] is False
    assert configured(text, "--no-flip", "--flip")["flip"] is True
    assert configured(text, "--names")["no_names"] is False
    assert configured("flip = false", "--flip")["flip"] is True
    assert configured("", "--no-flip")["flip"] is False


def test_options_are_named_in_the_config_as_on_the_command_line(configured: Configured) -> None:
    text = 'from = "m.safetensors"\naux-loss = ["center", "angle"]\nflip = true\ndevice = "cpu"'
    assert configured(text) == {
        "rate": 1.0,
        "rates": "0.5",
        "from_model": Path("m.safetensors"),
        "aux_loss": ("center", "angle"),
        "flip": True,
        "no_names": False,
        "seed": 0,
        "device": "cpu",
    }
    assert configured('aux_loss = ["center"]')["aux_loss"] == ("center",)
    assert configured("seed = 2e6")["seed"] == 2_000_000


def test_lists_in_the_config_are_what_commas_are_on_the_command_line(
    configured: Configured,
) -> None:
    assert configured("rates = [0.1, 1e-6, 1.0]")["rates"] == "0.1,1e-06,1"
    assert configured('rates = ["few", "all"]')["rates"] == "few,all"
    assert configured('aux-loss = "center"')["aux_loss"] == ("center",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed = 1", "has no option --speed"),
        ("from_model = 'x'", "has no option --from_model"),
        ("config = 'x'", "has no option --config"),
        ("[train]\nrate = 1", "has no option --train"),
        ("rate = ", "no readable TOML"),
        ("from = 5", "no path"),
        ("rate = 'fast'", "fast"),
        ("flip = 3", "neither true nor false"),
        ("flip = 'true'", "flip = 'true' is neither true nor false"),
        ("seed = 2.7", "'2.7' is not a valid integer"),
        ("seed = true", "'true' is not a valid integer"),
        ("rate = true", "'true' is not a valid float"),
        ('from = "a\\u0000b"', "holds a NUL"),
        ("seed = -1", "-1"),
        ("seed = 18446744073709551616", "18446744073709551616"),  # which torch has no room for
        ("device = 'gpu'", "none of auto, cpu"),
        ('"\\u001b[31m" = 1', r"\x1b[31m"),
    ],
)
def test_a_wrong_config_is_one_line_and_2(
    text: str, message: str, configured: Configured, capfd: Capture
) -> None:
    configured(text, code=2)
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_config_is_one_line_and_2(run: Run, tmp_path: Path, capfd: Capture) -> None:
    assert run(lambda: ({}, ""), "--config", str(tmp_path / "none.toml")) == 2
    assert "none.toml: no readable TOML file" in capfd.readouterr().err


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_are_taken(device: str, configured: Configured) -> None:
    assert configured("", "--device", device)["device"] == device


@pytest.mark.parametrize(
    "device", ["gpu", "cpu:1", "cuda:x", "cuda:-1", "cuda:²", "", "cuda:", "cpu:"]
)
def test_other_devices_are_2(device: str, configured: Configured) -> None:
    configured("", "--device", device, code=2)


# --- on a terminal -----------------------------------------------------------------------------

_TWO_BARS = """
import logging, sys, time
import click
from faceidx.cli import frame
from faceidx.progress import Progress

@click.command()
@frame.common_options
def command():
    with frame.progress_bar() as progress:
        progress(Progress("first", 1, 2))
        progress(Progress("second", 1, 2))
        time.sleep(0.3)  # a bar is drawn ten times a second
        logging.getLogger("faceidx").warning("what a user must see")
        time.sleep(0.3)
        progress(Progress("second", 2, 2))
    return {}, "done"

sys.argv[1:] = []
frame.run_and_exit(command)
"""


def _screen(written: str) -> str:
    """What a terminal shows in the end, of what bars write: line ends, clearing and going up."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.startswith("\x1b[") and part.endswith("A"):
            row -= int(part[2:-1])
        elif not part.startswith("\x1b["):
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return "\n".join(lines)


def test_no_bar_erases_a_warning_or_runs_into_it() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", _TWO_BARS], stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        written = bytearray()
        with contextlib.suppress(
            OSError
        ):  # how Linux says that nobody is at the other end any more
            while data := os.read(ours, 4096):
                written += data
        os.close(ours)
    assert process.returncode == 0
    shown = _screen(written.decode()).split("\n")
    assert "WARNING: what a user must see" in [line.strip() for line in shown]
    assert [line.split()[0] for line in shown if line.strip()][1:] == ["first", "second", "done"]


def test_the_version_is_told_in_a_checkout_that_is_not_installed_too(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert re.fullmatch(r"faceidx, version \S.*\n", run_cli("--version")[0])

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    monkeypatch.setattr("faceidx.versions.version", missing)
    assert run_cli("--version")[0] == "faceidx, version of a checkout, not installed\n"


def test_names_that_the_users_encoding_has_no_letters_for_are_escaped() -> None:
    script = (
        "import click; from faceidx.cli import frame;"
        "frame.run_and_exit(click.command()(frame.common_options(lambda: ({}, 'caf\xe9 \u5f20'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert (done.returncode, done.stdout) == (0, b"caf\xe9 \\u5f20\n"), done.stderr.decode()
