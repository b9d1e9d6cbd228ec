from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from faceidx.embedding.store import EmbeddingFile
from faceidx.images.preprocess import load
from faceidx.images.sources import open_source
from faceidx.models.open import ModelOptions, open_model
from tests.conftest import FAKE_DIM, FAKE_SIZE, RunCli, draw
from tests.models.onnx_graphs import reshape_graph


@pytest.fixture
def embed(run_cli: RunCli, fake_model_file: Path) -> RunCli:
    # As it is natural to the file; what is measured to be faster rounds in another way.
    way = ("--device", "cpu", "--engine", "torch", "--precision", "fp32")
    return run_cli.of("embed", "--model", str(fake_model_file), *way)


def test_json_has_the_promised_fields(embed: RunCli, pictures: Path, tmp_path: Path) -> None:
    (pictures / "notes.md").touch()
    result = embed.json(pictures, "--out", tmp_path / "out.h5")
    assert result["seconds"] > 0
    assert result["images_per_second"] > 0
    promised = {
        "out": str(tmp_path / "out.h5"),
        "images": 11,
        "embedded": 11,
        "failed": 0,
        "no_face": 0,
        "ignored": 1,
        "dim": FAKE_DIM,
        "model": "tiny.safetensors",
        "device": "cpu",
        "engine": "torch",
        "precision": "fp32",
    }
    assert {name: result[name] for name in promised} == promised


def test_the_file_holds_what_the_model_gives(
    embed: RunCli, pictures: Path, fake_model_file: Path, tmp_path: Path
) -> None:
    out, _ = embed(pictures, "--out", tmp_path / "out.h5", "--flip", "--batch-size", 3)
    assert "11 of 11 pictures embedded" in out
    model = open_model(ModelOptions(path=fake_model_file, device="cpu"))
    with EmbeddingFile(tmp_path / "out.h5") as file:
        assert file.origin.fingerprint == model.fingerprint(flip=True)
        assert file.origin.preprocessing["batch_size"] == 3
        stack = np.stack([load(pictures / key, FAKE_SIZE) for key in file.paths()])
        raw = model.embed(stack, flip=True)
        expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(file.vectors(), expected, rtol=1e-3, atol=1e-4)


def test_the_name_of_a_model_may_be_any_bytes(
    run_cli: RunCli, pictures: Path, tmp_path: Path
) -> None:
    graph = reshape_graph(tmp_path / "m.onnx", batch="n", side=16, target=[-1, 768])
    model = graph.rename(tmp_path / os.fsdecode(b"m\xe9.onnx"))
    way = ("--device", "cpu", "--mean", "0.5", "--std", "0.5", "--color", "rgb")
    embed = run_cli.of("embed", "--model", str(model), *way)
    assert embed.json(pictures, "--out", tmp_path / "o.h5")["model"] == "m%E9.onnx"
    with EmbeddingFile(tmp_path / "o.h5") as file:
        assert file.origin.model == "m%E9.onnx"


