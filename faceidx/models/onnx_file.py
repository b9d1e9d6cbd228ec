"""What an `.onnx` file holds, read once and whole: its graph, and what it says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faceidx.errors import InputError
from faceidx.files import sha256_file
from faceidx.models.onnx_record import OnnxRecord, attached_record

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """An ONNX model with one picture input."""

    path: Path
    graph: onnx.ModelProto
    """With all weights, those of files beside it included."""
    beside: list[Path]
    """Files that hold some of its weights."""
    own: OnnxRecord | None
    """What it says of itself, None where faceidx did not write it."""
    shape: list[int | None]
    """Of its input; None for a free dimension."""
    channels_last: bool

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) that it asks for, None where it leaves them open."""
        height, width = self.shape[1:3] if self.channels_last else self.shape[2:4]
        return None if height is None or width is None else (height, width)

    @property
    def weights(self) -> str:
        """SHA-256 of the backbone's weights as its record has it, else of all its files."""
        return (self.own and self.own.weights) or self._digest()

    def _digest(self) -> str:
        digests = [sha256_file(file) for file in (self.path, *self.beside)]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX model.

    Raises:
        InputError: the file is missing or no ONNX model, it refers to data outside its folder, its
            record is damaged, or its input is not one batch of pictures.
    """
    graph, beside = _read_graph(path)
    own = attached_record(graph, path)
    shape, channels_last = _input_shape(graph, path)
    return OnnxFile(
        path=path, graph=graph, beside=beside, own=own, shape=shape, channels_last=channels_last
    )


def _read_graph(path: Path) -> tuple[onnx.ModelProto, list[Path]]:
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise InputError(f"{path} is no readable ONNX model ({error})") from None
    if not model.graph.input or not model.graph.output:
        raise InputError(f"{path} is no ONNX model (its graph has no input or no output)")
    beside = _external_files(model, path)
    for file in beside:
        if not file.is_file() or not file.resolve().is_relative_to(path.parent.resolve()):
            raise InputError(f"{path} refers to data that is not in its folder ({file.name!r})")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx's ValidationError and others share no base but Exception
        raise InputError(f"{path}: its data cannot be read ({one_line(error)})") from None
    return model, beside


def _external_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Files beside an ONNX model that hold some of its weights."""
    nodes = [node for function in model.functions for node in function.node]
    tensors = (*_tensors(model.graph), *_tensors_of_nodes(nodes))
    entries = (e for t in tensors for e in t.external_data)
    return sorted({path.parent / e.value for e in entries if e.key == "location"})


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph holds, in the branches of its nodes too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (a for node in nodes for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors(graph)


def _input_shape(model: onnx.ModelProto, path: Path) -> tuple[list[int | None], bool]:
    """Shape of the one picture input, None for a free dimension; whether channels come last."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    if len(inputs) != 1:
        raise InputError(f"{path} takes {len(inputs)} inputs; a face model takes one, the pictures")
    dims = inputs[0].type.tensor_type.shape.dim
    shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise InputError(f"{path} takes {shape}, not a batch of three-channel pictures")
    return shape, shape[1] != 3


def goes_by_its_batch(graph: onnx.GraphProto) -> bool:
    """Whether a batch norm was exported as it works in training, by the pictures beside.

    Until opset 13 one is known by its further outputs.
    """
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            told = [a.i for a in node.attribute if a.name == "training_mode"]
            if told[0] if told else sum(map(bool, node.output)) > 1:
                return True
    return False


def subtracts_a_mean(graph: onnx.GraphProto) -> bool:
    """Whether a graph begins by taking constants from its pictures, as exports of MXNet's do."""
    fixed = {tensor.name for tensor in graph.initializer}
    fixed |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    name = next(value.name for value in graph.input if value.name not in fixed)
    for _ in graph.node:  # no longer: a damaged graph may lead back to itself
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1 or any(other not in {name, *fixed} for other in users[0].input):
            return False
        if users[0].op_type in ("Sub", "Add"):
            return True
        if users[0].op_type not in ("Mul", "Div", "Cast", "Identity", "Transpose"):
            return False
        name = users[0].output[0]
    return False


def one_line(error: Exception) -> str:
    """What onnx or onnxruntime says of an error, short enough for a line."""
    return " ".join(str(error).split())[:200]
