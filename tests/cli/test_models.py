"""What `faceidx models` tells people."""

from __future__ import annotations

from pathlib import Path

from faceidx.models.file import read_model, write_model
from tests.conftest import RunCli


def test_facts_of_facts_stand_below_them_a_line_each(
    fake_model_file: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    content = read_model(fake_model_file)
    content.record.training = {"source": {"file": "a\x1b[2J.pth", "sha256": "0f"}, "best": None}
    path = tmp_path / "m.safetensors"
    write_model(path, content)
    out, _ = run_cli("models", "info", path)
    assert "head:\n  loss: softmax\n  scale: 1.0\n" in out
    assert out.endswith("training:\n  source:\n    file: a\\x1b[2J.pth\n    sha256: 0f\n")
    assert "anna" not in out


def test_a_record_that_goes_down_without_end_is_told_all_the_same(
    fake_model_file: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    content = read_model(fake_model_file)
    for _ in range(900):
        content.record.training = {"a": content.record.training}
    path = tmp_path / "m.safetensors"
    write_model(path, content)
    out, _ = run_cli("models", "info", path)
    assert "training:\n  a:\n    a:\n      a: {'a': {'a': " in out


def test_what_a_killed_command_left_goes_with_the_next_one(
    fake_model_file: Path, pictures: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    commands = {
        "m.safetensors": ("models", "export", fake_model_file),
        "who.csv": ("classify", pictures, "--model", fake_model_file),
    }
    for name, words in commands.items():
        left = tmp_path / f".faceidx-tmp-0123456789ab-{name}"
        left.touch()
        run_cli(*words, "--out", tmp_path / name)
        assert not left.exists()
