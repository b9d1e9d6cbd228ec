from __future__ import annotations

import errno
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from faceidx.errors import InputError, JobError
from faceidx.images.preprocess import Preprocessing
from faceidx.models import tensor_file
from faceidx.models.file import RECORD_KEY, read_model, read_record, write_model
from faceidx.models.open import ModelOptions, open_model
from faceidx.models.record import VERSION, ModelRecord, fingerprint, weights_digest


def _resave(source: Path, target: Path, changes: dict[str, Any]) -> Path:
    """Copy a model file with changes to its record."""
    content = read_model(source)
    record = {**json.loads(content.record.to_json()), **changes}
    tensors = {f"backbone.{n}": t for n, t in content.backbone.items()}
    tensors |= {f"head.{n}": t for n, t in content.head.items()}
    save_file(tensors, target, metadata={RECORD_KEY: json.dumps(record)})
    return target


def test_a_model_comes_back_as_it_was_written(fake_model_file: Path, tmp_path: Path) -> None:
    content = read_model(fake_model_file)
    write_model(tmp_path / "copy.safetensors", content)
    again = read_model(tmp_path / "copy.safetensors")
    assert again.record == content.record == read_record(fake_model_file)
    assert again.record.class_names == ["anna", "bert", "chloé"]
    for part in ("backbone", "head"):
        ours, theirs = getattr(again, part), getattr(content, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert stat.S_IMODE((tmp_path / "copy.safetensors").stat().st_mode) == 0o600


def test_a_record_without_classifier_or_template_comes_back() -> None:
    record = ModelRecord(
        arch="resnet18",
        embedding_dim=4,
        preprocessing=Preprocessing(
            image_size=(112, 96), color="bgr", mean=(0.1, 0.2, 1 / 3), std=(1.0, 0.7, 0.3)
        ),
    )
    assert ModelRecord.from_json(record.to_json(), "here") == record


def test_a_full_disk_leaves_no_file(
    fake_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> memoryview:
        raise OSError(errno.ENOSPC, "No space left on device")

    content = read_model(fake_model_file)
    monkeypatch.setattr(tensor_file, "_bytes", full)
    with pytest.raises(JobError, match="No space left"):
        write_model(tmp_path / "m.safetensors", content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": VERSION + 1}, "newer faceidx"),
        ({"format": "other"}, "'other'"),
        ({"arch": "vgg"}, "no architecture named 'vgg'"),
        ({"arch": "resnet10"}, "do not fit resnet10"),
        ({"embedding_dim": 16}, "do not fit|does not fit"),
        ({"image_size": [112]}, "makes no sense"),
        ({"std": [0, 1, 1]}, "above 0"),
        ({"class_names": ["one"]}, "classifier does not fit"),
        ({"head": {"nonsense": 1}}, "damaged"),
        ({"embedding_dim": "eight"}, "damaged"),
        ({"class_names": 5}, "damaged"),
        ({"class_names": "abc"}, "damaged"),
        ({"training": None}, "damaged"),
    ],
)
def test_a_record_that_cannot_be_used_is_an_error_that_names_the_file(
    fake_model_file: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = _resave(fake_model_file, tmp_path / "changed.safetensors", changes)
    with pytest.raises(InputError, match=message) as error:
        open_model(ModelOptions(path=path, device="cpu"))
    assert "changed.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_record_that_lacks_a_field_is_an_error(fake_model_file: Path, tmp_path: Path) -> None:
    content = read_model(fake_model_file)
    for name in ("arch", "mean", "training", "format"):
        record = json.loads(content.record.to_json())
        del record[name]
        path = tmp_path / f"{name}.safetensors"
        save_file({"backbone.x": torch.zeros(1)}, path, metadata={RECORD_KEY: json.dumps(record)})
        with pytest.raises(InputError, match=f"{name}.safetensors.*'{name}'"):
            read_model(path)


def test_files_that_are_no_models_of_ours_are_refused(
    fake_model_file: Path, tmp_path: Path
) -> None:
    whole = fake_model_file.read_bytes()
    foreign = tmp_path / "foreign.safetensors"
    save_file({"fc.weight": torch.zeros(2, 2)}, foreign)
    for name, data, message in (
        ("empty", b"", "no readable"),
        ("text", b"not a model at all", "no readable"),
        ("half", whole[: len(whole) // 2], "no readable"),
        ("cut", whole[:-1], "no readable"),
        ("header", b"\xff" * 8 + whole[8:], "no readable"),
        ("foreign", foreign.read_bytes(), "no network that faceidx knows"),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            open_model(ModelOptions(path=path, device="cpu"))
    with pytest.raises(InputError, match="no such model file"):
        open_model(ModelOptions(path=tmp_path / "none.safetensors", device="cpu"))
    with pytest.raises(InputError, match="no such model file"):
        open_model(ModelOptions(path=tmp_path, device="cpu"))


def test_weights_of_a_type_that_we_never_write_are_refused(
    fake_model_file: Path, tmp_path: Path
) -> None:
    content = read_model(fake_model_file)
    content.backbone = {
        n: t.bfloat16() if t.is_floating_point() else t for n, t in content.backbone.items()
    }
    write_model(tmp_path / "bf16.safetensors", content)
    with pytest.raises(InputError, match="unknown type"):
        open_model(ModelOptions(path=tmp_path / "bf16.safetensors", device="cpu"))


# --- fingerprint -------------------------------------------------------------------------------

_PREPROCESSING = Preprocessing(
    image_size=(112, 112), color="rgb", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
_WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((), np.int64)}


def test_the_fingerprint_changes_with_every_fact_it_covers() -> None:
    base = fingerprint("w", _PREPROCESSING, None, flip=False)
    others = [
        fingerprint("v", _PREPROCESSING, None, flip=False),
        fingerprint("w", _PREPROCESSING, "arcface", flip=False),
        fingerprint("w", _PREPROCESSING, None, flip=True),
        *(
            fingerprint("w", replace(_PREPROCESSING, **change), None, flip=False)
            for change in (
                {"image_size": (112, 96)},
                {"image_size": (96, 112)},
                {"color": "bgr"},
                {"mean": (0.5, 0.5, 0.4)},
                {"std": (0.4, 0.5, 0.5)},
            )
        ),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert base == fingerprint("w", replace(_PREPROCESSING), None, flip=False)


def test_the_digest_of_weights_covers_names_types_shapes_and_bytes_but_not_their_order() -> None:
    base = weights_digest(_WEIGHTS)
    a, b = _WEIGHTS["a"], _WEIGHTS["b"]
    changed = a.copy()
    changed[1, 2] = np.nextafter(changed[1, 2], 9)
    others = [
        {"A": a, "b": b},
        {"a": a.view(np.int32), "b": b},
        {"a": a.reshape(3, 2), "b": b},
        {"a": changed, "b": b},
        {"a": a, "b": b.astype(np.int32)},
        {"a": a},
    ]
    assert len({base, *map(weights_digest, others)}) == 1 + len(others)
    assert weights_digest({"b": b, "a": a}) == base
    assert weights_digest({"a": np.asfortranarray(a), "b": b}) == base


def test_a_files_fingerprint_covers_the_backbone_and_neither_classifier_nor_name(
    fake_model_file: Path, tmp_path: Path
) -> None:
    def of(path: Path, flip: bool = False) -> str:
        return open_model(ModelOptions(path=path, device="cpu")).fingerprint(flip=flip)

    base = of(fake_model_file)
    content = read_model(fake_model_file)
    content.head = {}
    content.record.class_names = content.record.head = None
    content.record.training = {"epochs": 99}
    content.backbone = dict(reversed(content.backbone.items()))
    write_model(tmp_path / "renamed.safetensors", content)
    assert of(tmp_path / "renamed.safetensors") == base
    assert of(fake_model_file, flip=True) != base
    name = next(n for n, t in content.backbone.items() if t.is_floating_point())
    content.backbone[name] = content.backbone[name] + 1e-3
    write_model(tmp_path / "other.safetensors", content)
    assert of(tmp_path / "other.safetensors") != base
