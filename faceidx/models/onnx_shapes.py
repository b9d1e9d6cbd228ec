"""ONNX operators that only change how numbers lie: shapes, parts, order."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from faceidx.models.onnx_builder import Builder, Flow, Known, UnsupportedError
from faceidx.models.onnx_operators import OPERATORS as OPERATORS  # now with those of here
from faceidx.models.onnx_operators import (
    Attributes,
    Inputs,
    argument,
    axes_of,
    converts,
    first,
    needed,
    optional,
)


def _reshaped(to: Builder, x: Flow, targets: Sequence[Sequence[int]]) -> Flow:
    """`x` in a shape of which the batch, and nothing else, differs between the batch sizes."""
    shapes = [e.reshape(tuple(t)).shape for e, t in zip(x.examples, targets, strict=True)]
    differing = [i for i, sides in enumerate(zip(*shapes, strict=True)) if len(set(sides)) > 1]
    if len(differing) != 1:
        raise UnsupportedError("a reshape that mixes pictures")
    target = [-1 if i in differing else side for i, side in enumerate(shapes[0])]
    return to.call(torch.reshape, x, target)


@converts("Flatten")
def _flatten(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x = first(inputs)
    axis = int(attributes.get("axis", 1))
    return _reshaped(
        to, x, [(math.prod(shape[:axis]), math.prod(shape[axis:])) for shape in x.shapes()]
    )


@converts("Reshape")
def _reshape(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x, target = inputs
    if not isinstance(x, Flow) or not isinstance(target, Known):
        raise UnsupportedError("a reshape to what is computed from the pictures")
    if attributes.get("allowzero", 0) and any(0 in array for array in target.arrays):
        raise UnsupportedError("a reshape to nothing")
    targets = [
        [shape[i] if side == 0 else int(side) for i, side in enumerate(array)]
        for shape, array in zip(x.shapes(), target.arrays, strict=True)
    ]
    return _reshaped(to, x, targets)


@converts("Transpose")
def _transpose(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x = first(inputs)
    return to.call(torch.permute, x, list(attributes.get("perm", range(x.rank())[::-1])))


@converts("Squeeze")
def _squeeze(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x = first(inputs)
    axes = axes_of(inputs, attributes)
    if axes is None:
        axes = [i for i, sides in enumerate(zip(*x.shapes(), strict=True)) if set(sides) == {1}]
    return to.call(torch.squeeze, x, axes)


@converts("Unsqueeze")
def _unsqueeze(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x, axes = first(inputs), axes_of(inputs, attributes) or []
    rank = x.rank() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = to.call(torch.unsqueeze, x, axis)
    return x


@converts("Concat")
def _concat(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    parts = [argument(to, value) for value in inputs]
    return to.call(torch.cat, parts, int(attributes["axis"]))


@converts("Split")
def _split(to: Builder, inputs: Inputs, attributes: Attributes) -> list[Flow]:
    x, axis = first(inputs), int(attributes.get("axis", 0))
    sizes = attributes.get("split", optional(inputs, 1))
    if sizes is None:
        count = attributes["outputs"]
        size = -(-x.shapes()[0][axis] // count)
        sizes = [min(size, x.shapes()[0][axis] - i * size) for i in range(count)]
    ends = np.cumsum(sizes)
    return [
        to.call(torch.narrow, x, axis, int(end - size), int(size))
        for end, size in zip(ends, sizes, strict=True)
    ]


@converts("Slice")
def _slice(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x = first(inputs)
    starts, ends = (
        np.ravel(attributes[name] if name in attributes else needed(inputs, place))
        for place, name in enumerate(("starts", "ends"), 1)
    )
    axes = attributes.get("axes", optional(inputs, 3))
    steps = optional(inputs, 4)
    if steps is not None and np.any(steps < 1):
        raise UnsupportedError("a Slice that walks backwards")
    cut = [slice(None)] * x.rank()
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = i if axes is None else int(np.ravel(axes)[i])
        cut[axis] = slice(int(start), int(end), 1 if steps is None else int(np.ravel(steps)[i]))
    return to.call(operator.getitem, x, tuple(cut))


@converts("Gather")
def _gather(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    index = needed(inputs, 1)
    if index.ndim:
        raise UnsupportedError("a Gather of several places")
    return to.call(torch.select, first(inputs), int(attributes.get("axis", 0)), int(index))


@converts("Pad")
def _pad(to: Builder, inputs: Inputs, attributes: Attributes) -> Flow:
    x = first(inputs)
    pads = np.ravel(attributes["pads"] if "pads" in attributes else needed(inputs, 1))
    value = attributes.get("value", optional(inputs, 2))
    if attributes.get("mode", b"constant") != b"constant" or len(pads) != 2 * x.rank():
        raise UnsupportedError("padding with anything but a number")
    begins, ends = pads[: x.rank()][::-1], pads[x.rank() :][::-1]
    sides = [int(side) for pair in zip(begins, ends, strict=True) for side in pair]
    return to.call(F.pad, x, sides, "constant", 0.0 if value is None else float(np.ravel(value)[0]))
