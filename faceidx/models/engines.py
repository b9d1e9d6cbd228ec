"""The ways in which a model can be run, and how each is made of the model as it was opened.

A model is first opened by the engine that is natural to its file, in float32: weights by torch, an
ONNX graph by onnxruntime. All else is made of that and judged against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceidx.errors import InputError
from faceidx.models.face_model import Compiled, FaceModel
from faceidx.models.onnx_model import OnnxModel, open_session, runs_on_gpu
from faceidx.models.remembered import processor

if TYPE_CHECKING:
    import onnx
    from torch import nn

# How Linux names the instructions on x86 and on ARM; without them bf16 is slower than fp32.
_BF16_WORDS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run a model."""

    engine: str
    precision: str
    compiled: Compiled = False

    def __str__(self) -> str:
        compiled = {False: "", True: " compiled", "onednn": " as oneDNN's graph"}[self.compiled]
        return f"{self.engine} {self.precision}{compiled}"


def build(
    exact: FaceModel,
    way: Way,
    *,
    device: str,
    batch_size: int | None = None,
    sample: np.ndarray | None = None,
) -> FaceModel:
    """Make a model run in another way.

    Args:
        exact: as its file's natural engine opened it, in float32.
        device: `cpu`, `cuda` or `cuda:N`.
        batch_size: what batches will have, for GPUs.
        sample: (N, H, W, 3) uint8 pictures that int8 is calibrated on.

    Raises:
        InputError: the model cannot be run in that way; the message says why and the way out.
    """
    if (way.engine, way.precision, way.compiled, device) == (
        exact.engine,
        exact.precision,
        exact.compiled,
        exact.device,
    ):
        return exact
    if way.engine == "torch":
        return _torch(exact, way, device, batch_size)
    if way.engine == "openvino" and device != "cpu":
        raise InputError("--engine openvino is for CPUs; give --device cpu or --engine torch")
    if way.engine == "onnx" and device != "cpu" and not runs_on_gpu():
        raise InputError(
            f"--device {device}: the installed onnxruntime has no GPU in it; give cpu or auto, "
            "--engine torch, or install onnxruntime-gpu in its place"
        )
    graph = _graph(exact)
    if way.precision == "int8":
        from faceidx.models.quantize import quantized

        graph = quantized(graph, exact, sample)
    elif way.engine == "onnx" and way.precision != "fp32":
        raise InputError(
            f"onnxruntime runs {exact.name} as it was exported; drop --precision {way.precision}, "
            "or give --engine torch"
        )
    if way.engine == "openvino":
        return _openvino(exact, way, graph)
    return _onnx(exact, way, graph, device)


def fast_precisions(device: str) -> list[str]:
    """Precisions below fp32 that a device computes faster than fp32, the most faithful first."""
    import torch

    if device != "cpu":
        with torch.cuda.device(device):  # cards may differ, and it is the current one that is asked
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["bf16"] if bf16 else ["fp16"]
    return ["bf16"] if _BF16_WORDS & set(processor().split()) else []


def natural(exact: FaceModel) -> Way:
    """How a model runs as it was opened."""
    return Way(engine=exact.engine, precision=exact.precision, compiled=exact.compiled)


def _facts(exact: FaceModel, way: Way, device: str) -> dict[str, Any]:
    """What stays of a model whatever runs it, in the terms of `FaceModel`."""
    names = ("name", "arch", "embedding_dim", "preprocessing", "weights", "template")
    more = ("class_names", "training", "head", "head_weights")
    kept: dict[str, Any] = {name: getattr(exact, name) for name in (*names, *more)}
    return kept | {"engine": way.engine, "precision": way.precision, "device": device}


def _torch(exact: FaceModel, way: Way, device: str, batch_size: int | None) -> FaceModel:
    from faceidx.models.torch_model import TorchModel
    from faceidx.models.torch_runner import Runner

    if way.precision == "int8":
        raise InputError("torch does not run int8 here; give --engine onnx or openvino")
    network = exact.backbone if isinstance(exact, TorchModel) else _network(exact)
    runner = Runner(
        network,
        exact.preprocessing,
        device=device,
        precision=way.precision,
        batch_size=batch_size,
        compiled=way.compiled,
    )
    return TorchModel(
        **_facts(exact, way, device),
        compiled=runner.compiled,
        best_batch=runner.best_batch,
        backbone=network,
        runner=runner,
    )


def _network(exact: FaceModel) -> nn.Module:
    """An ONNX model as a torch network of (N, 3, H, W).

    Raises:
        InputError: it cannot be converted.
    """
    from faceidx.models.onnx_builder import UnsupportedError
    from faceidx.models.onnx_torch import torch_module

    assert isinstance(exact, OnnxModel)
    try:
        if not exact.batched:
            raise UnsupportedError("it works on one picture at a time")
        return torch_module(
            exact.graph,
            exact.preprocessing.image_size,
            exact.run,
            channels_last=exact.channels_last,
        )
    except UnsupportedError as error:
        raise InputError(
            f"{exact.name} cannot be run by torch ({error}); give --engine onnx or openvino"
        ) from None


def _graph(exact: FaceModel) -> onnx.ModelProto:
    """A model as an ONNX graph.

    Raises:
        JobError: torch cannot export it.
    """
    from faceidx.models.torch_model import TorchModel

    if isinstance(exact, OnnxModel):
        return exact.graph
    from faceidx.models.export import onnx_graph

    assert isinstance(exact, TorchModel)
    return onnx_graph(exact.backbone, exact.preprocessing.image_size)


def _layout(exact: FaceModel) -> dict[str, Any]:
    """How the graph of a model takes its pictures."""
    if isinstance(exact, OnnxModel):
        return {"channels_last": exact.channels_last, "batched": exact.batched}
    return {"channels_last": False, "batched": True}


def _onnx(exact: FaceModel, way: Way, graph: onnx.ModelProto, device: str) -> FaceModel:
    return OnnxModel(
        **_facts(exact, way, device),
        **_layout(exact),
        graph=graph,
        session=open_session(graph, device, Path(exact.name)),
    )


def _openvino(exact: FaceModel, way: Way, graph: onnx.ModelProto) -> FaceModel:
    from faceidx.models.openvino_model import OpenVinoModel, compile_graph, is_installed

    if not is_installed():
        raise InputError("--engine openvino needs OpenVINO: pip install 'faceidx[openvino]'")
    requests, chunk = compile_graph(
        graph, exact.preprocessing, precision=way.precision, name=exact.name, **_layout(exact)
    )
    return OpenVinoModel(
        **_facts(exact, way, "cpu"),
        requests=requests,
        chunk=chunk,
        best_batch=2 * chunk * len(requests),
    )
