from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from faceidx.embedding.embed import EmbedOptions, embed
from faceidx.embedding.pipeline import PipelineOptions
from faceidx.errors import InputError
from faceidx.evaluation.one_pair import PairOptions, PairVerdict, verify_pair
from faceidx.evaluation.verdict import VerifyOptions
from faceidx.evaluation.verification import verify_pairs
from faceidx.models.open import ModelOptions
from tests.conftest import draw

_FLIPPED = PipelineOptions(flip=True)


@pytest.fixture
def model(fake_model_file: Path) -> ModelOptions:
    # As it is natural to the file: `verify` does not measure what may be faster, and would warn.
    return ModelOptions(path=fake_model_file, device="cpu", engine="torch", precision="fp32")


@pytest.fixture
def options(pictures: Path, model: ModelOptions) -> PairOptions:
    return PairOptions(left=pictures / "p0/0.png", right=pictures / "p3/7.png", model=model)


@pytest.fixture
def pairs(tmp_path: Path, pictures: Path) -> Path:
    """All 45 pairs of the ten pictures with a person; five are genuine."""
    keys = sorted(path.relative_to(pictures).as_posix() for path in pictures.glob("*/*.png"))
    rows = ["left,right,label"]
    for i, left in enumerate(keys):
        rows += [f"{left},{right},{int(left[:2] == right[:2])}" for right in keys[i + 1 :]]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def scored(tmp_path: Path, pairs: Path, pictures: Path, model: ModelOptions) -> dict[str, Any]:
    """What `embed` and `verify-pairs` make of the pairs: a threshold file, and every score."""
    return _scored(tmp_path, pairs, pictures, model, PipelineOptions())


def _scored(
    folder: Path,
    pairs: Path,
    pictures: Path,
    model: ModelOptions,
    pipeline: PipelineOptions,
    dtype: str | None = None,
) -> dict[str, Any]:
    store, scores, file = folder / "e.h5", folder / "s.csv", folder / "t.json"
    embed(EmbedOptions(images=pictures, out=store, model=model, pipeline=pipeline, dtype=dtype))
    judged = verify_pairs(
        VerifyOptions(
            pairs=pairs, embeddings=store, scores=scores, save_threshold=file, at_fmr=0.25
        )
    )
    with scores.open() as lines:
        return {"file": file, "rows": list(csv.DictReader(lines)), "judged": judged.as_json()}


def _edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize("flip", [False, True])
def test_a_pair_scores_as_embed_and_verify_pairs_score_it(
    tmp_path: Path, pairs: Path, pictures: Path, model: ModelOptions, flip: bool
) -> None:
    pipeline = PipelineOptions(flip=flip)
    scored = _scored(tmp_path, pairs, pictures, model, pipeline)
    for row in scored["rows"][::6]:
        verdict = verify_pair(
            PairOptions(
                left=pictures / row["left"],
                right=pictures / row["right"],
                model=model,
                pipeline=pipeline,
                threshold_file=scored["file"],
            )
        )
        assert verdict.score == pytest.approx(float(row["score"]), abs=1e-6)


def test_what_a_score_means_is_counted_among_the_pairs_of_the_list(
    scored: dict[str, Any], options: PairOptions
) -> None:
    verdict = verify_pair(replace(options, threshold_file=scored["file"]))
    record = json.loads(scored["file"].read_text())
    impostors = [float(row["score"]) for row in scored["rows"] if row["label"] == "0"]
    genuine = [float(row["score"]) for row in scored["rows"] if row["label"] == "1"]
    result = verdict.as_json()
    assert (result["threshold"], result["fmr"]) == (record["threshold"], record["fmr"])
    assert result["match"] is (verdict.score >= record["threshold"])
    # The pair is one of the 40 impostor pairs; 5, 6, 8 and 10 of the curve lie 1.6 apart at most.
    # Of its score, which another batch may round otherwise, a little is left out of account.
    above = sum(score >= verdict.score - 1e-6 for score in impostors)
    share = result["fmr_at_score"]
    assert above <= share["false_matches"] <= 1.6 * above
    assert share["impostor"] == len(impostors) == 40
    assert share["at_most"] == share["false_matches"] / 40
    share = result["fnmr_at_score"]
    below = sum(score <= verdict.score for score in genuine)
    assert 0 < below <= share["false_non_matches"] <= below + 1  # the next point, one pair on
    assert share["at_most"] == share["false_non_matches"] / 5


