"""How the faces of the data are aligned goes into the model's record."""

from __future__ import annotations

from pathlib import Path

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
