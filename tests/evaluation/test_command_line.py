"""The command on a report's page, given again, asks for the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faceidx.errors import InputError
from faceidx.evaluation.comparison_report import _command_line as comparison_command
from faceidx.evaluation.report import command_line as pairs_command
from faceidx.evaluation.verdict import VerifyOptions
from faceidx.gallery.lookup import command_line as classify_command
from faceidx.images.detector_file import YUNET, cached_file
from tests.conftest import RunCli
from tests.images.photos import write_toy_detector

Asked = Callable[..., Any]
_PAIRS = "faceidx.evaluation.verification.verify_pairs"
_FOREIGN = (
    *("--image-size", "112", "--mean", "0.1,0.2,0.3", "--std", "0.5", "--color", "bgr"),
    *(
        "--preset",
        "imagenet",
        "--template",
        "facenet",
        "--device",
        "cpu",
        "--engine",
        "torch",
        "--precision",
        "bf16",
    ),
)
_PIPELINE = (
    *("--batch-size", "7", "--workers", "2", "--flip", "--max-pixels", "99"),
    *("--detect", "central", "--detector", "toy.onnx", "--min-face", "33", "--min-score", "0.8"),
)


@pytest.fixture
def asked(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str, tuple[str, ...]], Any]:
    """Run a command up to the library's function of that name; return the options it is given."""
    monkeypatch.chdir(tmp_path)
    write_toy_detector(Path("toy.onnx"))

    def run(function: str, words: tuple[str, ...]) -> Any:
        given: list[Any] = []

        def keep(options: Any, *_: object) -> None:
            given.append(options)
            raise InputError("far enough")

        with monkeypatch.context() as patch:
            patch.setattr(function, keep)
            done = run_cli.ended(*words)
        assert given, done.stderr
        return given[0]

    return run


@pytest.mark.parametrize(
    ("function", "command", "words"),
    [
        (_PAIRS, pairs_command, ("verify-pairs", "pairs.txt", "--embeddings", "e.h5")),
        (
            _PAIRS,
            pairs_command,
            (
                *("verify-pairs", "a list's.txt", "--images", "my photos", "--model", "mfn.onnx"),
                *(*_FOREIGN, *_PIPELINE, "--format", "lfw", "--fmr", "1e-05,0.123456789"),
                *("--folds", "5", "--missing", "reject", "--scores", "$(s).csv", "--seed", "3"),
                *("--report", "v5", "--pictures", "p", "--groups", "g.csv", "--at-fmr", "0.0123"),
                *("--save-threshold", "t.json", "--overwrite"),
            ),
        ),
        (_PAIRS, pairs_command, ("verify-pairs", "--all-pairs", "--embeddings", "e.h5")),
        (_PAIRS, pairs_command, ("verify-pairs", "--report", "r", "--", "-pairs.txt")),
        (
            _PAIRS,
            pairs_command,
            ("verify-pairs", "pairs.txt", "--images", "p", "--model", "m", "--detect", "none"),
        ),
        (
            "faceidx.evaluation.comparison.compare_systems",
            comparison_command,
            (
                *("verify-pairs", "--compare", "one.csv", "two.csv", "--fmr", "0.123456789"),
                *("--folds", "4", "--seed", "1", "--report", "r", "--pictures", "p"),
                *("--format", "scores", "--overwrite"),
            ),
        ),
        (
            "faceidx.gallery.lookup.look_up",
            classify_command,
            (
                *("classify", "list.txt", "--index", "gallery", "--model", "mfn.onnx", *_FOREIGN),
                *(*_PIPELINE, "--top-k", "3", "--threshold", "t.json", "--fusion", "vote"),
                *("--neighbours", "9", "--root", "somewhere", "--out", "who.csv", "--report", "r"),
                *("--pictures", "p", "--gallery-pictures", "g", "--annotate", "a", "--overwrite"),
            ),
        ),
    ],
)
def test_every_option_that_was_given_is_in_the_command_and_no_other(
    asked: Asked, function: str, command: Callable[[Any], str], words: tuple[str, ...]
) -> None:
    wanted = asked(function, words)
    written = shlex.split(command(wanted))
    assert written[:2] == ["faceidx", words[0]]
    assert asked(function, tuple(written[1:])) == wanted
    flags = [word for word in words if word.startswith("--") and word != "--"]
    assert sorted(word for word in written if word.startswith("--")) == sorted(flags)


def test_the_detector_of_the_cache_need_not_be_named(asked: Asked, tmp_path: Path) -> None:
    words = ("verify-pairs", "p.txt", "--images", "p", "--model", "m", "--detector", "toy.onnx")
    options: VerifyOptions = asked(_PAIRS, words)
    assert "--detector toy.onnx" in pairs_command(options)
    detector = options.pipeline.detector
    assert detector is not None
    object.__setattr__(detector, "path", cached_file(YUNET))
    assert "--detector" in pairs_command(options)  # it is looked with whatever the model is
    options.pipeline.detector_given = False
    assert "--detector" not in pairs_command(options)
