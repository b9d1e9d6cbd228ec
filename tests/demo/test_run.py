"""What the demo does with a folder; that it runs the whole way is seen by `make demo`."""

from __future__ import annotations

from pathlib import Path

import pytest

from faceidx.demo import run
from faceidx.demo.run import DemoOptions, demo
from faceidx.errors import InputError, JobError


def test_an_unfinished_demo_is_not_gone_on_with_from_another_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise JobError("killed while drawing")

    monkeypatch.setattr(run, "write_people", fail)
    for seed in (3, 3):
        with pytest.raises(JobError, match="killed"):
            demo(DemoOptions(out=tmp_path / "demo", seed=seed))
    with pytest.raises(InputError, match="an unfinished demo with --seed 3, not 0; give that"):
        demo(DemoOptions(out=tmp_path / "demo"))


def test_a_file_and_a_folder_of_other_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out, message in ((tmp_path / "file", "is a file"), (tmp_path, "holds something else")):
        with pytest.raises(InputError, match=message):
            demo(DemoOptions(out=out))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_folder_of_the_users_own_is_taken_for_an_unfinished_demo(tmp_path: Path) -> None:
    # Names as the README has them: the demo would use that run, and replace the table.
    (tmp_path / "run").mkdir()
    (tmp_path / "who.csv").write_text("the user's own")
    with pytest.raises(InputError, match="holds something else"):
        demo(DemoOptions(out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "who.csv"}
    (tmp_path / "demo.json").write_text("{}")
    with pytest.raises(InputError, match=r"demo.json is damaged \('seed'\); give another --out"):
        demo(DemoOptions(out=tmp_path))
