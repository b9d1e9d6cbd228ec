from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from faceidx.errors import InputError, JobError
from faceidx.models import engines, openvino_model
from faceidx.models.engines import Way, build, fast_precisions
from faceidx.models.face_model import FaceModel, normalize
from faceidx.models.open import ModelOptions, open_exact, open_model
from faceidx.models.openvino_model import is_installed, quiet_openvino
from tests.conftest import FAKE_SIZE
from tests.models.onnx_graphs import NHWC, mean_color_graph, reshape_graph, save
from tests.models.test_onnx_model import _batch_mixer

needs_openvino = pytest.mark.skipif(not is_installed(), reason="the extra openvino is not there")
_OPENVINO = pytest.param("openvino", marks=needs_openvino)


def _pictures(count: int, size: tuple[int, int] = FAKE_SIZE) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def _exact(path: Path, **options: Any) -> FaceModel:
    return open_exact(ModelOptions(path=path, device="cpu", **options))


def _least_cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float((normalize(left)[0] * normalize(right)[0]).sum(1).min())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
@pytest.mark.parametrize("engine", ["torch", "onnx", _OPENVINO])
def test_our_model_gives_the_same_whatever_runs_it(
    fake_model_file: Path, engine: str, precision: str
) -> None:
    exact, pictures = _exact(fake_model_file), _pictures(21)
    way = Way(engine=engine, precision=precision)
    if (engine, precision) in (("torch", "int8"), ("onnx", "bf16"), ("onnx", "fp16")):
        with pytest.raises(InputError, match=r"give --engine|as it was exported"):
            build(exact, way, device="cpu", sample=pictures)
        return
    try:
        model = build(exact, way, device="cpu", sample=pictures)
    except InputError as error:
        if engine != "openvino" or "OpenVINO does not compute in" not in str(error):
            raise
        pytest.skip(f"on this processor: {error}")
    assert (model.engine, model.precision) == (engine, precision)
    assert model.fingerprint() == exact.fingerprint()
    found = model.raw_embed(pictures)
    assert (found.shape, found.dtype) == ((21, exact.embedding_dim), np.float32)
    least = {"fp32": 0.999999, "bf16": 0.995, "fp16": 0.9999, "int8": 0.9}[precision]
    assert _least_cosine(found, exact.raw_embed(pictures)) > least
    # The same batch gives the same bytes, and any engine has the classifier's answers.
    np.testing.assert_array_equal(model.raw_embed(pictures), found)
    np.testing.assert_allclose(model.classify(found).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("engine", ["torch", _OPENVINO])
@pytest.mark.parametrize("options", [{"preset": "adaface"}, {"preset": "imagenet"}])
@pytest.mark.parametrize("last", [False, True])
def test_colour_order_scale_and_layout_are_those_of_onnxruntime(
    engine: str, options: dict[str, Any], last: bool, tmp_path: Path
) -> None:
    shape, layout = (("n", 4, 6, 3), NHWC) if last else (("n", 3, 4, 6), "NCHW")
    exact = _exact(mean_color_graph(tmp_path / "m.onnx", shape=shape, layout=layout), **options)
    model = build(exact, Way(engine=engine, precision="fp32"), device="cpu")
    pictures = _pictures(11, (4, 6))
    np.testing.assert_allclose(
        model.raw_embed(pictures), exact.raw_embed(pictures), rtol=1e-4, atol=1e-5
    )


@needs_openvino
def test_openvino_runs_picture_by_picture_what_works_on_one_alone(tmp_path: Path) -> None:
    exact = _exact(_batch_mixer(tmp_path / "m.onnx", 1), preset="insightface")
    model = build(exact, Way(engine="openvino", precision="fp32"), device="cpu")
    pictures = _pictures(3, (4, 4))
    np.testing.assert_allclose(
        model.raw_embed(pictures), exact.raw_embed(pictures), rtol=1e-4, atol=1e-4
    )


@needs_openvino
def test_another_precision_than_openvino_was_asked_for_is_no_answer(
    fake_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(openvino_model._PRECISIONS, "bf16", "f64")
    way = Way(engine="openvino", precision="bf16")
    with pytest.raises(InputError, match=r"cannot be run by OpenVINO|does not compute in f64"):
        build(_exact(fake_model_file), way, device="cpu")
    monkeypatch.undo()
    hint = quiet_openvino().Type.f32
    with pytest.raises(InputError, match="does not compute in bf16 here, but in f32"):
        openvino_model._require_precision(hint, "bf16", "m.onnx")


@needs_openvino
def test_openvino_sends_nothing_and_writes_nothing_into_a_home(tmp_path: Path) -> None:
    # With its telemetry it would tell Google Analytics of each import, from a process of its own.
    command = (
        "import sys; from faceidx.models.openvino_model import quiet_openvino;"
        "print(quiet_openvino().Core().available_devices,"
        " [name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        env={**environment, "HOME": str(tmp_path)},
    )
    assert done.stdout == "['CPU'] []\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_onnxruntime_sends_nothing_and_writes_nothing_into_a_home(tmp_path: Path) -> None:
    # With its telemetry it would keep a number for the machine, and what is to be sent, in the
    # user's cache, from the first model that is opened on.
    home, path = tmp_path / "home", mean_color_graph(tmp_path / "m.onnx", shape=("n", 3, 4, 4))
    home.mkdir()
    command = (
        "import sys; from pathlib import Path;"
        "from faceidx.models.open import ModelOptions, open_model;"
        "open_model(ModelOptions(path=Path(sys.argv[1]), device='cpu', preset='imagenet'))"
    )
    ours = {"CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    subprocess.run(
        [sys.executable, "-c", command, str(path)],
        check=True,
        env={**environment, "HOME": str(home)},
    )
    assert list(home.rglob("*")) == []


def test_a_graph_that_torch_cannot_run_stays_with_onnxruntime(tmp_path: Path) -> None:
    path = _batch_mixer(tmp_path / "m.onnx", 1)
    options = ModelOptions(path=path, device="cpu", preset="insightface", engine="torch")
    with pytest.raises(InputError, match=r"one picture at a time.*--engine onnx"):
        open_model(options)


def test_openvino_that_is_not_there_is_named(
    fake_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceidx.models.openvino_model.is_installed", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'faceidx\[openvino\]'"):
        open_model(ModelOptions(path=fake_model_file, device="cpu", engine="openvino"))


@pytest.mark.parametrize("opset", [11, 12, 13])
def test_int8_is_for_graphs_of_any_opset_and_constant_shapes(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    rng = np.random.default_rng(2)
    constants = {
        "w": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "target": np.array([0, 8]),
        "g": rng.normal(size=(8, 16)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "target"], ["f"]),
        helper.make_node("MatMul", ["f", "g"], ["y"]),
    ]
    graph = onnx.load(save(path, nodes, constants, shape=("n", 3, 8, 8), output=("n", 16)))
    graph.opset_import[0].version = opset
    onnx.save(graph, path)
    exact = _exact(path, preset="insightface", image_size=8)
    pictures = _pictures(12, (8, 8))
    model = build(exact, Way(engine="onnx", precision="int8"), device="cpu", sample=pictures)
    assert _least_cosine(model.raw_embed(pictures), exact.raw_embed(pictures)) > 0.99


def test_int8_without_pictures_says_where_they_come_from(tmp_path: Path) -> None:
    path = reshape_graph(tmp_path / "m.onnx", batch="n", target=[-1, 48])
    options = ModelOptions(
        path=path, device="cpu", preset="insightface", engine="onnx", precision="int8"
    )
    with pytest.raises(InputError, match=r"calibrated on the pictures.*--precision"):
        open_model(options)


def test_a_full_disk_of_temporary_files_is_not_held_against_the_graph(
    fake_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    exact = _exact(fake_model_file)
    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(JobError, match=r"No space left on device\); set TMPDIR"):
        build(exact, Way(engine="onnx", precision="int8"), device="cpu", sample=_pictures(4))


def test_calibrating_leaves_the_log_as_it_was(fake_model_file: Path) -> None:
    level = logging.getLogger().level
    exact = _exact(fake_model_file)
    way = Way(engine="onnx", precision="int8")
    first = build(exact, way, device="cpu", sample=_pictures(4)).raw_embed(_pictures(6))
    second = build(exact, way, device="cpu", sample=_pictures(4)).raw_embed(_pictures(6))
    np.testing.assert_array_equal(first, second)
    assert logging.getLogger().level == level


def test_bf16_is_for_processors_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for told, expected in (
        ("flags : fpu avx512_bf16 sse", ["bf16"]),
        ("Features : fp asimd bf16", ["bf16"]),
        ("flags : fpu avx512f avx512bw", []),
        ("", []),
    ):
        monkeypatch.setattr(engines, "processor", lambda told=told: told)
        assert fast_precisions("cpu") == expected
