"""Whole runs on every kind of source, and on pictures that cannot be read."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from faceidx.errors import InputError, JobError
from faceidx.progress import Progress
from faceidx.training import batches, epoch, pictures, split
from faceidx.training.batches import _fetch
from faceidx.training.data import UNKNOWN_PERSON, TrainingData
from faceidx.training.job import settle_job
from faceidx.training.launch import settle_hardware
from faceidx.training.loop import train
from faceidx.training.pictures import DiskBank, MemoryBank
from tests.training.conftest import metrics, paint_people, quick, same_weights


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return paint_people(tmp_path / "people", 4, 6)


@pytest.fixture
def from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fits into memory."""
    monkeypatch.setattr(pictures, "free_memory", lambda _: 0)


def _pack(people: Path, shards: Path, count: int) -> Path:
    """Spread the pictures of a folder over tar shards."""
    shards.mkdir()
    files = sorted(people.rglob("*.png"))
    for number in range(count):
        with tarfile.open(shards / f"shard-{number:03}.tar", "w") as tar:
            for file in files[number::count]:
                tar.add(file, file.relative_to(people))
    return shards


def _left_out(run: Path) -> dict[str, str]:
    with (run / "left-out.csv").open() as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def test_a_run_never_lies_among_the_pictures_it_learns_from(small: Path, tmp_path: Path) -> None:
    other = paint_people(tmp_path / "judges", 2, 2)
    for options in (
        quick(small, small / "run"),
        quick(small, other / "run", val=str(other)),
    ):
        with pytest.raises(InputError, match=r"run lies in .* the next time"):
            train(options)
        assert not options.out.exists()


def test_every_source_of_the_same_pictures_trains_the_same_model(
    small: Path, tmp_path: Path
) -> None:
    shards = _pack(small, tmp_path / "shards", 3)
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{p.relative_to(small)}\n" for p in small.rglob("*.png")))
    sources = {
        "plain": (small, {}),
        "folder of shards": (shards, {}),
        "named shards": (shards / "shard-{000..002}.tar", {}),
        "list": (listed, {"root": small}),
    }
    for name, (data, more) in sources.items():
        train(quick(data, tmp_path / name, epochs=1, **more))
        assert metrics(tmp_path / name) == metrics(tmp_path / "plain")
        assert same_weights(
            tmp_path / name / "last.safetensors", tmp_path / "plain/last.safetensors"
        )


def test_streamed_shards_go_on_in_the_middle_of_an_epoch_bit_for_bit(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_disk: None
) -> None:
    monkeypatch.setattr(split, "WINDOW", 8)
    monkeypatch.setattr(batches, "WINDOW", 8)
    monkeypatch.setattr(epoch, "_REPORT_STEPS", 1)
    shards = _pack(small, tmp_path / "shards", 5)
    announced: list[int] = []
    monkeypatch.setattr(DiskBank, "announce", lambda _, rows: announced.append(len(rows)))
    whole, broken = (
        quick(shards, tmp_path / name, epochs=2, batch_size=4, augment="strong", save_steps=1)
        for name in ("whole", "broken")
    )
    train(whole)
    assert sum(announced) == 2 * 5  # each shard once an epoch

    def stop(p: Progress) -> None:
        if p.done > 28:  # in the third of five steps of the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(broken, stop)
    state = json.loads((broken.out / "state/state.json").read_text())["state"]
    assert state["epoch"] == 1 and state["step"] > 0
    train(broken)
    assert metrics(broken.out) == metrics(whole.out)
    assert same_weights(broken.out / "last.safetensors", whole.out / "last.safetensors")


def test_two_processes_stream_shards_as_one_does_unreadable_pictures_included(
    small: Path, tmp_path: Path, from_disk: None
) -> None:
    (small / "person_01/03.png").write_text("no picture")
    shards = _pack(small, tmp_path / "shards", 2)
    for devices in ("1", "2"):
        result = train(quick(shards, tmp_path / devices, epochs=1, val="0", devices=devices))
        assert result["left_out"] == 1
        left_out = _left_out(tmp_path / devices)
        assert list(left_out) == ["person_01/03.png"]
        assert "not a picture" in left_out["person_01/03.png"]
    one, two = (metrics(tmp_path / devices)[0] for devices in ("1", "2"))
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
    assert one["unreadable"] == two["unreadable"] == 1


# --- pictures that cannot be read ----------------------------------------------------------------


