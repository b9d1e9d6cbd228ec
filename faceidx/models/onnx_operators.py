"""ONNX operators as torch knows them: one short function each, as far as face models need them.

Definitions: onnx.ai/onnx/operators. A function gets what the node gets and the node's attributes,
and says through the `Builder` what torch is to do. It raises `UnsupportedError` for any case that
it does not cover; the graph then stays with onnxruntime.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import skip_init

from faceidx.models.onnx_builder import Builder, Flow, Known, UnsupportedError, Value

Inputs = Sequence[Value | None]
Attributes = dict[str, Any]
Operator = Callable[[Builder, Inputs, Attributes], Flow | list[Flow]]

OPERATORS: dict[str, Operator] = {}


def converts(*names: str) -> Callable[[Operator], Operator]:
    """Enter a function under the names of the operators that it converts."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))


def first(inputs: Inputs) -> Flow:
    """The input that pictures flow through."""
    if not inputs or not isinstance(inputs[0], Flow):
        raise UnsupportedError("a layer that pictures do not flow through")
    return inputs[0]


def optional(inputs: Inputs, place: int) -> np.ndarray | None:
    """Numbers that a node may be given, None where it is not."""
    value = inputs[place] if place < len(inputs) else None
    if isinstance(value, Flow):
        raise UnsupportedError("weights that are computed from the pictures")
    return None if value is None else value.array()


def needed(inputs: Inputs, place: int) -> np.ndarray:
    """Numbers that a node must be given."""
    found = optional(inputs, place)
    if found is None:
        raise UnsupportedError("a node without its weights")
    return found


def axes_of(inputs: Inputs, attributes: Attributes) -> list[int] | None:
    """Axes, which older opsets give as an attribute and newer ones as an input."""
    given = attributes.get("axes", optional(inputs, 1))
    return None if given is None else [int(axis) for axis in np.ravel(given)]


# --- layers ------------------------------------------------------------------------------------


@converts("Conv")
def _conv(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x, weight, bias = first(inputs), needed(inputs, 1), optional(inputs, 2)
    if weight.ndim != 4:
        raise UnsupportedError(f"a convolution of {weight.ndim - 2} dimensions")
    groups = int(attributes.get("group", 1))
    stride = tuple(attributes.get("strides", (1, 1)))
    dilation = tuple(attributes.get("dilations", (1, 1)))
    x, padding = _padded(to, x, attributes, 0.0)
    outputs, inner, height, width = weight.shape
    conv = skip_init(
        nn.Conv2d,
        inner * groups,
        outputs,
        (height, width),
        stride,
        padding,
        dilation,
        groups,
        bias=bias is not None,
    )
    conv.weight.data = _tensor(weight)
    if bias is not None:
        conv.bias.data = _tensor(bias)
    return to.layer(conv, x)


def _padded(
    to: Builder, x: Flow, attributes: Attributes, fill: float
) -> tuple[Flow, tuple[int, int]]:
    """A value padded where the sides differ, and the padding that is left to the operator."""
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", b""):
        raise UnsupportedError("padding chosen by the runtime (auto_pad)")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) == (bottom, right):
        return x, (int(top), int(left))
    sides = [int(side) for side in (left, right, top, bottom)]
    return to.call(F.pad, x, sides, "constant", fill), (0, 0)