def test_a_list_and_one_picture_are_taken_as_well(
    embed: RunCli, pictures: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("path,identity\np0/1.png,anna\np0/0.png,bert\n")
    embed(listed, "--root", pictures, "--out", tmp_path / "list.h5")
    embed(pictures / "nobody.png", "--out", tmp_path / "one.h5")
    with EmbeddingFile(tmp_path / "list.h5") as file:
        assert (file.paths(), file.identities()) == (["p0/0.png", "p0/1.png"], ["bert", "anna"])
    with EmbeddingFile(tmp_path / "one.h5") as file:
        assert (file.paths(), file.identities()) == (["nobody.png"], [""])


def test_failed_pictures_are_counted_and_listed_and_strict_makes_them_3(
    embed: RunCli, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "p0" / "bad\x1b[31m.jpg").write_text("no picture")
    assert "(1 failed" in embed(pictures, "--out", tmp_path / "a.h5")[0]
    result = embed.json(pictures, "--out", tmp_path / "b.h5", "--strict", code=3)
    assert result["failed"] == 1
    with h5py.File(tmp_path / "b.h5") as file:
        assert list(file["failed/paths"].asstr()) == ["p0/bad\x1b[31m.jpg"]


def test_when_all_fail_it_is_1(embed: RunCli, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    _, err = embed(tmp_path, "--out", tmp_path / "out.h5", code=1)
    assert "none of 1 pictures could be embedded" in err
    assert not (tmp_path / "out.h5").exists()


def test_wrong_input_is_2_and_one_line(
    embed: RunCli, run_cli: RunCli, pictures: Path, tmp_path: Path
) -> None:
    done = tmp_path / "done.h5"
    done.touch()
    (tmp_path / "none").mkdir()
    onnx = reshape_graph(tmp_path / "m.onnx", batch=1)
    out = ("--out", tmp_path / "out.h5")
    for command, words, message in (
        (embed, (pictures, "--out", done), "--overwrite"),
        (embed, (tmp_path / "none", *out), "holds no pictures"),
        (embed, (tmp_path / "nowhere", *out), "no such file"),
        (embed, (pictures,), "Missing option '--out'"),
        (embed, (pictures, *out, "--batch-size", "many"), "neither auto nor a number"),
        (embed, (pictures, *out, "--batch-size", "0"), "neither auto nor a number"),
        (embed, (pictures, *out, "--batch-size", "²"), "neither auto nor a number"),
        (embed, (pictures, *out, "--mean", "1,2"), "not three numbers"),
        (embed, (pictures, *out, "--preset", "imagenet"), "drop --preset"),
        (embed, (pictures, *out, "--root", pictures), "leave out --root"),
        (run_cli, ("embed", pictures, *out), "Missing option '--model'"),
        (run_cli, ("embed", pictures, *out, "--model", tmp_path / "x"), "no such model file"),
        (run_cli, ("embed", pictures, *out, "--model", onnx), "--preset imagenet|insightface"),
    ):
        printed, err = command(*words, code=2)
        assert printed == ""
        assert message in err
        assert err.count("\n") == 1, err
    assert not (tmp_path / "out.h5").exists()


def test_names_too_long_for_the_file_system_are_one_line(
    embed: RunCli, pictures: Path, tmp_path: Path
) -> None:
    for words in (
        (pictures, "--out", tmp_path / ("x" * 300)),
        ("y" * 300, "--out", tmp_path / "out.h5"),
        (pictures, "--out", tmp_path / "out.h5", "--model", "z" * 300),
    ):
        done = embed.ended(*words)
        assert done.returncode in (1, 2)
        assert done.stderr.startswith("faceidx: error: ")
        assert done.stderr.count("\n") == 1


def test_a_foreign_model_takes_its_facts_from_options_or_config(
    run_cli: RunCli, pictures: Path, tmp_path: Path
) -> None:
    onnx = reshape_graph(tmp_path / "m.onnx", batch=1, side=16)
    given = ["--mean", "0.1,0.2,0.3", "--std", "0.5", "--color", "bgr"]
    words = ("embed", pictures, "--model", onnx, "--device", "cpu")
    run_cli(*words, *given, "--out", tmp_path / "flags.h5")
    config = tmp_path / "facts.toml"
    config.write_text('mean = [0.1, 0.2, 0.3]\nstd = 0.5\ncolor = "bgr"\nbatch-size = 32\n')
    run_cli(*words, "--config", config, "--out", tmp_path / "config.h5")
    with EmbeddingFile(tmp_path / "flags.h5") as one, EmbeddingFile(tmp_path / "config.h5") as two:
        assert one.origin == two.origin
        facts = one.origin.preprocessing
        assert (facts["mean"], facts["std"], facts["color"]) == ([0.1, 0.2, 0.3], [0.5] * 3, "bgr")
        np.testing.assert_array_equal(one.vectors(), two.vectors())


def test_an_interrupt_is_130_and_the_same_command_goes_on(
    embed: RunCli, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faceidx.embedding import shards

    monkeypatch.setattr(shards, "SHARD_SIZE", 4)
    write = shards.write_shard

    def interrupted(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", interrupted)
        _, err = embed(pictures, "--out", tmp_path / "out.h5", code=130)
    assert "run the same command again to go on" in err
    result = embed.json(pictures, "--out", tmp_path / "out.h5")
    first = next(shards.split_into_shards(open_source(pictures).pictures))
    assert (result["resumed"], result["embedded"]) == (len(first.pictures), 11)


def test_a_path_that_is_not_utf8_can_be_reported(
    embed: RunCli, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / os.fsdecode(b"caf\xe9.h5")
    result = embed.json(pictures, "--out", out)
    assert os.fsencode(result["out"]) == os.fsencode(out)
    printed, _ = embed(pictures, "--out", out, "--overwrite")
    assert r"caf\udce9.h5" in printed


def test_names_of_pictures_stay_out_of_what_is_printed(embed: RunCli, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "secretname" / "1.png", seed=0, size=(99, 50))
    (tmp_path / "in" / "secretname" / "2.png").touch()
    done = embed.ended(tmp_path / "in", "--out", tmp_path / "out.h5", "--json")
    assert done.returncode == 0
    assert "WARNING" in done.stderr
    assert "secretname" not in done.stdout + done.stderr
    assert json.loads(done.stdout)["failed"] == 1
