"""A whole network as oneDNN's graph: on CPUs, layers in bf16 that are run together.

oneDNN sees more than one layer at a time there, so that sums and activations of any kind are done
while a convolution writes, and few calls are left. TorchScript is what leads to it: a trace of the
network, handed over in parts as large as oneDNN will take. In small networks, where calling the
layers takes a good part of the time, that is a quarter faster (benchmarks/results.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# A run to see which shapes come, one that hands over what it saw, and one as all others will be.
_RUNS = 3
# What TorchScript calls a part that oneDNN has taken.
_TAKEN = "oneDNNFusionGroup"


def graph_of(network: nn.Module, example: torch.Tensor) -> Any:
    """Hand a network over to oneDNN.

    Args:
        network: in evaluation mode, on the CPU; left alone, but its parameters take no gradients
            any more.
        example: an input; all others must have its shape and dtype.

    Returns:
        What is called as the network is, without gradients, by several threads at once.

    Raises:
        RuntimeError: oneDNN takes no part of it; or whatever else TorchScript raises.
    """
    network.requires_grad_(False)
    with _handing_over(), torch.no_grad():
        trace: Any = torch.jit.trace(network, example, check_trace=False)
        # Numbers stay as they are: what is folded into weights would be rounded once more.
        graph = torch.jit.freeze(trace, optimize_numerics=False)
        for _ in range(_RUNS):
            graph(example)
        if _TAKEN not in str(torch.jit.last_executed_optimized_graph()):
            raise RuntimeError("oneDNN takes no part of the network")
    return graph


@contextmanager
def _handing_over() -> Iterator[None]:
    """While this lasts, what TorchScript prepares goes to oneDNN; TorchScript is deprecated."""
    before = torch.jit.onednn_fusion_enabled()
    torch.jit.enable_onednn_fusion(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.jit.enable_onednn_fusion(before)


def split_biases(network: nn.Module, exact: nn.Module) -> None:
    """Have convolutions in bf16 add their biases in two parts, in place.

    oneDNN's graph takes no bias in float32 beside weights in bf16, and the rounding of biases makes
    up half of what bf16 costs an embedding. What rounding leaves is added behind the convolution,
    which oneDNN does before it rounds the sum. Layers that widen are left out: they write the most,
    so that the addition costs a tenth of the speed there, and hardly tells.

    Args:
        network: in bf16.
        exact: the same in float32.
    """
    for name, layer in list(network.named_modules()):
        if (
            isinstance(layer, nn.Conv2d)
            and layer.bias is not None
            and layer.out_channels <= layer.in_channels
        ):
            bias = exact.get_parameter(f"{name}.bias").detach()
            network.set_submodule(name, _SplitBias(layer, bias))


class _SplitBias(nn.Module):
    """A convolution (N, C, H, W) to (N, C', H', W') in bf16, whose bias has twice the digits."""

    _rest: torch.Tensor

    def __init__(self, layer: nn.Conv2d, bias: torch.Tensor) -> None:
        super().__init__()
        self._layer = layer
        rounded = bias.to(torch.bfloat16)
        layer.bias = nn.Parameter(rounded, requires_grad=False)
        rest = (bias - rounded.float()).to(torch.bfloat16)
        self.register_buffer("_rest", rest.view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self._layer(x) + self._rest
        return rows