def _loaded(data: Path, run: Path, **more: object) -> TrainingData:
    options = quick(data, run, **{"val": "0", **more})
    return settle_job(options, settle_hardware(options), lambda _: None).data


def test_for_an_unreadable_picture_the_next_one_stands_in_with_its_own_label(
    small: Path, tmp_path: Path, from_disk: None
) -> None:
    for name in ("person_01/04.png", "person_01/05.png"):
        (small / name).write_text("no picture")
    data = _loaded(small, tmp_path / "run")
    places = np.array([3, 10, 20])
    shown, stand_ins = _fetch(data, places)
    assert stand_ins.tolist() == [3, 12, 20]
    assert data.labels[stand_ins].tolist() == [0, 2, 3]
    expected, readable = data.bank.fetch(data.rows[stand_ins])
    assert readable.all() and torch.equal(shown, expected)
    assert places.tolist() == [3, 10, 20]
    assert set(data.bank.unreadable) == {"person_01/04.png", "person_01/05.png"}


def test_a_picture_that_vanishes_is_listed_and_training_goes_on(
    small: Path, tmp_path: Path, from_disk: None
) -> None:
    gone = small / "person_02/01.png"

    def vanish(p: Progress) -> None:
        if p.stage == "train" and p.done > 24:
            gone.unlink(missing_ok=True)

    train(quick(small, tmp_path / "run", epochs=3, val="0"), vanish)
    lines = metrics(tmp_path / "run")
    assert (lines[0]["unreadable"], lines[-1]["unreadable"]) == (0, 1)
    assert list(_left_out(tmp_path / "run")) == ["person_02/01.png"]


def test_an_unreadable_picture_judges_nothing(small: Path, tmp_path: Path, from_disk: None) -> None:
    """Black in its place would look like a face that is like no other."""
    for number in range(6):
        (small / f"person_00/{number:02d}.png").write_text("no picture")
    train(quick(small, tmp_path / "run", val=str(small)))
    without = tmp_path / "without"
    paint_people(without, 4, 6)
    for file in (without / "person_00").iterdir():
        file.unlink()
    train(quick(small, tmp_path / "other", val=str(without)))
    run, other = (metrics(tmp_path / name)[-1] for name in ("run", "other"))
    # The others are embedded in other batches, which rounds in another way.
    assert run["val_auc"] == pytest.approx(other["val_auc"], abs=1e-3)
    assert run["val_accuracy"] == other["val_accuracy"]


def test_data_that_vanish_altogether_stop_the_run_and_leave_the_state(
    small: Path, tmp_path: Path, from_disk: None
) -> None:
    def vanish(p: Progress) -> None:
        for file in small.rglob("*.png"):
            file.unlink()

    with pytest.raises(JobError, match=r"cannot be read any more; .* to go on"):
        train(quick(small, tmp_path / "run", epochs=9, val="0"), vanish)
    assert (tmp_path / "run/state/state.json").exists()