@converts("BatchNormalization")
def _batch_norm(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x = first(inputs)
    scale, bias, mean, variance = (needed(inputs, place) for place in (1, 2, 3, 4))
    if attributes.get("training_mode", 0) or x.rank() not in (2, 3, 4):
        raise UnsupportedError("a batch normalisation that is still training")
    kind = nn.BatchNorm2d if x.rank() == 4 else nn.BatchNorm1d
    norm = kind(scale.size, eps=float(attributes.get("epsilon", 1e-5)))
    norm.weight.data, norm.bias.data = _tensor(scale), _tensor(bias)
    norm.running_mean, norm.running_var = _tensor(mean), _tensor(variance)
    return to.layer(norm, x)


@converts("PRelu")
def _prelu(to: Builder, inputs: Inputs, _: Attributes) -> Flow:
    x, slope = first(inputs), needed(inputs, 1)
    shape = x.shapes()[0]
    # Slopes are broadcast from the last axis, torch's go by the second.
    wide = (1,) * (len(shape) - slope.ndim) + slope.shape
    if len(wide) != len(shape) or slope.size != wide[1] or slope.size not in (1, shape[1]):
        raise UnsupportedError("a PRelu whose slopes are not one a channel")
    prelu = nn.PReLU(slope.size)
    prelu.weight.data = _tensor(slope).flatten()
    return to.layer(prelu, x)


@converts("Gemm")
def _gemm(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x, weight, bias = first(inputs), needed(inputs, 1), optional(inputs, 2)
    if attributes.get("transA", 0) or weight.ndim != 2:
        raise UnsupportedError("a Gemm of a transposed input")
    if not attributes.get("transB", 0):
        weight = weight.T
    if bias is not None:
        bias = np.broadcast_to(bias, (1, len(weight)))[0] * attributes.get("beta", 1.0)
    return to.layer(_linear(weight * attributes.get("alpha", 1.0), bias), x)


@converts("MatMul")
def _matmul(to: Builder, inputs: Inputs, _: Attributes) -> Flow:
    x, other = inputs
    if isinstance(x, Flow) and isinstance(other, Known) and other.array().ndim == 2:
        return to.layer(_linear(other.array().T, None), x)
    return to.call(torch.matmul, argument(to, x), argument(to, other))


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    linear = skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight.data = _tensor(weight)
    if bias is not None:
        linear.bias.data = _tensor(bias)
    return linear


# --- element by element ------------------------------------------------------------------------


def argument(to: Builder, value: Value | None) -> Any:
    """A value as an argument of `Builder.call`."""
    if value is None:
        raise UnsupportedError("a node without its input")
    return to.constant(value.array()) if isinstance(value, Known) else value


def _elementwise(name: str, function: Callable[..., Any]) -> None:
    def convert(to: Builder, inputs: Inputs, _: Attributes) -> Flow:
        return to.call(function, *(argument(to, value) for value in inputs))

    OPERATORS[name] = convert


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "Pow": operator.pow,
    "Neg": operator.neg,
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Abs": torch.abs,
    "Reciprocal": torch.reciprocal,
    "HardSwish": F.hardswish,
}
for _name, _function in _ELEMENTWISE.items():
    _elementwise(_name, _function)


@converts("LeakyRelu")
def _leaky_relu(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    return to.call(F.leaky_relu, first(inputs), float(attributes.get("alpha", 0.01)))


@converts("Elu")
def _elu(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    return to.call(F.elu, first(inputs), float(attributes.get("alpha", 1.0)))


@converts("HardSigmoid")
def _hard_sigmoid(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    steepness, middle = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    line = to.call(operator.add, to.call(operator.mul, first(inputs), steepness), middle)
    return to.call(torch.clamp, line, 0.0, 1.0)


@converts("Clip")
def _clip(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    bounds = []
    for place, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        given = optional(inputs, place)
        bounds.append(float(attributes.get(name, default) if given is None else given.item()))
    return to.call(F.hardtanh, first(inputs), *bounds)


@converts("Softmax")
def _softmax(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x = first(inputs)
    axis = int(attributes.get("axis", -1 if attributes["opset"] >= 13 else 1)) % x.rank()
    if attributes["opset"] < 13 and axis != x.rank() - 1:
        raise UnsupportedError("a Softmax over several axes")
    return to.call(torch.softmax, x, axis)


@converts("Identity", "Dropout")
def _identity(to: Builder, inputs: Inputs, _: Attributes) -> Flow:
    return first(inputs)


@converts("Cast")
def _cast(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    from onnx import TensorProto

    if attributes["to"] != TensorProto.FLOAT:
        raise UnsupportedError("a Cast of pictures to another type than float")
    return first(inputs)


# --- over places -------------------------------------------------------------------------------


@converts("GlobalAveragePool")
def _global_average_pool(to: Builder, inputs: Inputs, _: Attributes) -> Flow:
    return to.call(torch.mean, first(inputs), (2, 3), keepdim=True)


@converts("GlobalMaxPool")
def _global_max_pool(to: Builder, inputs: Inputs, _: Attributes) -> Flow:
    return to.call(torch.amax, first(inputs), (2, 3), keepdim=True)


@converts("AveragePool")
def _average_pool(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    counted = bool(attributes.get("count_include_pad", 0))
    pads = attributes.get("pads", (0, 0, 0, 0))
    if not counted and tuple(pads[:2]) != tuple(pads[2:]):
        raise UnsupportedError("an average that leaves out uneven padding")
    x, padding = _padded(to, first(inputs), attributes, 0.0)
    return to.call(F.avg_pool2d, x, *_window(attributes), padding, _ceil(attributes), counted)


@converts("MaxPool")
def _max_pool(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x, padding = _padded(to, first(inputs), attributes, -math.inf)
    return to.call(F.max_pool2d, x, *_window(attributes), padding, 1, _ceil(attributes))


def _window(attributes: Attributes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kernel and stride of a pool."""
    kernel = tuple(attributes["kernel_shape"])
    if len(kernel) != 2 or any(d != 1 for d in attributes.get("dilations", ())):
        raise UnsupportedError("a pool that is not a plain one of two dimensions")
    return kernel, tuple(attributes.get("strides", (1, 1)))


def _ceil(attributes: Attributes) -> bool:
    return bool(attributes.get("ceil_mode", 0))


def _reduce(name: str, function: Callable[..., Any]) -> None:
    def convert(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
        x = first(inputs)
        axes = axes_of(inputs, attributes)
        if not axes:
            raise UnsupportedError(f"a {name} over everything, the batch included")
        return to.call(function, x, axes, keepdim=bool(attributes.get("keepdims", 1)))

    OPERATORS[name] = convert


def _length(x: torch.Tensor, axes: list[int], keepdim: bool) -> torch.Tensor:
    return torch.linalg.vector_norm(x, 2, axes, keepdim)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceL2": _length,
}
for _name, _function in _REDUCTIONS.items():
    _reduce(_name, _function)


@converts("LpNormalization")
def _lp_normalization(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    power, axis = float(attributes.get("p", 2)), int(attributes.get("axis", -1))
    return to.call(F.normalize, first(inputs), power, axis)
