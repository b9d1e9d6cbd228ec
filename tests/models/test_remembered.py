from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch

from faceidx.models import remembered
from faceidx.models.remembered import Measured, keep, machine_key, recall

_FAST, _SLOW = Measured(rate=100.0, seconds=1.0), Measured(rate=10.0, seconds=0.5)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "faceidx" / "engines.json"


def test_what_was_measured_is_found_again_by_its_key(cache: Path) -> None:
    keep("a", {"torch bf16": _FAST, "onnx fp32": _SLOW})
    keep("b", {"torch fp32": _SLOW})
    assert recall("a") == {"torch bf16": _FAST, "onnx fp32": _SLOW}
    assert recall("b") == {"torch fp32": _SLOW}
    assert recall("c") == {}
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"format": 1}',
        b'{"format": 2, "measured": {"a": {}}}',
        b'{"format": 1, "measured": []}',
        b'{"format": 1, "measured": {"a": 3}}',
        b'{"format": 1, "measured": {"a": {"torch bf16": {"rate": "fast"}}}}',
    ],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(content: bytes, cache: Path) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(content)
    assert recall("a") == {}
    keep("a", {"torch bf16": _FAST})
    assert recall("a") == {"torch bf16": _FAST}


def test_the_oldest_models_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 2)
    for key in ("a", "b", "a", "c"):
        keep(key, {"torch bf16": _FAST})
    assert [bool(recall(key)) for key in "abc"] == [True, False, True]


def test_without_a_cache_folder_nothing_is_remembered_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep("a", {"torch bf16": _FAST})
    assert recall("a") == {}


def test_a_key_is_for_one_machine_one_installation_and_one_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = machine_key("weights", device="cpu")
    assert machine_key("weights", device="cpu") == key
    assert machine_key("others", device="cpu") != key
    monkeypatch.setattr(remembered, "version_of", lambda _: "99")
    assert machine_key("weights", device="cpu") != key


def test_a_gpu_is_known_by_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {"cuda": "small", "cuda:0": "small", "cuda:1": "large"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", cards.__getitem__)
    keys = {name: machine_key("weights", device=name) for name in [*cards, "cpu"]}
    assert keys["cuda"] == keys["cuda:0"] != keys["cuda:1"]
    assert keys["cpu"] not in {keys["cuda"], keys["cuda:1"]}
