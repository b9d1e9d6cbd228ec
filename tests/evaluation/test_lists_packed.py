"""insightface's `.bin`: read as Python 2 and 3 write it, and never run."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from faceidx.errors import InputError
from faceidx.evaluation.lists import PairList, read_list

_PICTURES = [b"\xff\xd8\xff\xe0 picture %d \x00\x80" % n for n in range(6)]
_LABELS = [True, False, True]


def _read(path: Path, data: bytes, name: str = "auto") -> PairList:
    path.write_bytes(data)
    found = read_list(path, format=name)
    assert isinstance(found, PairList)
    return found


def _check(found: PairList) -> None:
    assert found.format == "insightface-bin" and found.pictures == _PICTURES
    assert found.keys == ["0", "1", "2", "3", "4", "5"]
    assert found.left.tolist() == [0, 2, 4] and found.right.tolist() == [1, 3, 5]
    assert found.genuine.tolist() == _LABELS and found.lines.tolist() == [1, 2, 3]
    assert found.folds is None


def _python2() -> bytes:
    """What Python 2's cPickle writes in protocol 2: `str` as SHORT_BINSTRING and BINSTRING."""
    out = b"\x80\x02]q\x01("
    for n, picture in enumerate(_PICTURES):
        size = b"U" + bytes([len(picture)]) if n % 2 else b"T" + struct.pack("<i", len(picture))
        out += size + picture + b"q" + bytes([n + 2])
    out += b"e]q\x30(" + b"".join(b"\x88" if label else b"\x89" for label in _LABELS) + b"e"
    return out + b"\x86q\x31."


def test_a_set_written_by_python_2_is_read(tmp_path: Path) -> None:
    assert pickle.loads(_python2(), encoding="bytes") == (_PICTURES, _LABELS)
    _check(_read(tmp_path / "lfw.bin", _python2()))


def test_ten_equal_blocks_are_the_folds_that_lfw_has(tmp_path: Path) -> None:
    labels = [True, True, False, False] * 10
    set_of = (b"%d" % n for n in range(80))
    found = _read(tmp_path / "lfw.bin", pickle.dumps((list(set_of), labels)))
    assert found.folds is not None and found.folds.tolist() == [k // 4 for k in range(40)]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [tuple, list])
def test_sets_of_every_protocol_are_read(tmp_path: Path, protocol: int, kind: type) -> None:
    _check(_read(tmp_path / "lfw.bin", pickle.dumps(kind((_PICTURES, _LABELS)), protocol)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_bytes_and_of_truth_values_are_read(tmp_path: Path, protocol: int) -> None:
    flat = [np.frombuffer(picture, dtype=np.uint8).copy() for picture in _PICTURES]
    columns = [picture[:, None] for picture in flat]  # what cv2.imencode gives
    for pictures in (flat, columns):
        for labels in (np.array(_LABELS), [np.bool_(label) for label in _LABELS], [1, 0, 1]):
            _check(_read(tmp_path / "lfw.bin", pickle.dumps((pictures, labels), protocol)))


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch " + str(_Evil.marker),)

    marker: Path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(
    tmp_path: Path, protocol: int
) -> None:
    _Evil.marker = tmp_path / "ran"
    for content in (_Evil(), ([_Evil()], [True]), (_PICTURES, [True, False, _Evil()])):
        with pytest.raises(InputError, match=r"refused as a verification set \(it names .*system"):
            _read(tmp_path / "lfw.bin", pickle.dumps(content, protocol), "insightface-bin")
    assert not _Evil.marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04cos\nsystem\n(X\x04\x00\x00\x00trueo.",  # OBJ
        b"\x80\x02(X\x04\x00\x00\x00trueios\nsystem\n.",  # INST
        b"\x80\x02Pid\n.",  # PERSID
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02}.",  # a dict
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x02cnumpy\nload\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of two thousand million places
    ],
)
def test_pickles_of_anything_else_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="refused as a verification set"):
        _read(tmp_path / "lfw.bin", data)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (([], []), "holds no pairs"),
        ((_PICTURES, _LABELS[:2]), "2 labels want 4 pictures, but there are 6"),
        ((_PICTURES, [True, False, 2]), "label 3 is neither"),
        ((_PICTURES, [True, False, None]), "label 3 is neither"),
        (([*_PICTURES[:5], "text"], _LABELS), "picture 5 is no encoded picture"),
        (([*_PICTURES[:5], b""], _LABELS), "picture 5 is no encoded picture"),
        (([np.zeros((2, 2, 3), np.uint8)] * 6, _LABELS), "picture 0 is no encoded picture"),
        (([np.zeros(4, np.float32)] * 6, _LABELS), "picture 0 is no encoded picture"),
        ((_PICTURES, 3), "labels are no list"),
        ((3, _LABELS), "pictures are no list"),
        ((_PICTURES,), "holds no (pictures, labels)"),
        ("text", "holds no (pictures, labels)"),
    ],
)
def test_sets_of_another_shape_are_refused(tmp_path: Path, content: object, what: str) -> None:
    with pytest.raises(InputError) as caught:
        _read(tmp_path / "lfw.bin", pickle.dumps(content, 4))
    assert what in str(caught.value)


def test_a_truncated_set_is_refused(tmp_path: Path) -> None:
    data = _python2()
    for size in range(2, len(data)):
        with pytest.raises(InputError):
            _read(tmp_path / "lfw.bin", data[:size])


def test_a_list_of_text_forced_as_packed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lfw.bin: "):
        _read(tmp_path / "lfw.bin", b"a.jpg b.jpg 1\n", "insightface-bin")
