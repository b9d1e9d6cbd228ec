from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceidx.embedding.store import Origin
from faceidx.errors import InputError
from faceidx.evaluation.calibration import Calibration
from faceidx.evaluation.roc import OperatingPoint, Roc, roc_curve, tar_at_far
from faceidx.evaluation.tail import lower_tail, upper_tail
from faceidx.evaluation.threshold import cosine_threshold, read_threshold, write_threshold

_ORIGIN = Origin(
    model="tiny.onnx",
    fingerprint="f" * 64,
    preprocessing={"engine": "onnx", "precision": "fp32", "detect": "none", "flip": True},
)
_CALIBRATION = Calibration(slope=12.5, intercept=-4.0, cllr=0.3)


@pytest.fixture
def roc() -> Roc:
    rng = np.random.default_rng(1)
    genuine = np.arange(500) < 200
    return roc_curve((rng.normal(size=500) + 2 * genuine).astype(np.float32), genuine)


@pytest.fixture
def point(roc: Roc) -> OperatingPoint:
    return tar_at_far(roc, [0.02])[0]


@pytest.fixture
def file(tmp_path: Path, roc: Roc, point: OperatingPoint) -> Path:
    path = tmp_path / "t.json"
    write_threshold(
        path, point, Path("pärs.txt"), _ORIGIN, roc=roc, calibration=_CALIBRATION, min_cllr=0.25
    )
    return path


def _edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def test_what_is_written_is_read_back(file: Path, roc: Roc, point: OperatingPoint) -> None:
    read = read_threshold(file)
    assert (read.threshold, read.target_fmr) == (point.threshold, 0.02)
    assert (read.fmr, read.fnmr) == (point.fmr, point.fnmr)
    assert (read.false_matches, read.impostor) == (point.false_matches, 300)
    assert (read.false_non_matches, read.genuine) == (200 - point.true_matches, 200)
    assert (read.model, read.fingerprint, read.pairs) == ("tiny.onnx", "f" * 64, "pärs.txt")
    assert read.made_with == {"engine": "onnx", "precision": "fp32", "detect": "none"}
    assert read.fmr_curve == upper_tail(roc.impostor_scores)
    assert read.fnmr_curve == lower_tail(roc.genuine_scores)
    assert (read.calibration, read.min_cllr) == (_CALIBRATION, 0.25)


def test_the_file_says_how_many_impostors_score_as_high(file: Path, roc: Roc) -> None:
    record = json.loads(file.read_text())
    for entry in record["fmr_curve"]:
        assert entry["false_matches"] == np.count_nonzero(roc.impostor_scores >= entry["score"])
    for entry in record["fnmr_curve"]:
        assert entry["false_non_matches"] == np.count_nonzero(roc.genuine_scores <= entry["score"])
    counts = [entry["false_matches"] for entry in record["fmr_curve"]]
    assert counts[:8] == [1, 2, 3, 4, 5, 6, 8, 10]
    assert counts[-1] == 300


def test_rejected_pairs_have_no_score_that_others_could_reach(tmp_path: Path) -> None:
    genuine, scores = np.arange(20) < 10, np.linspace(1, 0, 20)
    rejected = np.isin(np.arange(20), [0, 9, 19])
    roc = roc_curve(scores, genuine, rejected=rejected)
    write_threshold(
        tmp_path / "t.json",
        tar_at_far(roc, [0.1])[0],
        Path("pairs.txt"),
        _ORIGIN,
        roc=roc,
        calibration=None,
        min_cllr=None,
    )
    read = read_threshold(tmp_path / "t.json")
    assert (read.genuine, read.impostor) == (10, 10)
    assert (read.fnmr_curve[-1].count, read.fmr_curve[-1].count) == (8, 9)
    assert read.fnmr_curve[0].score == scores[8]


def test_a_class_of_which_all_pairs_are_rejected_has_no_curve(tmp_path: Path) -> None:
    genuine = np.arange(20) < 10
    roc = roc_curve(np.linspace(1, 0, 20), genuine, rejected=genuine)
    write_threshold(
        tmp_path / "t.json",
        tar_at_far(roc, [0.1])[0],
        Path("p"),
        None,
        roc=roc,
        calibration=None,
        min_cllr=None,
    )
    read = read_threshold(tmp_path / "t.json")
    assert read.fnmr_curve == () and read.fmr_curve[-1].count == 10


def test_scores_from_elsewhere_leave_the_model_open(
    tmp_path: Path, roc: Roc, point: OperatingPoint
) -> None:
    path = tmp_path / "t.json"
    write_threshold(path, point, Path("s.csv"), None, roc=roc, calibration=None, min_cllr=None)
    read = read_threshold(path)
    assert (read.model, read.fingerprint, read.made_with) == (None, None, {})
    assert (read.calibration, read.min_cllr) == (None, None)


