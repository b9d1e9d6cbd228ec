"""Every operator that is converted, beside onnxruntime, and what is not converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from faceidx.images.preprocess import load
from faceidx.models import onnx_operators
from faceidx.models.onnx_builder import UnsupportedError
from faceidx.models.onnx_model import OnnxModel
from faceidx.models.onnx_torch import torch_module
from faceidx.models.open import ModelOptions, open_model
from tests.models.onnx_graphs import NHWC, mean_color_graph, projection, reshape_graph

_SIZE = (6, 8)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(0.2, 1.0, shape).astype(np.float32)


def _model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], opset: int = 13
) -> onnx.ModelProto:
    """A graph from `x` (n, 3, 6, 8) to whatever `y` is."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, *_SIZE))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _run(model: onnx.ModelProto) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def run(batch: np.ndarray) -> np.ndarray:
        rows = np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])
        return rows.reshape(len(rows), -1)

    return run


def _convert(model: onnx.ModelProto) -> torch.nn.Module:
    return torch_module(model, _SIZE, _run(model), channels_last=False)


# Operator, attributes, further inputs.
_NODES: list[tuple[str, dict[str, Any], list[np.ndarray | None]]] = [
    ("Conv", {"pads": [1, 1, 1, 1], "strides": [2, 2]}, [_random(4, 3, 3, 3), _random(4)]),
    ("Conv", {"group": 3}, [_random(6, 1, 3, 3)]),
    ("Conv", {"pads": [0, 1, 1, 2], "dilations": [2, 1]}, [_random(4, 3, 2, 3)]),
    ("BatchNormalization", {"epsilon": 0.01}, [_random(3), _random(3), _random(3), _random(3)]),
    ("PRelu", {}, [_random(3, 1, 1)]),
    ("PRelu", {}, [_random(1, 1, 1)]),
    ("Relu", {}, []),
    ("LeakyRelu", {"alpha": 0.3}, []),
    ("Elu", {"alpha": 0.7}, []),
    ("Clip", {}, [np.float32(-0.2), np.float32(0.4)]),
    ("Clip", {}, [None, np.float32(0.4)]),
    ("Sigmoid", {}, []),
    ("Tanh", {}, []),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, []),
    ("Exp", {}, []),
    ("Abs", {}, []),
    ("Neg", {}, []),
    ("Softmax", {"axis": 1}, []),
    ("Add", {}, [_random(3, 1, 1)]),
    ("Sub", {}, [np.float32(0.25)]),
    ("Mul", {}, [_random(1, 3, 1, 1)]),
    ("Div", {}, [_random(8)]),
    ("Pow", {}, [np.float32(2)]),
    ("Identity", {}, []),
    ("Dropout", {}, []),
    ("Cast", {"to": TensorProto.FLOAT}, []),
    ("Flatten", {}, []),
    ("Transpose", {"perm": [0, 3, 1, 2]}, []),
    ("Reshape", {}, [np.array([0, -1])]),
    ("Reshape", {}, [np.array([-1, 12, 12])]),
    ("Unsqueeze", {}, [np.array([1, -1])]),
    ("ReduceMean", {"axes": [2, 3], "keepdims": 0}, []),
    ("ReduceSum", {}, [np.array([1])]),
    ("ReduceMax", {"axes": [-1]}, []),
    ("ReduceL2", {"axes": [1]}, []),
    ("LpNormalization", {"axis": 1, "p": 2}, []),
    ("LpNormalization", {"axis": -1, "p": 1}, []),
    ("GlobalAveragePool", {}, []),
    ("GlobalMaxPool", {}, []),
    ("AveragePool", {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 1, 1, 1]}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}, []),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, []),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, []),
    ("Slice", {}, [np.array([1, -5]), np.array([99, -1]), np.array([2, 3]), np.array([1, 2])]),
    ("Gather", {"axis": 2}, [np.array(1)]),
    ("Pad", {}, [np.array([0, 0, 1, 2, 0, 0, 0, 1]), np.float32(0.5)]),
    ("MatMul", {}, [_random(8, 5)]),
]


