"""Batch norms folded into the layers before them: less to compute, the same numbers.

At inference a batch norm is a factor and a shift a channel, which the weights and bias of the
convolution or linear layer before it can take over.
"""

from __future__ import annotations

from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode with its batch norms folded where they can be.

    The original is left alone. A network that `torch.fx` cannot follow is returned as it is.
    """
    try:
        traced = fx.symbolic_trace(network)
    except Exception:  # tracing runs the network's own code with stand-ins: any error there is
        return network
    modules = dict(traced.named_modules())
    uses = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(node.args[0], fx.Node):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) > 1:
            continue
        if uses[node.target] > 1 or uses[before.target] > 1:  # a layer that is used in two places
            continue
        norm, layer = modules[node.target], modules[before.target]
        folded: nn.Module
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            folded = fuse_conv_bn_eval(layer, norm)
        elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            folded = fuse_linear_bn_eval(layer, norm)
        else:
            continue
        parent, _, name = str(before.target).rpartition(".")
        setattr(traced.get_submodule(parent), name, folded)
        modules[before.target] = folded
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
