"""How the faces of the data are aligned goes into the model's record."""

from __future__ import annotations

from pathlib import Path

import pytest

from faceidx.errors import InputError
from faceidx.models.file import read_record
from faceidx.training.loop import train
from tests.training.conftest import paint_people, quick


def test_a_model_keeps_the_alignment_of_the_folder_it_was_trained_on(tmp_path: Path) -> None:
    data = paint_people(tmp_path / "faces", 4, 4)
    (data / "align.json").write_text('{"template": "arcface"}')
    train(quick(data, tmp_path / "run", epochs=1, warmup_epochs=0))
    model = tmp_path / "run" / "model.safetensors"
    assert read_record(model).template == "arcface"
    (data / "align.json").unlink()
    finetune = {"epochs": 1, "warmup_epochs": 0, "stage": "finetune", "from_model": model}
    train(quick(data, tmp_path / "next", **finetune))
    assert read_record(tmp_path / "next" / "model.safetensors").template == "arcface"
    with pytest.raises(InputError, match=r"--template facenet: .* says arcface; leave it out"):
        train(quick(data, tmp_path / "other", **finetune, template="facenet"))


def test_a_list_of_aligned_faces_has_the_alignment_of_their_folder(tmp_path: Path) -> None:
    data = paint_people(tmp_path / "faces", 4, 4)
    (data / "align.json").write_text('{"template": "arcface"}')
    people = tmp_path / "people.csv"
    paths = sorted(path.relative_to(data) for path in data.rglob("*.png"))
    people.write_text("path\n" + "".join(f"{path}\n" for path in paths))
    train(quick(people, tmp_path / "run", epochs=1, warmup_epochs=0, root=data))
    assert read_record(tmp_path / "run" / "model.safetensors").template == "arcface"


def test_the_alignment_of_faces_that_were_aligned_elsewhere_can_be_given(tmp_path: Path) -> None:
    data = paint_people(tmp_path / "faces", 4, 4)
    train(quick(data, tmp_path / "run", epochs=1, warmup_epochs=0, template="facenet"))
    assert read_record(tmp_path / "run" / "model.safetensors").template == "facenet"