def test_more_processes_than_pictures_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"30 processes for 24 pictures .* fewer --devices"):
        train(quick(small, tmp_path / "run", val="0", devices="30"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("devices", "bank"), [("1", MemoryBank), ("2", DiskBank)])
def test_processes_share_pictures_only_where_there_is_room_to_share(
    devices: str,
    bank: type,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pictures, "_SHARED", tmp_path)
    room = shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr(pictures.shutil, "disk_usage", lambda _: room)
    data = _loaded(small, tmp_path / "run", devices=devices)
    assert isinstance(data.bank, bank)
    told = f"for which {tmp_path} has no room, so they are read anew each epoch"
    assert (told in caplog.text) == (bank is DiskBank)
    # One process has no use for memory of which containers have little.
    assert bank is DiskBank or not data.bank.pictures.is_shared()  # type: ignore[attr-defined]


def test_who_judges_does_not_depend_on_which_pictures_can_be_read(tmp_path: Path) -> None:
    """Nor then on whether that was seen at once or only when they were wanted."""
    people = paint_people(tmp_path / "people", 24, 4)
    whole = _loaded(people, tmp_path / "run", val="0.3")
    for file in sorted(people.rglob("03.png"))[::2]:
        file.write_text("no picture")
    broken = _loaded(people, tmp_path / "run", val="0.3")
    assert broken.class_names == whole.class_names
    for own, all_of_it in (
        (broken.rows, whole.rows),
        (broken.validation.classify_rows, whole.validation.classify_rows),
        (broken.validation.verify_rows, whole.validation.verify_rows),
    ):
        assert set(own.tolist()) < set(all_of_it.tolist())
    assert len(broken.left_out) == 12


def test_a_folder_that_judges_is_read_through_links_and_what_it_lacks_is_told(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judges, linked = paint_people(tmp_path / "judges", 3, 3), tmp_path / "linked"
    (judges / "person_00/00.png").write_text("no picture")
    linked.mkdir()
    for person in judges.iterdir():
        (linked / person.name).symlink_to(person, target_is_directory=True)
    (linked / "stray.png").write_bytes((judges / "person_01/00.png").read_bytes())
    more = {"val": str(linked), "follow_links": True}
    judged = _loaded(small, tmp_path / "run", **more).validation
    assert len(judged.verify_rows) == 8
    assert "2 of 10 pictures of --val are unreadable or of nobody" in caplog.text


def test_people_of_the_pairs_who_are_trained_on_are_told(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judges = paint_people(tmp_path / "judges", 2, 3, seed=1)
    pairs = tmp_path / "pairs.csv"
    for known in ("person_00", "a"):
        root = tmp_path / f"with {known}"
        shutil.copytree(judges / "person_00", root / known)
        shutil.copytree(judges / "person_01", root / "b")
        rows = [f"{known}/00.png,{known}/01.png,1", f"{known}/00.png,b/01.png,0"]
        pairs.write_text("\n".join(["left,right,label", *rows]))
        caplog.clear()
        _loaded(small, tmp_path / "run", pairs=pairs, pairs_root=root)
        told = "1 people of --pairs have the names of people who are trained on" in caplog.text
        assert told == (known == "person_00")


def test_a_share_of_which_nothing_could_be_held_out_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = paint_people(tmp_path / "few", 4, 3)
    for val, data in (("0.3", few), ("0", few), ("0.3", paint_people(tmp_path / "more", 4, 4))):
        caplog.clear()
        options = quick(data, tmp_path / "run", val=val)
        settle_job(options, settle_hardware(options), lambda _: None)
        told = "nothing tells good epochs from bad ones" in caplog.text
        assert told == (val == "0.3" and data is few)


def test_pictures_that_judge_and_are_trained_on_too_are_counted(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Links, and copies of the same name; not other pictures of that name."""
    judges = paint_people(tmp_path / "judges", 3, 3, seed=1)
    shutil.copy(small / "person_00/05.png", judges / "person_00")
    (judges / "person_01/04.png").symlink_to(small / "person_01/04.png")
    for folder in (small, judges):
        shutil.copytree(small / "person_02", folder / "other/person_09")
    (small / "other/person_09/03.png").write_text("no picture")
    pairs = tmp_path / "pairs.csv"
    rows = ["left,right,label", "person_00/00.png,person_00/05.png,1"]
    pairs.write_text("\n".join([*rows, "person_00/00.png,person_01/04.png,0"]))
    more = {"pairs": pairs, "pairs_root": judges}
    _loaded(small, tmp_path / "run", val=str(judges), **more)
    assert "7 of 17 pictures of --val are trained on too" in caplog.text
    assert "2 of 3 pictures of --pairs are trained on too" in caplog.text
    caplog.clear()
    packed = _pack(small, tmp_path / "shards", 2)
    _loaded(packed, tmp_path / "run", val=str(judges))
    assert "7 of 17 pictures of --val are trained on too" in caplog.text


def test_strangers_to_a_kept_classifier_whom_nothing_is_judged_by_are_listed(
    small: Path, tmp_path: Path
) -> None:
    first = quick(small, tmp_path / "first", epochs=1)
    train(first)
    (small / "person_00").rename(small / "newcomer")
    more = {"from_model": first.out / "model.safetensors", "stage": "continue"}
    judging = _loaded(small, tmp_path / "run", **more)
    assert (judging.held_out, judging.left_out) == (1, [])
    idle = _loaded(small, tmp_path / "run", val=str(small), **more)
    assert idle.held_out == 0
    assert idle.left_out == [(f"newcomer/0{n}.png", UNKNOWN_PERSON) for n in range(6)]


def test_a_kept_classifier_is_judged_by_pictures_that_it_was_not_trained_on_or_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = paint_people(tmp_path / "people", 24, 4)
    train(quick(people, tmp_path / "first", epochs=1, val="0.3", seed=5))
    first = _loaded(people, tmp_path / "first", val="0.3", seed=5)
    train(
        quick(people, tmp_path / "second", epochs=1, val="0.3", seed=6, **_from(tmp_path / "first"))
    )
    third = _loaded(people, tmp_path / "third", val="0.3", seed=7, **_from(tmp_path / "second"))
    assert first.held_out and len(first.validation.classify_rows)
    for own, before in (
        (third.rows, first.rows),
        (third.validation.classify_rows, first.validation.classify_rows),
        (third.validation.verify_rows, first.validation.verify_rows),
    ):
        assert np.array_equal(own, before)
    assert "trained on" not in caplog.text
    # A larger share takes pictures that were trained on, and so may other data.
    _loaded(people, tmp_path / "third", val="0.5", **_from(tmp_path / "second"))
    assert "second/model.safetensors may have been trained on pictures" in caplog.text
    caplog.clear()
    (people / "person_00/03.png").unlink()
    _loaded(people, tmp_path / "third", val="0.3", **_from(tmp_path / "second"))
    assert "may have been trained on" in caplog.text


def test_nobody_whom_a_kept_classifier_knows_is_held_out_whole(tmp_path: Path) -> None:
    """Its row of the classifier would be pushed away from everybody, and its own face unlearned."""
    people, judges = (paint_people(tmp_path / name, 24, 4) for name in ("people", "judges"))
    train(quick(people, tmp_path / "first", epochs=1, val=str(judges)))
    data = _loaded(people, tmp_path / "second", val="0.3", **_from(tmp_path / "first"))
    assert data.held_out == 0
    assert set(data.labels.tolist()) == set(range(24))


def test_people_held_out_whom_a_model_to_finetune_was_trained_on_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = paint_people(tmp_path / "people", 24, 4)
    train(quick(people, tmp_path / "first", epochs=1, val="0.3", seed=5))
    more = {**_from(tmp_path / "first"), "stage": "finetune", "val": "0.3"}
    _loaded(people, tmp_path / "second", seed=5, **more)
    assert "held out" not in caplog.text
    _loaded(people, tmp_path / "second", seed=6, **more)
    assert "of 4 people held out are people that --from" in caplog.text


def test_a_run_does_not_go_on_where_its_model_was_replaced_by_one_that_held_out_others(
    tmp_path: Path,
) -> None:
    people = paint_people(tmp_path / "people", 6, 6)
    first = quick(people, tmp_path / "first", epochs=1, val="0.3", seed=5)
    train(first)
    more = {"epochs": 2, "val": "0.3", **_from(first.out)}

    def stop(p: Progress) -> None:
        if p.stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(quick(people, tmp_path / "second", **more), stop)
    train(replace(first, seed=6, overwrite=True))
    with pytest.raises(InputError, match="others, as of a --from that was replaced, since"):
        train(quick(people, tmp_path / "second", **more))


def _from(run: Path) -> dict[str, object]:
    return {"from_model": run / "model.safetensors"}


def test_a_run_goes_on_only_where_what_trains_and_judges_is_what_it_was(
    small: Path, tmp_path: Path
) -> None:
    judges, pairs = paint_people(tmp_path / "judges", 3, 3), tmp_path / "pairs.csv"
    rows = ["left,right,label", "person_00/00.png,person_00/01.png,1"]
    rows += ["person_00/00.png,person_01/01.png,0", "person_02/00.png,person_01/01.png,0"]
    pairs.write_text("\n".join(rows))
    more = {"val": str(judges), "pairs": pairs, "pairs_root": small, "epochs": 2}
    options = quick(small, tmp_path / "run", **more)

    def stop(p: Progress) -> None:
        if p.stage == "train":
            raise KeyboardInterrupt

    def goes_on() -> bool:
        with pytest.raises((KeyboardInterrupt, InputError)) as ended:
            train(options, stop)
        return ended.type is KeyboardInterrupt

    assert goes_on() and goes_on()
    picture = (small / "person_00/00.png").read_bytes()
    for new, changed in (
        (judges / "person_01/more.png", "--val have changed"),
        (small / "person_01/more.png", "DATA have changed"),
    ):
        new.write_bytes(picture)
        with pytest.raises(InputError, match=rf"unfinished run, and .*{changed} since; .*--over"):
            train(options, stop)
        new.unlink()
    pairs.write_text("\n".join(rows[:-1]))
    with pytest.raises(InputError, match="the pairs of --pairs"):
        train(options, stop)
    pairs.write_text("\n".join(rows))
    assert goes_on()