@pytest.mark.parametrize(
    ("operator", "attributes", "inputs"), _NODES, ids=[f"{i} {n[0]}" for i, n in enumerate(_NODES)]
)
def test_an_operator_gives_what_onnxruntime_gives(
    operator: str, attributes: dict[str, Any], inputs: list[np.ndarray | None]
) -> None:
    names = ["" if value is None else f"c{i}" for i, value in enumerate(inputs)]
    constants = {n: v for n, v in zip(names, inputs, strict=True) if v is not None}
    model = _model([helper.make_node(operator, ["x", *names], ["y"], **attributes)], constants)
    module = _convert(model)
    pictures = np.random.default_rng(9).uniform(-1, 1, (7, 3, *_SIZE)).astype(np.float32)
    found = module(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(found, _run(model)(pictures), rtol=1e-4, atol=1e-5)


def test_layers_of_rows_and_parts_put_together_again() -> None:
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["left", "right"], axis=3),
        helper.make_node("Concat", ["right", "left"], ["swapped"], axis=3),
        helper.make_node("Sub", ["swapped", "x"], ["changed"]),
        helper.make_node("Flatten", ["changed"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["rows"], alpha=0.5, beta=2.0, transB=1),
        helper.make_node("BatchNormalization", ["rows", "s", "s", "s", "s"], ["normed"]),
        helper.make_node("PRelu", ["normed", "s"], ["y"]),
    ]
    weights = {"sizes": np.array([3, 5]), "w": projection(144).T, "b": _random(5), "s": _random(5)}
    model = _model(nodes, weights)
    pictures = np.random.default_rng(9).uniform(-1, 1, (4, 3, *_SIZE)).astype(np.float32)
    found = _convert(model)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(found, _run(model)(pictures), rtol=1e-4, atol=1e-4)


