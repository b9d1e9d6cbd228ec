"""What a walk over an ONNX graph writes down: the same graph for torch, tried out as it grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx, nn


class UnsupportedError(Exception):
    """A graph holds something that is not converted; the message says what."""


@dataclass(frozen=True)
class Known:
    """Numbers that do not depend on the pictures, at each of the batch sizes that are tried."""

    arrays: list[np.ndarray]

    def array(self) -> np.ndarray:
        """The numbers, where they do not depend on the batch size either."""
        if any(not np.array_equal(self.arrays[0], array) for array in self.arrays[1:]):
            raise UnsupportedError("a weight that depends on the batch size")
        return self.arrays[0]


@dataclass(frozen=True)
class Flow:
    """A tensor at run time, with an example of it at each of the batch sizes."""

    node: fx.Node
    examples: list[torch.Tensor]

    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(example.shape) for example in self.examples]

    def rank(self) -> int:
        return self.examples[0].ndim


Value = Known | Flow


class Builder:
    """A `torch.fx` graph under construction.

    No name of the file's goes into the code that `torch.fx` makes of the graph, only numbers and
    functions of ours: names are hostile.
    """

    def __init__(self, pictures: list[torch.Tensor]) -> None:
        self._graph = fx.Graph()
        self._root = nn.Module()
        self.input = Flow(self._graph.placeholder("pictures"), pictures)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Flow:
        """A function of values and plain Python numbers, in lists or alone."""
        node = self._graph.call_function(function, _mapped(args, _node), _mapped(kwargs, _node))
        examples = []
        for place in range(len(self.input.examples)):
            tried = partial(_example, place)
            examples.append(function(*_mapped(args, tried), **_mapped(kwargs, tried)))
        return Flow(node, examples)

    def layer(self, module: nn.Module, value: Flow) -> Flow:
        """A module of one value."""
        name = f"layer{len(self._root._modules)}"
        self._root.add_module(name, module.eval())
        node = self._graph.call_module(name, (value.node,))
        return Flow(node, [module(example) for example in value.examples])

    def constant(self, array: np.ndarray) -> Any:
        """Numbers as an argument of `call`: a plain number where it is one, whatever its type."""
        if array.size == 1 and array.ndim <= 1:
            return array.item()
        tensor = torch.from_numpy(array.copy())
        name = f"constant{len(self._root._buffers)}"
        self._root.register_buffer(name, tensor)
        return Flow(self._graph.get_attr(name), [tensor] * len(self.input.examples))

    def module(self, output: Flow) -> nn.Module:
        """The finished module, in evaluation mode."""
        self._graph.output(output.node)
        return fx.GraphModule(self._root, self._graph).eval().requires_grad_(False)


def _node(flow: Flow) -> fx.Node:
    return flow.node


def _example(place: int, flow: Flow) -> torch.Tensor:
    return flow.examples[place]


def _mapped(value: Any, take: Callable[[Flow], Any]) -> Any:
    """Arguments with every `Flow` in them replaced."""
    if isinstance(value, Flow):
        return take(value)
    if isinstance(value, dict):
        return {key: _mapped(item, take) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, take) for item in value)
    return value