def test_a_file_of_version_1_without_curves_is_still_read(file: Path) -> None:
    later = ("fmr_curve", "fnmr_curve", "calibration", "min_cllr", "made_with")
    whole = read_threshold(file)
    _edit(file, lambda record: [record.pop(name) for name in later])
    read = read_threshold(file)
    assert (read.threshold, read.fmr) == (whole.threshold, whole.fmr)
    assert (read.fmr_curve, read.fnmr_curve, read.made_with) == ((), (), {})
    assert (read.calibration, read.min_cllr) == (None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(format="faceidx-gallery"), "no faceidx-threshold file"),
        (lambda r: r.pop("format"), "no faceidx-threshold file"),
        (lambda r: r.update(version=2), "newer faceidx; update"),
        (lambda r: r.update(version=0), "version is no whole number"),
        (lambda r: r.update(version=True), "version is no whole number"),
        (lambda r: r.pop("version"), "version is no whole number"),
        (lambda r: r.pop("threshold"), "threshold is no finite number"),
        (lambda r: r.update(threshold="0.3"), "threshold is no finite number"),
        (lambda r: r.update(threshold=True), "threshold is no finite number"),
        (lambda r: r.update(threshold=10**400), "too large"),
        (lambda r: r.pop("fmr"), "fmr is no finite number"),
        (lambda r: r.update(fmr=0.5), "fmr is not 6 of 300"),
        (lambda r: r.update(fnmr=-1), "fnmr is not"),
        (lambda r: r.update(impostor=0), "no impostor pair"),
        (lambda r: r.update(impostor=300.0), "impostor is no whole number"),
        (lambda r: r.update(false_matches=301), "more than there are: 300"),
        (lambda r: r.update(false_matches=-1), "false_matches is no whole number"),
        (lambda r: r.update(model=["x"]), "model is no text"),
        (lambda r: r.update(fingerprint="f" * 5000), "fingerprint is no text"),
        (lambda r: r.update(made_with=[1]), "made_with is no object"),
        (lambda r: r.update(made_with={"engine": 1}), "engine is no text"),
        (lambda r: r.update(fmr_curve={}), "fmr_curve is no list"),
        (lambda r: r.update(fmr_curve=[1]), "fmr_curve is no list"),
        (lambda r: r["fmr_curve"][-1].update(false_matches=301), "counts more than 300"),
        (lambda r: r["fmr_curve"].reverse(), "fmr_curve turns back"),
        (lambda r: r["fmr_curve"][3].update(score=99.0), "fmr_curve turns back"),
        (lambda r: r["fmr_curve"][3].update(false_matches=1), "fmr_curve turns back"),
        (lambda r: r["fmr_curve"][3].update(false_matches=2.5), "false_matches is no whole"),
        (lambda r: r["fnmr_curve"][3].update(score=-99.0), "fnmr_curve turns back"),
        (lambda r: r["fnmr_curve"][0].pop("score"), "score is no finite number"),
        (lambda r: r.update(calibration=[1, 2]), "calibration is no object"),
        (lambda r: r["calibration"].update(slope=-1), "slope of the calibration is negative"),
        (lambda r: r["calibration"].pop("intercept"), "intercept is no finite number"),
        (lambda r: r.update(min_cllr="none"), "min_cllr is no finite number"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(
    file: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    _edit(file, change)
    with pytest.raises(InputError) as raised:
        read_threshold(file)
    message = str(raised.value)
    assert message.startswith(str(file)) and words in message and "\n" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JSON"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "no JSON"),
        (b"left,right,label\n", "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b'{"a":' * 100_000, "no JSON"),
        (b'{"format": "faceidx-threshold", "version": 1, "threshold": NaN}', "no JSON"),
        (b'{"format": "faceidx-threshold", "version": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'["faceidx-threshold"]', "no faceidx-threshold file"),
        (b" " * (1 << 20) + b"{}", "larger than"),
    ],
)
def test_what_is_no_threshold_file_is_refused_in_one_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        read_threshold(path)
    assert "\n" not in str(raised.value)


def test_a_number_beyond_all_is_refused(file: Path) -> None:
    threshold = read_threshold(file).threshold
    file.write_text(file.read_text().replace(repr(threshold), "1e999", 1))
    with pytest.raises(InputError, match="threshold is no finite number"):
        read_threshold(file)


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.json", "no such threshold file"), (".", "no such"), ("x" * 300, "cannot be read")],
)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_threshold(tmp_path / name)


def test_a_damaged_file_is_read_or_refused_but_never_a_surprise(file: Path) -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    refused = 0
    for number in range(1000):
        damaged = whole.copy()
        places = rng.integers(0, len(whole), rng.integers(1, 4))
        damaged[places] = rng.choice(list(b'0123456789.-eE{}[],: nul"\x00\xff'), len(places))
        end = len(whole) if number % 10 else int(rng.integers(1, len(whole)))
        file.write_bytes(damaged[:end].tobytes())
        try:
            read = read_threshold(file)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert np.isfinite(read.threshold) and 0 <= read.fmr <= 1
    assert 400 < refused < 1000


def test_a_threshold_that_no_score_can_reach_or_miss_draws_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert [cosine_threshold(given) for given in (-1, "0.5", 1.0000001)] == [-1, 0.5, 1.0000001]
    assert not caplog.text
    assert [cosine_threshold(given) for given in (2, "-1.1")] == [2.0, -1.1]
    assert caplog.text.count("is no cosine: all scores lie between -1 and 1") == 2
    with pytest.raises(InputError, match="--threshold inf is no number"):
        cosine_threshold("inf")
