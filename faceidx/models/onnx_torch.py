"""An ONNX graph as a torch module: so others' models get bf16, GPUs and compiling.

The graph is walked once, in its order, with a few random pictures at two batch sizes. What does not
depend on the pictures (weights, targets of reshapes, arithmetic on shapes) is worked out by onnx's
own reference and becomes a constant; of a shape only that may differ between the two batch sizes
which is the batch. Everything else becomes a call of torch in a `torch.fx` graph. At the end the
module must give what onnxruntime gives.

Written here rather than taken from onnx2torch, which has had no release since August 2024: face
models need some forty operators in their plainest form, and a graph from anywhere must end in a
clear "not converted" and never in a wrong answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from faceidx.models.onnx_builder import Builder, Flow, Known, UnsupportedError, Value
from faceidx.models.onnx_shapes import OPERATORS

# Batch sizes that the graph is walked with: what differs between the two is the batch.
_TRIED = (2, 3)
# Another batch size, to prove the module with.
_PROVEN = 5
# How far the two runtimes may be apart, relative to an embedding's length: float32 rounding.
_TOLERANCE = 1e-3
# Numbers that may be worked out beforehand: shapes are small, and so is what is done to weights.
_MOST_FOLDED = 1 << 24
# What may be worked out beforehand: nothing whose output can be larger than its inputs.
_FOLDABLE = (
    "Abs Add Cast Ceil Concat Constant Div Equal Flatten Floor Gather Identity Max Min Mod Mul "
    "Neg Pow Reciprocal ReduceMean ReduceProd ReduceSum Reshape Shape Size Slice Split Sqrt "
    "Squeeze Sub Transpose Unsqueeze Where"
)


def torch_module(
    model: onnx.ModelProto,
    image_size: tuple[int, int],
    run: Callable[[np.ndarray], np.ndarray],
    *,
    channels_last: bool,
) -> nn.Module:
    """Convert a graph, and prove it against onnxruntime on random pictures.

    Args:
        model: a graph whose batch size is free.
        image_size: height and width.
        run: onnxruntime: float32 pictures as the graph takes them to (N, D) float32.
        channels_last: whether the graph takes (N, H, W, 3), not (N, 3, H, W).

    Returns:
        A module from (N, 3, H, W), whatever the graph takes, to (N, D), in evaluation mode.

    Raises:
        UnsupportedError: the graph cannot be converted, or the two differ.
    """
    try:
        with torch.no_grad():
            module = _convert(model, image_size, channels_last)
            pictures = _random_pictures(_PROVEN, image_size, seed=1)
            found = module(pictures).numpy()
    except UnsupportedError:
        raise
    except Exception as error:  # a graph that breaks its operators' rules may lead to any error
        raise UnsupportedError(
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from None
    given = pictures.permute(0, 2, 3, 1) if channels_last else pictures
    wanted = run(given.contiguous().numpy())
    if found.shape != wanted.shape:
        raise UnsupportedError(f"torch gives {found.shape} where onnxruntime gives {wanted.shape}")
    exact = wanted.astype(np.float64)
    apart = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    if not bool((apart <= _TOLERANCE).all()):
        raise UnsupportedError(f"torch and onnxruntime are {apart.max():.1e} apart")
    return module


def _random_pictures(count: int, image_size: tuple[int, int], seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-1, 1, (count, 3, *image_size)).astype(np.float32))


def _convert(model: onnx.ModelProto, image_size: tuple[int, int], channels_last: bool) -> nn.Module:
    graph = model.graph
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    pictures = _random_pictures(max(_TRIED), image_size, seed=0)
    builder = Builder([pictures[:count] for count in _TRIED])
    values: dict[str, Value] = {
        t.name: Known([numpy_helper.to_array(t)] * len(_TRIED)) for t in graph.initializer
    }
    (name,) = (i.name for i in graph.input if i.name not in values)
    taken = builder.input
    values[name] = builder.call(torch.permute, taken, (0, 2, 3, 1)) if channels_last else taken
    output = graph.output[0].name
    nodes = _needed_nodes(graph, output)
    uses = Counter([output, *(name for node in nodes for name in node.input)])
    for node in nodes:
        inputs = [values[name] if name else None for name in node.input]
        values.update(zip(node.output, _results(builder, node, inputs, opset), strict=False))
        for name in set(node.input):  # the examples of a deep network would fill the memory
            uses[name] -= node.input[:].count(name)
            if not uses[name]:
                values.pop(name, None)
    result = values[output]
    if not isinstance(result, Flow):
        raise UnsupportedError("an output that does not depend on the pictures")
    return builder.module(result if result.rank() == 2 else builder.call(torch.flatten, result, 1))


def _needed_nodes(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """The nodes that an output depends on, in the graph's order."""
    needed, nodes = {output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _results(
    builder: Builder, node: onnx.NodeProto, inputs: list[Value | None], opset: int
) -> list[Value]:
    """What a node gives; with a new entry in the torch graph where it depends on the pictures."""
    if node.domain not in ("", "ai.onnx"):
        raise UnsupportedError(f"the operator {node.op_type} of {node.domain}")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if not any(isinstance(value, Flow) for value in inputs):
        return _folded(node, inputs, opset)
    if node.op_type == "Shape" and isinstance(inputs[0], Flow):
        part = slice(attributes.get("start"), attributes.get("end"))
        return [Known([np.array(shape[part], np.int64) for shape in inputs[0].shapes()])]
    if node.op_type not in OPERATORS:
        raise UnsupportedError(f"the operator {node.op_type}")
    attributes |= {"opset": opset, "outputs": len(node.output)}
    result = OPERATORS[node.op_type](builder, inputs, attributes)
    return [*result] if isinstance(result, list) else [result]


def _folded(node: onnx.NodeProto, inputs: list[Value | None], opset: int) -> list[Value]:
    """Work out a node that does not depend on the pictures, once for each batch size."""
    if node.op_type not in _FOLDABLE.split():
        raise UnsupportedError(f"the operator {node.op_type} on constants")
    known = [value for value in inputs if isinstance(value, Known)]
    if sum(array.size for value in known for array in value.arrays) > _MOST_FOLDED:
        raise UnsupportedError(f"the operator {node.op_type} on large constants")
    single = helper.make_model(
        helper.make_graph(
            [node],
            "one node",
            [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name],
            [onnx.ValueInfoProto(name=name) for name in node.output],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    evaluator = ReferenceEvaluator(single)

    def at(place: int) -> list[Any]:
        named = zip(node.input, inputs, strict=True)
        feeds = {name: v.arrays[place] for name, v in named if isinstance(v, Known)}
        return list(evaluator.run(None, feeds))

    results = [at(place) for place in range(len(_TRIED))]
    return [Known([np.asarray(array) for array in arrays]) for arrays in zip(*results, strict=True)]
