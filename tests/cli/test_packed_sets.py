"""insightface's `.bin` sets through the commands: judged from the pictures that they carry."""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceidx.embedding.store import EmbeddingFile
from faceidx.images.packed import read_packed
from faceidx.images.sources import open_source
from tests.conftest import RunCli

_SAME = [True, False, True, False, False, True]


def _drawn(number: int) -> bytes:
    """A picture of noise, by turns as PNG and as JPEG."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, ("PNG", "JPEG")[number % 2])
    return file.getvalue()


_PICTURES = [_drawn(number) for number in range(2 * len(_SAME))]


def _pack(path: Path, pictures: list[bytes]) -> Path:
    path.write_bytes(pickle.dumps((pictures, _SAME), 2))
    return path


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A whole set."""
    return _pack(tmp_path / "whole.bin", _PICTURES)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A set in which pictures 3 and 10 cannot be read."""
    pictures = list(_PICTURES)
    pictures[3], pictures[10] = pictures[3][:-40], b"no picture at all"
    return _pack(tmp_path / "damaged.bin", pictures)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The same pictures as files, and the list `pairs.csv` of the same pairs."""
    root = tmp_path / "files"
    root.mkdir()
    for number, content in enumerate(_PICTURES):
        (root / f"{number}.{('png', 'jpg')[number % 2]}").write_bytes(content)
    rows = [f"{2 * k}.png,{2 * k + 1}.jpg,{int(same)}" for k, same in enumerate(_SAME)]
    (root / "pairs.csv").write_text("\n".join(["left,right,label", *rows]))
    return root


@pytest.fixture
def verify(run_cli: RunCli, fake_model_file: Path) -> RunCli:
    return run_cli.of("verify-pairs", "--model", str(fake_model_file), "--device", "cpu")


def _scores(file: Path) -> list[float]:
    with file.open(newline="") as opened:
        return [float(row["score"]) for row in csv.DictReader(opened)]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", [bytes, np.ndarray])
def test_the_scores_are_those_of_the_same_pictures_as_files(
    verify: RunCli, files: Path, tmp_path: Path, protocol: int, kind: type
) -> None:
    set_ = tmp_path / "set.bin"
    carried = _PICTURES if kind is bytes else [np.frombuffer(p, dtype=np.uint8) for p in _PICTURES]
    set_.write_bytes(pickle.dumps((carried, _SAME), protocol))
    result = verify.json(set_, "--scores", tmp_path / "packed.csv")
    assert (result["format"], result["pairs"], result["missing"]) == ("insightface-bin", 6, 0)
    expected = verify.json(
        files / "pairs.csv", "--images", files, "--scores", tmp_path / "files.csv"
    )
    scores = _scores(tmp_path / "packed.csv")
    assert scores == pytest.approx(_scores(tmp_path / "files.csv"), abs=1e-6)
    assert len(set(scores)) == len(_SAME)
    assert (result["auc"], result["fingerprint"]) == (expected["auc"], expected["fingerprint"])


def test_broken_pictures_are_named_and_their_pairs_are_missing(
    verify: RunCli, damaged: Path
) -> None:
    result = verify.json(damaged)
    assert (result["pairs"], result["judged"], result["missing"]) == (6, 4, 2)
    reasons = {m["picture"]: m["reason"] for m in result["missing_pictures"]}
    assert reasons["3"] == "truncated" and reasons["10"].startswith("not a picture")
    assert [(m["line"], m["left"], m["right"], m["genuine"]) for m in result["missing_pairs"]] == [
        (2, "2", "3", False),
        (6, "10", "11", True),
    ]
    assert result["other_policy"]["judged"] == 6


def test_embed_takes_a_set_and_its_file_gives_the_same_figures(
    run_cli: RunCli, verify: RunCli, fake_model_file: Path, damaged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set.h5"
    model = ("--model", fake_model_file, "--device", "cpu", "--engine", "torch")
    words = ("embed", damaged, *model, "--precision", "fp32", "--out", out)
    result = run_cli.json(*words, "--strict", code=3)
    assert (result["images"], result["embedded"], result["failed"]) == (12, 10, 2)
    with EmbeddingFile(out) as file:
        assert file.paths() == sorted(str(n) for n in range(12) if n not in (3, 10))
        assert set(file.identities()) == {""}
        assert dict(file.left().failed)["3"] == "truncated"
    stored = run_cli.json("verify-pairs", damaged, "--embeddings", out)
    fresh = verify.json(damaged)
    assert stored["auc"] == fresh["auc"] and stored["missing_pairs"] == fresh["missing_pairs"]


def test_eval_judges_a_model_by_a_set_alone(
    run_cli: RunCli, verify: RunCli, fake_model_file: Path, packed: Path
) -> None:
    result = run_cli.json("eval", "--model", fake_model_file, "--device", "cpu", "--pairs", packed)
    assert result["verification"]["auc"] == verify.json(packed)["auc"]


def test_a_source_lists_the_pictures_of_a_set_in_the_order_of_their_keys(packed: Path) -> None:
    source = open_source(packed)
    assert [p.key for p in source.pictures] == sorted(str(n) for n in range(12))
    assert [p.data for p in source.pictures] == [_PICTURES[int(p.key)] for p in source.pictures]
    assert {(p.identity, p.path) for p in source.pictures} == {("", packed)}
    assert read_packed(packed) == (_PICTURES, _SAME)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify-pairs", "pairs.csv", "--model", "MODEL"], "pairs.csv names its pictures"),
        (["verify-pairs", "scores.csv", "--model", "MODEL"], "it needs no --model"),
        (["verify-pairs", "pairs.csv", "--images", "."], "--images ROOT needs --model"),
        (["verify-pairs", "../whole.bin"], "give --embeddings FILE.h5, or --model MODEL"),
        (["verify-pairs", "pairs.csv", "--model", "MODEL", "--embeddings", "x.h5"], "not both"),
        (["eval", "--model", "MODEL", "--pairs", "pairs.csv"], "pairs.csv names its pictures"),
        (["eval", "--model", "MODEL", "--pairs", "."], "names its pictures"),
        (["eval", "--model", "MODEL", "--data", ".", "--images", "."], "goes with --pairs"),
        (["eval", "--model", "MODEL", "--pairs", "none.bin"], "none.bin: cannot be read"),
        (["embed", "evil.bin", "--model", "MODEL", "--out", "o.h5"], "it names os.system"),
    ],
)
def test_what_does_not_go_together_is_one_line_and_exit_code_2(
    run_cli: RunCli,
    fake_model_file: Path,
    files: Path,
    packed: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(files)
    Path("scores.csv").write_text("score,label\n0.5,1\n0.25,0\n")
    Path("evil.bin").write_bytes(b"\x80\x02cos\nsystem\nX\x05\x00\x00\x00touch\x85R.")
    done = run_cli.ended(*[str(fake_model_file) if a == "MODEL" else a for a in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and words in done.stderr