def test_a_score_above_all_impostors_is_reached_by_none(
    scored: dict[str, Any], options: PairOptions
) -> None:
    verdict = verify_pair(replace(options, right=options.left, threshold_file=scored["file"]))
    assert verdict.score == pytest.approx(1, abs=1e-6)
    assert verdict.match is True
    result = verdict.as_json()
    assert result["fmr_at_score"] == {"at_most": 0, "false_matches": 0, "impostor": 40}
    assert result["fnmr_at_score"]["false_non_matches"] == 5


@pytest.mark.parametrize(
    ("score", "match"), [(0.5, True), (math.nextafter(0.5, 0), False), (0.9, True), (-1.0, False)]
)
def test_a_score_at_the_threshold_matches(score: float, match: bool) -> None:
    verdict = PairVerdict(
        left="a",
        right="b",
        score=score,
        threshold=0.5,
        calibrated=None,
        model="m",
        fingerprint="f",
        warnings=[],
    )
    assert verdict.match is match


def test_the_likelihood_ratio_lies_on_the_line_of_the_file(
    scored: dict[str, Any], options: PairOptions
) -> None:
    _edit(scored["file"], calibration={"slope": 10.0, "intercept": -3.0, "cllr": 0.5})
    result = verify_pair(replace(options, threshold_file=scored["file"])).as_json()
    assert result["likelihood_ratio"]["ln"] == pytest.approx(10 * result["score"] - 3)
    assert result["likelihood_ratio"]["log10"] == pytest.approx(
        math.log10(math.exp(10 * result["score"] - 3))
    )
    _edit(scored["file"], calibration=None)
    assert (
        verify_pair(replace(options, threshold_file=scored["file"])).as_json()["likelihood_ratio"]
        is None
    )


def test_the_file_keeps_the_calibration_that_verify_pairs_reports(
    scored: dict[str, Any],
) -> None:
    record, judged = json.loads(scored["file"].read_text()), scored["judged"]
    assert record["calibration"] == {**judged["calibration"], "cllr": judged["cllr"]}
    assert record["min_cllr"] == judged["min_cllr"]
    assert judged["min_cllr"] <= judged["cllr"] <= 1


def test_a_likelihood_ratio_beyond_numbers_is_not_known(
    scored: dict[str, Any], options: PairOptions
) -> None:
    _edit(scored["file"], calibration={"slope": 1.7e308, "intercept": 1.7e308, "cllr": 0.5})
    verdict = verify_pair(replace(options, right=options.left, threshold_file=scored["file"]))
    assert verdict.ln_likelihood_ratio is None


def test_without_a_threshold_there_is_a_score_and_no_verdict(options: PairOptions) -> None:
    result = verify_pair(options).as_json()
    assert -1 <= result["score"] <= 1
    for name in ("threshold", "match", "fmr", "fmr_at_score", "fnmr_at_score", "likelihood_ratio"):
        assert result[name] is None
    assert len(result["warnings"]) == 1
    assert "verify-pairs --save-threshold" in result["warnings"][0]


def test_a_threshold_given_alone_decides_and_says_nothing_of_errors(options: PairOptions) -> None:
    result = verify_pair(replace(options, threshold=-1.0)).as_json()
    assert (result["match"], result["threshold"], result["fmr"]) == (True, -1.0, None)
    assert result["warnings"] == []
    assert verify_pair(replace(options, threshold=1.5)).match is False


def test_a_file_of_another_model_is_refused_with_both_fingerprints(
    scored: dict[str, Any], options: PairOptions
) -> None:
    _edit(scored["file"], fingerprint="ab" * 32, model="other.onnx")
    with pytest.raises(InputError) as raised:
        verify_pair(replace(options, threshold_file=scored["file"]))
    message = str(raised.value)
    own = verify_pair(options).fingerprint[:12]
    for words in (str(scored["file"]), "other.onnx", "abababababab", "tiny.safetensors", own):
        assert words in message
    assert "--save-threshold" in message


