"""int8: a graph whose weights and activations are rounded to 256 steps, chosen by real pictures."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from faceidx.errors import InputError, JobError
from faceidx.models.face_model import FaceModel
from faceidx.models.onnx_model import OnnxModel, normalized_batch

if TYPE_CHECKING:
    import onnx

# The first opset whose `DequantizeLinear` takes one.
_SCALES_A_CHANNEL = 13


def quantized(
    graph: onnx.ModelProto, exact: FaceModel, sample: np.ndarray | None
) -> onnx.ModelProto:
    """Quantise a graph to int8, with the range of each layer's values taken from pictures.

    Convolutions and linear layers are quantised, a scale a channel for the weights; the rest stays
    in float32.

    Args:
        exact: the model that the graph belongs to.
        sample: (N, H, W, 3) uint8 RGB of the model's input size.

    Raises:
        InputError: no pictures are given, or onnxruntime cannot quantise the graph.
        JobError: the disk of temporary files is full.
    """
    if sample is None or not len(sample):
        raise InputError(
            "int8 is calibrated on the pictures that are embedded, by `faceidx embed`; "
            "give another --precision here"
        )
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as temporary, _quiet():
        names = ("given.onnx", "prepared.onnx", "int8.onnx")
        given, prepared, target = (Path(temporary) / name for name in names)
        try:
            onnx.save(_with_scales_a_channel(graph), given)
            # Shapes are inferred by onnx; onnxruntime's own way needs another package.
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                target,
                _Pictures(graph, exact, sample),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return onnx.load(target)
        except OSError as error:
            raise JobError(
                f"{tempfile.gettempdir()}: the graph cannot be written there for a moment "
                f"({error.strerror or error}); set TMPDIR to another folder"
            ) from None
        except Exception as error:  # its errors share no base but Exception
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{exact.name} cannot be quantised to int8 ({reason})") from None


def _with_scales_a_channel(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of an opset that knows a scale a channel."""
    from onnx.version_converter import convert_version

    opset = max(o.version for o in graph.opset_import if o.domain in ("", "ai.onnx"))
    return graph if opset >= _SCALES_A_CHANNEL else convert_version(graph, _SCALES_A_CHANNEL)


class _Pictures:
    """Pictures one by one, as onnxruntime's calibration asks for them."""

    def __init__(self, graph: onnx.ModelProto, exact: FaceModel, sample: np.ndarray) -> None:
        weights = {tensor.name for tensor in graph.graph.initializer}
        (self._name,) = (i.name for i in graph.graph.input if i.name not in weights)
        last = isinstance(exact, OnnxModel) and exact.channels_last
        self._batches: Iterator[np.ndarray] = (
            normalized_batch(sample[i : i + 1], exact.preprocessing, channels_last=last)
            for i in range(len(sample))
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantiser advises on the root logger what is done here already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
