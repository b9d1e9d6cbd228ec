"""The network of a detector's file, made ready: for pictures of any size and number.

YuNet ends in twelve heads of 1, 4 or 10 channels. They cost a third of its time, as convolutions
of one channel take as long as those of sixteen; side by side in one convolution a stride they
compute the same products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from faceidx.errors import InputError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

STRIDES = (8, 16, 32)
SCORES, PLACES = "scores", "places"
"""The outputs: (n, c, 2) class and object of each cell, and (n, c, 14) its box and points."""
_CHANNELS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
_PARTS = {SCORES: ("cls", "obj"), PLACES: ("bbox", "kps")}
# `Slice` takes what it cuts out as inputs from this version of the operators on.
_LEAST_VERSION = 10


def ready(content: bytes) -> bytes:
    """Make a detector's file ready to run.

    Raises:
        InputError: it lacks an output of YuNet.
        Exception: it is no ONNX file; onnx raises nearly anything.
    """
    from onnx import TensorProto, helper, load_model_from_string

    model = load_model_from_string(content)
    graph = model.graph
    names = {output.name for output in graph.output}
    for kind in _CHANNELS:
        for stride in STRIDES:
            if f"{kind}_{stride}" not in names:
                raise InputError(f"it has no output {kind}_{stride}")
    _leave_size_open(graph)
    version = max(used.version for used in model.opset_import if used.domain in ("", "ai.onnx"))
    heads = [_heads(graph, stride) for stride in STRIDES]
    if version >= _LEAST_VERSION and all(heads):
        _join_heads(graph, heads)
    else:
        _join_outputs(graph)
    del graph.output[:]
    for name in (SCORES, PLACES):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())


def _leave_size_open(graph: GraphProto) -> None:
    """Let pictures be of any size and number; YuNet's file fixes both."""
    from onnx import numpy_helper

    shape = graph.input[0].type.tensor_type.shape
    for place, name in ((0, "number"), (2, "height"), (3, "width")):
        shape.dim[place].dim_param = name
    del graph.value_info[:]
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in shapes and values.ndim == 1 and values[0] == 1:
            values[0] = 0  # as many as there are, instead of one
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


# --- the heads side by side --------------------------------------------------------------------


class _Head(NamedTuple):
    """The nodes that end in an output: two convolutions, then an order of the cells."""

    nodes: list[NodeProto]
    weights: list[np.ndarray]
    """Kernel and bias of the first convolution, and of the second."""

    def shape(self) -> str:
        """What is the same in heads that can be computed side by side."""
        settings = [
            sorted(str(a) for a in node.attribute if a.name != "group") for node in self.nodes[:3]
        ]
        return str((self.nodes[0].input[0], settings, [w.shape[1:] for w in self.weights]))


def _heads(graph: GraphProto, stride: int) -> list[_Head]:
    """The heads of a stride, where they can be computed side by side; else none."""
    makers = {output: node for node in graph.node for output in node.output}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    heads = [_head(kind, stride, makers, tensors) for kind in _CHANNELS]
    found = [head for head in heads if head is not None]
    alike = len(found) == len(heads) and len({head.shape() for head in found}) == 1
    return found if alike else []


def _head(
    kind: str, stride: int, makers: Mapping[str, NodeProto], tensors: Mapping[str, Any]
) -> _Head | None:
    """The head of an output, where it is one of YuNet's; else None."""
    from onnx import helper, numpy_helper

    ends = ["Sigmoid"] if kind in _PARTS[SCORES] else []
    nodes: list[NodeProto] = []
    name = f"{kind}_{stride}"
    for wanted in reversed(["Conv", "Conv", "Transpose", "Reshape", *ends]):
        node = makers.get(name)
        if node is None or node.op_type != wanted:
            return None
        nodes.insert(0, node)
        name = node.input[0]
    inputs = [*nodes[0].input[1:], *nodes[1].input[1:]]
    if len(inputs) != 4 or any(name not in tensors for name in inputs):
        return None
    weights = [numpy_helper.to_array(tensors[name]) for name in inputs]
    groups, order = (
        [
            helper.get_attribute_value(attribute)
            for node in some
            for attribute in node.attribute
            if attribute.name == name
        ]
        for some, name in ((nodes[:2], "group"), (nodes[2:3], "perm"))
    )
    channels = _CHANNELS[kind]
    alone = groups == [1, channels] and [len(w) for w in weights] == [channels] * 4
    return _Head(nodes, weights) if alone and order == [[0, 2, 3, 1]] else None


def _join_heads(graph: GraphProto, heads: list[list[_Head]]) -> None:
    total = sum(_CHANNELS.values())
    parts = []
    for stride, of_stride in zip(STRIDES, heads, strict=True):
        weights = [
            _constant(graph, f"weights_{stride}_{n}", np.concatenate(each))
            for n, each in enumerate(zip(*(head.weights for head in of_stride), strict=True))
        ]
        name = of_stride[0].nodes[0].input[0]
        for number, groups in enumerate((1, total)):
            node = graph.node.add()
            node.CopyFrom(of_stride[0].nodes[number])
            node.ClearField("input")
            node.input.extend([name, *weights[2 * number : 2 * number + 2]])
            name = node.output[0] = node.name = f"heads_{stride}_{number}"
            next(a for a in node.attribute if a.name == "group").i = groups
        name = _add(graph, "Transpose", [name], f"cells_{stride}", perm=[0, 2, 3, 1])
        parts.append(_flat(graph, name, total))
        for node in (node for head in of_stride for node in head.nodes):
            graph.node.remove(node)
    joined = _add(graph, "Concat", parts, "joined", axis=1)
    split = sum(_CHANNELS[kind] for kind in _PARTS[SCORES])
    for name, begin, end in (("raw_scores", 0, split), (PLACES, split, total)):
        edges = [_constant(graph, f"{name}_{n}", np.array([n])) for n in (begin, end, 2)]
        _add(graph, "Slice", [joined, *edges], name)
    _add(graph, "Sigmoid", ["raw_scores"], SCORES)


# --- any other file ----------------------------------------------------------------------------


def _join_outputs(graph: GraphProto) -> None:
    """Put the twelve outputs together as they are."""
    for output, kinds in _PARTS.items():
        parts = []
        for stride in STRIDES:
            flat = [_flat(graph, f"{kind}_{stride}", _CHANNELS[kind]) for kind in kinds]
            parts.append(_add(graph, "Concat", flat, f"{output}_{stride}", axis=2))
        _add(graph, "Concat", parts, output, axis=1)


def _flat(graph: GraphProto, name: str, channels: int) -> str:
    """(n, c, channels), whatever shape the cells are in."""
    shape = _constant(graph, f"{name}_shape", np.array([0, -1, channels]))
    return _add(graph, "Reshape", [name, shape], f"{name}_flat")


def _constant(graph: GraphProto, name: str, values: np.ndarray) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _add(graph: GraphProto, kind: str, inputs: list[str], output: str, **settings: Any) -> str:
    from onnx import helper

    graph.node.append(helper.make_node(kind, inputs, [output], output, **settings))
    return output