def test_a_file_made_without_flip_asks_for_it_to_be_dropped_and_the_other_way_round(
    tmp_path: Path, scored: dict[str, Any], pairs: Path, pictures: Path, options: PairOptions
) -> None:
    with pytest.raises(InputError, match="made without --flip; drop --flip"):
        verify_pair(replace(options, threshold_file=scored["file"], pipeline=_FLIPPED))
    (tmp_path / "flipped").mkdir()
    flipped = _scored(tmp_path / "flipped", pairs, pictures, options.model, _FLIPPED)
    with pytest.raises(InputError, match="made with --flip; give --flip"):
        verify_pair(replace(options, threshold_file=flipped["file"]))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"fingerprint": None, "model": None}, "scores computed elsewhere"),
        ({"made_with": {"precision": "bf16", "engine": "torch"}}, "precision bf16"),
        ({"made_with": {"engine": "onnx"}}, "engine onnx"),
        ({"made_with": {"dtype": "float16"}}, "dtype float16"),
        ({"made_with": {"detect": "largest"}}, "detect largest"),
        ({"fmr_curve": None}, "does not say how often other scores occur"),
    ],
)
def test_what_may_make_a_threshold_unfit_draws_one_warning(
    scored: dict[str, Any], options: PairOptions, fields: dict[str, Any], words: str
) -> None:
    before = verify_pair(replace(options, threshold_file=scored["file"])).warnings
    assert len(before) == 1 and "rests on 10 false matches of 40" in before[0]
    _edit(scored["file"], **fields)
    after = verify_pair(replace(options, threshold_file=scored["file"]))
    (added,) = set(after.warnings) - set(before)
    assert words in added
    assert after.match is not None


@pytest.mark.parametrize(("dtype", "warned"), [("float16", True), ("float32", False)])
def test_a_threshold_of_embeddings_stored_in_fewer_bits_draws_a_warning(
    tmp_path: Path, pairs: Path, pictures: Path, options: PairOptions, dtype: str, warned: bool
) -> None:
    scored = _scored(tmp_path, pairs, pictures, options.model, PipelineOptions(), dtype)
    told = verify_pair(replace(options, threshold_file=scored["file"])).warnings
    assert any(f"made with dtype {dtype}" in warning for warning in told) == warned


def test_a_photo_in_place_of_a_face_draws_a_warning(tmp_path: Path, options: PairOptions) -> None:
    draw(tmp_path / "photo.png", seed=1, size=(64, 48))
    verdict = verify_pair(replace(options, right=tmp_path / "photo.png", threshold=0.5))
    assert len(verdict.warnings) == 1
    assert "1 of 2 pictures are far from the model's shape (16 x 16)" in verdict.warnings[0]


def test_pictures_of_one_name_in_two_folders_are_two_pictures(
    tmp_path: Path, options: PairOptions
) -> None:
    draw(tmp_path / "a/face.png", seed=1)
    draw(tmp_path / "b/face.png", seed=2)
    both = replace(options, left=tmp_path / "a/face.png", right=tmp_path / "b/face.png")
    assert verify_pair(both).score < 0.999
    assert verify_pair(replace(both, left=both.right, right=both.left)).score == pytest.approx(
        verify_pair(both).score, abs=1e-6
    )


def test_a_picture_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, options: PairOptions
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "text.jpg").write_text("no picture")
    for name, words in {
        "none.png": "no such picture",
        "x" * 300: "no such picture",
        "broken.png": "cannot be compared: damaged",
        "text.jpg": "cannot be compared: not a picture",
        ".": "cannot be compared: not a file",
    }.items():
        with pytest.raises(InputError) as raised:
            verify_pair(replace(options, left=tmp_path / name))
        assert str(tmp_path / name) in str(raised.value) and words in str(raised.value)
        with pytest.raises(InputError, match=words):
            verify_pair(replace(options, right=tmp_path / name))


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_a_threshold_that_is_no_number_is_refused(options: PairOptions, threshold: float) -> None:
    with pytest.raises(InputError, match="is no number"):
        verify_pair(replace(options, threshold=threshold))


def test_a_threshold_and_a_file_exclude_each_other(options: PairOptions) -> None:
    with pytest.raises(InputError, match="--threshold-file or --threshold, not both"):
        verify_pair(replace(options, threshold=0.5, threshold_file=Path("t.json")))
