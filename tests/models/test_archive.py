from __future__ import annotations

import io
import os
import pickle
import pickletools
import random
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from faceidx.errors import InputError
from faceidx.models.archive import read_tensors
from tests.conftest import RunCli


class _Runs:
    """Runs a command of the system when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self._mark}'",)


def _weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_tensors_are_read_as_they_are(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save({"net": _weights(), "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    found = read_tensors(path)
    assert found.keys() == {"net.a.weight", "net.a.bias"}
    assert torch.equal(found["net.a.weight"], _weights()["a.weight"])


@pytest.mark.parametrize("how", ["archive", "legacy", "pickle 2", "pickle 4"])
def test_a_command_in_a_pickle_is_never_run(how: str, tmp_path: Path, run_cli: RunCli) -> None:
    path, mark = tmp_path / "m.pth", tmp_path / "mark"
    content = {**_weights(), "x": _Runs(mark)}
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(how[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "archive")
    for words in (("info", path), ("import", path, "--out", tmp_path / "out.safetensors")):
        _, told = run_cli("models", *words, "--preset", "insightface", code=2)
        assert "refused" in told
        assert told.count("\n") == 1
    if how == "archive":
        assert "system" in told
    assert not mark.exists()
    assert not (tmp_path / "out.safetensors").exists()
    os.system(f"touch '{mark}'")  # the command itself works
    assert mark.exists()


def test_a_whole_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(InputError, match=r"model\.state_dict\(\)"):
        read_tensors(tmp_path / "m.pth")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "m.pt"))
    with pytest.raises(InputError, match="TorchScript archive, which holds code"):
        read_tensors(tmp_path / "m.pt")


def _rewritten(path: Path, change: Callable[[zipfile.ZipInfo, bytes], bytes], **how: Any) -> Path:
    """A torch.save file whose entries went through `change`."""
    torch.save(_weights(), path)
    with zipfile.ZipFile(path) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", **how) as archive:
        for info, data in entries:
            archive.writestr(info.filename, change(info, data))
    return path


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    def blow_up(info: zipfile.ZipInfo, data: bytes) -> bytes:
        return bytes(50_000_000) if info.filename.endswith("data/0") else data

    path = _rewritten(tmp_path / "m.pth", blow_up, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="it is compressed"):
        read_tensors(path)


def test_an_archive_that_claims_more_than_it_has_is_refused(tmp_path: Path) -> None:
    path = _rewritten(tmp_path / "m.pth", lambda _, data: data)
    data = bytearray(path.read_bytes())
    start = data.rindex(b"PK\x01\x02")  # the last entry of the directory: 24 bytes in, its size
    data[start + 20 : start + 28] = (2_000_000_000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(InputError, match="claim more bytes than the file has"):
        read_tensors(path)


def test_a_huge_index_is_refused(tmp_path: Path) -> None:
    def grow(info: zipfile.ZipInfo, data: bytes) -> bytes:
        return data + bytes(17 << 20) if info.filename.endswith("data.pkl") else data

    with pytest.raises(InputError, match="its index"):
        read_tensors(_rewritten(tmp_path / "m.pth", grow))


def test_another_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="none that torch"):
        read_tensors(tmp_path / "m.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_claims_more_numbers_than_the_file_holds_is_refused(
    legacy: bool, tmp_path: Path
) -> None:
    claimed = {"a": torch.ones(1).expand(10**9)}
    path = tmp_path / "m.pth"
    torch.save(claimed, path, _use_new_zipfile_serialization=not legacy)
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match="claims more numbers"):
        read_tensors(path)


def test_tensors_whose_bytes_are_left_out_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"net": _weights()}, path, _use_new_zipfile_serialization=False)
    with path.open("rb") as file:
        for _ in range(4):
            deque(pickletools.genops(file), 0)
        start = file.tell()
        deque(pickletools.genops(file), 0)
        size = file.tell() - start
    data = path.read_bytes()
    names = pickle.loads(data[start : start + size])
    assert len(names) > 1
    path.write_bytes(data[:start] + pickle.dumps(names[:-1], 2) + data[start + size :])
    with pytest.raises(InputError, match="the bytes of 1 tensors are not in it"):
        read_tensors(path)


def test_tensors_that_are_not_plain_are_refused(tmp_path: Path) -> None:
    for number, odd in enumerate((torch.eye(3).to_sparse(), torch.empty(3, device="meta"))):
        torch.save({"a": odd}, tmp_path / f"{number}.pth")
        with pytest.raises(InputError, match="no plain tensor"):
            read_tensors(tmp_path / f"{number}.pth")


def test_dictionaries_in_circles_come_to_an_end(tmp_path: Path) -> None:
    circle: dict[str, Any] = {"w": torch.ones(2)}
    circle["again"], circle["more"] = circle, {"up": circle}
    torch.save(circle, tmp_path / "m.pth")
    assert list(read_tensors(tmp_path / "m.pth")) == ["w"]


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files_are_read_or_refused_in_one_line(legacy: bool, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"net": _weights()}, buffer, _use_new_zipfile_serialization=not legacy)
    whole, rng, path = buffer.getvalue(), random.Random(5), tmp_path / "m.pth"
    refused = 0
    for _ in range(150):
        data = bytearray(whole[: rng.randrange(1, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            read_tensors(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
            assert str(path) in str(error)
    assert refused > 30


@pytest.mark.parametrize("version", ["2.9.1", "2.6.0+cu124", "1.13.1"])
def test_a_torch_that_reads_unsafely_is_refused(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(_weights(), tmp_path / "m.pth")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(InputError, match=r"CVE-2026-24747.*2\.10 or newer"):
        read_tensors(tmp_path / "m.pth")
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    assert read_tensors(tmp_path / "m.pth")
