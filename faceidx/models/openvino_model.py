"""Any model, run by OpenVINO: on Intel's and AMD's CPUs the fastest there is, without compiling."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from faceidx.errors import InputError
from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import FaceModel
from faceidx.resources import core_limit

if TYPE_CHECKING:
    import onnx

# Pictures a request (benchmarks/engines.py): several requests at a time keep the cores busy better
# than one large one, as no core waits for another after each layer.
_CHUNK = 8
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


@dataclass(kw_only=True)
class OpenVinoModel(FaceModel):
    """A graph compiled by OpenVINO for the CPU, normalising included."""

    requests: list[Any]
    """As many as OpenVINO runs at a time."""
    chunk: int

    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        starts = range(0, len(pictures), self.chunk)
        rows: list[np.ndarray] = []
        # In turn, and without callbacks: those need Python's lock while the requests may hold it.
        for place, start in enumerate(starts):
            request = self.requests[place % len(self.requests)]
            if place >= len(self.requests):
                rows.append(_finished(request))
            part = pictures[start : start + self.chunk]
            if len(part) < self.chunk:
                padding = np.zeros((self.chunk - len(part), *part.shape[1:]), np.uint8)
                part = np.concatenate([part, padding])
            request.start_async({0: np.ascontiguousarray(part)})
        left = range(len(rows), len(starts))
        rows.extend(_finished(self.requests[place % len(self.requests)]) for place in left)
        return np.concatenate(rows)[: len(pictures)]


def _finished(request: Any) -> np.ndarray:
    """The (chunk, D) float32 rows of a request, once they are there."""
    request.wait()
    rows: np.ndarray = request.get_output_tensor(0).data
    return rows.reshape(len(rows), -1).astype(np.float32)


def is_installed() -> bool:
    """Whether the extra is there."""
    from importlib.util import find_spec

    return find_spec("openvino") is not None


def quiet_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which would tell Google Analytics that it was imported.

    It asks nobody and writes into the user's home. Where the package is missing OpenVINO does
    without; so that is what it is made to see.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return cast(ModuleType, openvino)


def compile_graph(
    graph: onnx.ModelProto,
    preprocessing: Preprocessing,
    *,
    precision: str,
    channels_last: bool,
    batched: bool,
    name: str,
) -> tuple[list[Any], int]:
    """Compile an ONNX graph for the CPU.

    Returns:
        Requests from (chunk, H, W, 3) uint8 RGB to (chunk, D), and the chunk.

    Raises:
        InputError: OpenVINO cannot run it.
    """
    openvino = quiet_openvino()
    from openvino.preprocess import PrePostProcessor

    chunk = _CHUNK if batched else 1
    height, width = preprocessing.image_size
    try:
        model = openvino.Core().read_model(graph.SerializeToString())
        model.reshape([chunk, height, width, 3] if channels_last else [chunk, 3, height, width])
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(
            openvino.Layout("NHWC")
        )
        steps.input().model().set_layout(openvino.Layout("NHWC" if channels_last else "NCHW"))
        to_input = steps.input().preprocess().convert_element_type(openvino.Type.f32)
        if preprocessing.color == "bgr":
            to_input.reverse_channels()
        to_input.mean([255 * value for value in preprocessing.mean])
        to_input.scale([255 * value for value in preprocessing.std])
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        if limit := core_limit():
            settings["INFERENCE_NUM_THREADS"] = limit
        compiled = openvino.Core().compile_model(steps.build(), "CPU", settings)
        _require_precision(compiled.get_property("INFERENCE_PRECISION_HINT"), precision, name)
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        return [compiled.create_infer_request() for _ in range(count)], chunk
    except InputError:
        raise
    except Exception as error:  # its errors share no base but Exception
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name} cannot be run by OpenVINO ({reason})") from None


def _require_precision(hint: Any, precision: str, name: str) -> None:
    """Raise `InputError` where OpenVINO took another precision than it was asked for."""
    found, wanted = hint.get_type_name(), _PRECISIONS[precision]
    if found != wanted:
        raise InputError(
            f"{name}: OpenVINO does not compute in {wanted} here, but in {found}; give another "
            "--precision"
        )