def test_arithmetic_on_shapes_becomes_a_constant() -> None:
    """As torch's exporter writes `x.view(x.size(0), -1)`."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["batch1"]),
        helper.make_node("Concat", ["batch1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = {
        "zero": np.array(0),
        "axes": np.array([0]),
        "rest": np.array([-1]),
        "w": projection(144),
    }
    assert len(list(_convert(_model(nodes, constants)).graph.nodes)) == 4


def test_an_old_opset_gives_axes_and_bounds_as_attributes() -> None:
    nodes = [
        helper.make_node("Clip", ["x"], ["clipped"], min=-0.5, max=0.5),
        helper.make_node("Unsqueeze", ["clipped"], ["wide"], axes=[1]),
        helper.make_node("Squeeze", ["wide"], ["narrow"], axes=[1]),
        helper.make_node("Slice", ["narrow"], ["cut"], starts=[1], ends=[3], axes=[2]),
        helper.make_node("Pad", ["cut"], ["padded"], pads=[0, 0, 1, 0, 0, 0, 0, 1], value=0.5),
        helper.make_node("Flatten", ["padded"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["y"]),
    ]
    model = _model(nodes, {}, opset=9)
    pictures = np.random.default_rng(9).uniform(-1, 1, (4, 3, *_SIZE)).astype(np.float32)
    found = _convert(model)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(found, _run(model)(pictures), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([("Erf", ["x"], {})], {}, "operator Erf"),
        ([("Softmax", ["x"], {"axis": 1})], {"opset": 11}, "several axes"),
        ([("ReduceMean", ["x"], {"axes": [0]})], {}, "differ|gives|IndexError|apart"),
        ([("ReduceMean", ["x"], {})], {}, "batch included"),
        ([("Reshape", ["x", "t"], {})], {"t": np.array([-1, 9])}, "torch gives"),
        ([("Reshape", ["x", "t"], {})], {"t": np.array([2, -1])}, "torch gives"),
        ([("Reshape", ["x", "t"], {})], {"t": np.array([144])}, "RuntimeError"),
        ([("Conv", ["x", "x"], {})], {}, "computed from the pictures"),
        (
            [("Conv", ["x", "w"], {"auto_pad": "SAME_UPPER"})],
            {"w": _random(2, 3, 3, 3)},
            "auto_pad",
        ),
        ([("PRelu", ["x", "w"], {})], {"w": _random(3, 6, 8)}, "one a channel"),
        ([("Tile", ["c", "r"], {}), ("Add", ["x", "y0"], {})], None, "operator Tile"),
    ],
)
def test_what_is_not_converted_is_said(nodes: Any, constants: Any, message: str) -> None:
    if constants is None:
        constants = {"c": np.float32([1.0]), "r": np.array([8])}
    opset = constants.pop("opset", 13)
    made = [
        helper.make_node(op, inputs, ["y" if i == len(nodes) - 1 else f"y{i}"], **attributes)
        for i, (op, inputs, attributes) in enumerate(nodes)
    ]
    model = _model(made, constants, opset)

    def never(batch: np.ndarray) -> np.ndarray:
        return np.zeros((len(batch), 1), np.float32)

    with pytest.raises(UnsupportedError, match=message):
        torch_module(model, _SIZE, never, channels_last=False)


def test_a_module_that_gives_something_else_is_never_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _model([helper.make_node("Relu", ["x"], ["y"])], {})
    monkeypatch.setitem(
        onnx_operators.OPERATORS, "Relu", lambda to, inputs, _: to.call(torch.tanh, inputs[0])
    )
    with pytest.raises(UnsupportedError, match="apart"):
        _convert(model)


def test_no_name_of_the_file_reaches_the_code_that_is_run() -> None:
    hostile = "__import__('os').abort()"
    nodes = [
        helper.make_node("Mul", ["x", hostile], [f"{hostile}\n"], name=hostile),
        helper.make_node("Relu", [f"{hostile}\n"], ["y"], name="print(1)"),
    ]
    module = _convert(_model(nodes, {hostile: _random(3, 1, 1)}))
    assert "import" not in module.code and "print" not in module.code


def test_channels_may_come_last(tmp_path: Path) -> None:
    path = mean_color_graph(tmp_path / "m.onnx", shape=("n", *_SIZE, 3), layout=NHWC)
    model = onnx.load(path)
    module = torch_module(model, _SIZE, _run(model), channels_last=True)
    pictures = torch.randn(2, 3, *_SIZE)
    torch.testing.assert_close(module(pictures), pictures.mean((2, 3)))


# --- as models ---------------------------------------------------------------------------------


def test_a_fixed_batch_size_is_freed_for_torch_as_well(tmp_path: Path) -> None:
    path = reshape_graph(tmp_path / "m.onnx", batch=1)
    options = {"path": path, "device": "cpu", "preset": "insightface"}
    model = open_model(ModelOptions(**options, engine="torch"))
    assert (model.engine, model.precision, model.arch) == ("torch", "fp32", "onnx")
    pictures = np.random.default_rng(7).integers(0, 256, (11, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        model.raw_embed(pictures),
        open_model(ModelOptions(**options)).raw_embed(pictures),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_real_model_of_others_gives_the_same_through_torch(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilefacenet_foamliu.onnx"
    files = sorted((shared_data / "lfw-dev").glob("*/*.jpg"))[:10]
    pictures = np.stack([load(file, (112, 112)) for file in files])
    options = ModelOptions(path=path, device="cpu", preset="imagenet")
    exact = open_model(options)
    assert isinstance(exact, OnnxModel)
    wanted = exact.raw_embed(pictures)
    model = open_model(ModelOptions(path=path, device="cpu", preset="imagenet", engine="torch"))
    np.testing.assert_allclose(
        model.raw_embed(pictures), wanted, atol=1e-4 * np.linalg.norm(wanted, axis=1).max()
    )
