"""Tiny ONNX graphs, as exporters write them, built for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NCHW, NHWC = "NCHW", "NHWC"
Shape = Sequence[int | str | None]


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    shape: Shape,
    output: Shape,
) -> Path:
    """Write a graph from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def mean_color_graph(
    path: Path, *, shape: Shape = ("n", 3, None, None), layout: str = NCHW
) -> Path:
    """(N, 3) the mean of each channel."""
    axes = [2, 3] if layout == NCHW else [1, 2]
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=0)]
    return save(path, nodes, {}, shape=shape, output=(shape[0], 3))


def projection(pixels: int, dim: int = 5) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(pixels, dim)).astype(np.float32)


def reshape_graph(
    path: Path,
    *,
    batch: int | str,
    side: int = 4,
    target: Sequence[int] | None = None,
    as_node: bool = False,
) -> Path:
    """(N, 5) a linear map of the pixels, behind a `Reshape` with a constant target."""
    pixels = 3 * side * side
    fixed = np.array(target or [batch, pixels], dtype=np.int64)
    constants = {"w": projection(pixels)}
    nodes = [
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    if as_node:
        value: Any = numpy_helper.from_array(fixed)
        nodes.insert(0, helper.make_node("Constant", [], ["target"], value=value))
    else:
        constants["target"] = fixed
    return save(path, nodes, constants, shape=(batch, 3, side, side), output=(batch, 5))
