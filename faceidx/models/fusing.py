"""Convolutions in bf16 with the activation behind them in one go: on CPUs, by oneDNN.

An activation by itself reads and writes all that the convolution has just written. And the biases
stay in float32, whose rounding would else make up half of what bf16 costs an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn


def fuse_convolutions(network: nn.Module, exact: nn.Module, shape: tuple[int, ...]) -> bool:
    """Have the convolutions of a network take over the activations behind them, in place.

    Args:
        network: in bf16, as `torch.fx` has traced it.
        exact: the same in float32, of which weights and biases are taken.
        shape: of the input (N, C, H, W) that weights are laid out for; others work as well.

    Returns:
        Whether that went well. Where this torch or this processor cannot do it, the network may be
        half done and is of no use any more.
    """
    if not isinstance(network, fx.GraphModule) or not torch.backends.mkldnn.is_available():
        return False
    uses = [node.target for node in network.graph.nodes if node.op == "call_module"]
    try:
        for node in list(network.graph.nodes):
            if node.op == "call_module" and uses.count(node.target) == 1:
                layer = exact.get_submodule(str(node.target))
                if isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str):
                    _fuse(network, node, layer)
        network.recompile()
        _lay_out(network, shape)
    except (AttributeError, RuntimeError):
        return False
    return True


def _lay_out(network: fx.GraphModule, shape: tuple[int, ...]) -> None:
    """Let each convolution see what it will be given."""
    blank = torch.zeros(shape, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    with torch.no_grad():
        network(blank)


@dataclass(frozen=True, kw_only=True)
class _Activation:
    """In oneDNN's words."""

    name: str = "none"
    scalars: tuple[float, ...] = ()


def _fuse(network: fx.GraphModule, node: fx.Node, layer: nn.Conv2d) -> None:
    behind = next(iter(node.users)) if len(node.users) == 1 else None
    activation = None if behind is None else _activation(behind)
    network.set_submodule(str(node.target), _Convolution(layer, activation or _Activation()))
    if behind is not None and activation is not None:
        behind.replace_all_uses_with(node)
        network.graph.erase_node(behind)


def _activation(node: fx.Node) -> _Activation | None:
    if node.op != "call_function":
        return None
    if node.target in (F.relu, torch.relu):
        return _Activation(name="relu")
    if node.target is F.hardtanh and {"min_val", "max_val"} <= node.kwargs.keys():
        bounds: Any = (node.kwargs["min_val"], node.kwargs["max_val"])
        return _Activation(name="hardtanh", scalars=bounds)
    return None


class _Convolution(nn.Module):
    """(N, C, H, W) bf16 to (N, C', H', W') bf16: a convolution and an activation."""

    def __init__(self, layer: nn.Conv2d, activation: _Activation) -> None:
        super().__init__()
        self._shape = ([*map(int, layer.padding)], [*layer.stride], [*layer.dilation], layer.groups)
        # Neither a parameter nor a buffer: oneDNN's own layout can be neither cast nor moved.
        self._weight = layer.weight.detach().to(torch.bfloat16)
        self._laid_out = False
        bias = None if layer.bias is None else layer.bias.detach().float()
        self._arguments = (bias, *self._shape, activation.name, [*activation.scalars], "")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self._laid_out:
            # For what size it comes in: without that oneDNN guesses, and where it guesses wrong
            # lays the weight out anew in every call, which takes longer than the convolution.
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, *self._shape, [*x.shape]
            )
            self._laid_out = True
        rows: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, *self._arguments
        )
        return rows
