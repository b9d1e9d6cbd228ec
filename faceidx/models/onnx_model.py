"""Other people's `.onnx` models, run by onnxruntime."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceidx.errors import InputError
from faceidx.escape import for_terminal
from faceidx.files import sha256_file
from faceidx.images.keys import escape_key
from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import FaceModel
from faceidx.models.onnx_record import OnnxRecord, attached_classifier, attached_record
from faceidx.models.record import fingerprint

if TYPE_CHECKING:
    import onnx
    import onnxruntime

logger = logging.getLogger(__name__)

# How far batched and single embeddings may differ, relative to their length, for a model whose
# batch size was freed to count as working in batches: float32 rounding, with room for reordering.
_BATCH_TOLERANCE = 1e-3
_CUDA = "CUDAExecutionProvider"


@dataclass(kw_only=True)
class OnnxModel(FaceModel):
    """An ONNX graph from pictures to embeddings."""

    graph: onnx.ModelProto
    """What the session runs: with its batch size freed where it could be."""
    session: onnxruntime.InferenceSession
    channels_last: bool
    batched: bool
    """False for a graph that only works on one picture at a time."""

    def raw_embed(self, pictures: np.ndarray) -> np.ndarray:
        return self.run(
            normalized_batch(pictures, self.preprocessing, channels_last=self.channels_last)
        )

    def run(self, batch: np.ndarray) -> np.ndarray:
        """The graph itself: (N, ...) float32, normalised, to (N, D) float32."""
        if self.batched:
            return run_session(self.session, batch)
        rows = [run_session(self.session, batch[i : i + 1]) for i in range(len(batch))]
        return np.concatenate(rows)


def load_onnx_model(
    path: Path, preprocessing: Preprocessing, *, device: str, own: OnnxRecord | None = None
) -> OnnxModel:
    """Load an ONNX model, with its batch size freed where the export fixed it to 1.

    Args:
        own: what the file says of itself, None where faceidx did not write it.

    Raises:
        InputError: the file is missing or no ONNX model, it refers to data outside its folder, or
            its input and output are not one batch of pictures and one row of numbers a picture.
    """
    graph = read_graph(path)
    shape, channels_last = _input_shape(graph, path)
    height, width = preprocessing.image_size
    wanted = [height, width, 3] if channels_last else [3, height, width]
    for given, needed in zip(shape[1:], wanted, strict=True):
        if given not in (None, needed):
            raise InputError(
                f"{path} takes pictures of {shape[1:]}, not {wanted}; drop --image-size"
            )
    fixed = shape[0]
    freed = None if fixed is None else _freed(graph, fixed, wanted, device, path)
    batched = fixed is None or freed is not None
    graph, session = freed or (graph, open_session(graph, device, path))
    if not batched and fixed != 1:
        raise InputError(f"{path} takes batches of {fixed} and nothing else; export it anew")
    single = run_session(session, np.zeros((1, *wanted), np.float32), path)
    _check_output(session, single, path, tell=own is None)
    exported = own is not None and own.record.arch != "onnx"
    batched = batched and (exported or _works_in_batches(session, single, wanted))
    head = attached_classifier(graph, own)
    return OnnxModel(
        name=escape_key(path.name),
        arch=own.record.arch if own else "onnx",
        embedding_dim=single.shape[1],
        preprocessing=preprocessing,
        weights=(own and own.weights) or digest(path),
        template=own.record.template if own else None,
        training=own.record.training if own else {},
        class_names=own.record.class_names if own and head else None,
        head=own.record.head if own and head else None,
        head_weights=head,
        engine="onnx",
        device=device,
        precision="fp32",
        graph=graph,
        session=session,
        channels_last=channels_last,
        batched=batched,
    )


def _works_in_batches(
    session: onnxruntime.InferenceSession, single: np.ndarray, wanted: list[int]
) -> bool:
    """Whether a graph whose batch is said to be free gives two pictures what it gives each.

    Args:
        single: what it gives the picture of zeros.
    """
    two = np.zeros((2, *wanted), np.float32)
    two[1] = np.random.default_rng(0).uniform(-1, 1, wanted)
    try:
        return bool(_close(run_session(session, two)[:1], single).all())
    except InputError:
        return False


def _close(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(N,) whether rows of (N, D) are the same but for rounding; all are not, of another shape."""
    if found.shape != wanted.shape:
        return np.zeros(len(wanted), bool)
    distances: np.ndarray = np.linalg.norm(found - wanted, axis=1)
    return distances <= _BATCH_TOLERANCE * np.linalg.norm(wanted, axis=1)


def _check_output(
    session: onnxruntime.InferenceSession, single: np.ndarray, path: Path, *, tell: bool
) -> None:
    """Raise `InputError` where what a graph gives of a picture is no embedding.

    Args:
        tell: that of several outputs the first is taken.
    """
    first, *others = session.get_outputs()
    if single.shape[1] < 2:
        raise InputError(f"{path}: its output {first.name} is one number a picture, no embedding")
    if others and tell:
        logger.warning(
            "%s: its first output, %s, is taken for the embedding; left out: %s",
            path.name,
            for_terminal(first.name),
            ", ".join(for_terminal(other.name) for other in others),
        )


def own_record(path: Path) -> OnnxRecord | None:
    """What an ONNX file says of itself, None where faceidx did not write it.

    Raises:
        InputError: as `load_onnx_model`, or the record is damaged.
    """
    return attached_record(read_graph(path), path)


def describe_onnx(path: Path, preprocessing: Preprocessing | None) -> dict[str, Any]:
    """What an ONNX file says of itself, in the terms of `about.describe`.

    Args:
        preprocessing: as given beside the file; None where nothing is.

    Raises:
        InputError: as `load_onnx_model`.
    """
    graph = read_graph(path)
    size = onnx_image_size(path)
    dims = [dim.dim_value for dim in graph.graph.output[0].type.tensor_type.shape.dim]
    own = attached_record(graph, path)
    record = own.record if own else None
    preprocessing = record.preprocessing if record else preprocessing
    unknown = {"image_size": list(size) if size else None, "color": None, "mean": None, "std": None}
    prints: list[str | None] = [None, None]
    if preprocessing:
        weights = (own and own.weights) or digest(path)
        template = record.template if record else None
        prints = [fingerprint(weights, preprocessing, template, flip=f) for f in (False, True)]
    names = record.class_names if record else None
    producer = f"{graph.producer_name} {graph.producer_version}".strip()
    return {
        "kind": "onnx",
        "recognised": record.training.get("recognised") if record else None,
        "arch": record.arch if record else "onnx",
        "embedding_dim": math.prod(dims[1:]) or None if len(dims) > 1 else None,
        **(preprocessing.to_dict() if preprocessing else unknown),
        "template": record.template if record else None,
        "parameters": sum(math.prod(t.dims) for t in graph.graph.initializer),
        "fingerprint": prints[0],
        "fingerprint_flip": prints[1],
        "classes": len(names or []),
        "class_names": names,
        "head": None,
        "training": {**(record.training if record else {}), "producer": producer},
    }


def digest(path: Path) -> str:
    """SHA-256 of the model, of all its files where there are several."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    digests = [sha256_file(file) for file in (path, *_external_files(model, path))]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def onnx_image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) that an ONNX model asks for, None where it leaves them open.

    Raises:
        InputError: as `load_onnx_model`.
    """
    shape, channels_last = _input_shape(read_graph(path), path)
    height, width = shape[1:3] if channels_last else shape[2:4]
    return None if height is None or width is None else (height, width)


def read_graph(path: Path) -> onnx.ModelProto:
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
    for file in _external_files(model, path):
        if not file.is_file() or not file.resolve().is_relative_to(path.parent.resolve()):
            raise InputError(f"{path} refers to data that is not in its folder ({file.name!r})")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx's ValidationError and others share no base but Exception
        raise InputError(f"{path}: its data cannot be read ({_one_line(error)})") from None
    return model


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


def _freed(
    model: onnx.ModelProto, fixed: int, wanted: list[int], device: str, path: Path
) -> tuple[onnx.ModelProto, onnxruntime.InferenceSession] | None:
    """The graph with its batch size freed and its session, or None where that does not work.

    Exporters write a fixed batch size into the input's shape and into the constants of `Reshape`.
    Both are replaced; then a batch must give what single pictures give, or the change is dropped.
    """
    import onnx

    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    for value in (*freed.graph.input, *freed.graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) and dims[0].dim_value == fixed:
            dims[0].dim_param = "batch"
    del freed.graph.value_info[:]
    _free_reshapes(freed, fixed)
    rng = np.random.default_rng(0)
    # One more than the fixed size, or a graph that is not free at all would pass.
    pictures = rng.uniform(-1, 1, (max(3, fixed + 1), *wanted)).astype(np.float32)
    try:
        session = open_session(freed, device, path)
        together = run_session(session, pictures, path)
        original = open_session(model, device, path)
        if fixed == 1:
            alone = np.concatenate(
                [run_session(original, picture[None], path) for picture in pictures]
            )
        else:
            together, alone = together[:fixed], run_session(original, pictures[:fixed], path)
    except InputError:
        return None
    return (freed, session) if bool(_close(together, alone).all()) else None


def _free_reshapes(model: onnx.ModelProto, fixed: int) -> None:
    """In `Reshape` targets that begin with the fixed batch size, say "as the input has it" (0)."""
    from onnx import numpy_helper

    targets = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    constants = [t for t in model.graph.initializer if t.name in targets]
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in targets:
            constants += [a.t for a in node.attribute if a.name == "value"]
    for tensor in constants:
        target = numpy_helper.to_array(tensor).copy()
        if target.ndim == 1 and len(target) > 1 and target[0] == fixed:
            target[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(target, tensor.name))


def runs_on_gpu() -> bool:
    """Whether the installed onnxruntime was built to use a GPU."""
    import onnxruntime

    return _CUDA in onnxruntime.get_available_providers()


def open_session(model: onnx.ModelProto, device: str, path: Path) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is an error of ours, in one line
    # Waiting threads would keep the cores from those that decode pictures meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        _, _, number = device.partition(":")
        providers.insert(0, (_CUDA, {"device_id": int(number or 0)}))
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # its errors share no base class but Exception
        raise InputError(f"{path} cannot be run by onnxruntime ({_one_line(error)})") from None


def run_session(
    session: onnxruntime.InferenceSession, batch: np.ndarray, path: Path | None = None
) -> np.ndarray:
    name = session.get_inputs()[0].name
    try:
        output = np.asarray(session.run([session.get_outputs()[0].name], {name: batch})[0])
    except Exception as error:  # as above
        raise InputError(f"{path or 'the model'} failed to run ({_one_line(error)})") from None
    output = np.atleast_1d(output)
    if output.ndim > 2 and output[0].size != max(output.shape[1:]):
        raise InputError(
            f"{path or 'the model'} gives a map of {output.shape[1:]} a picture, no embedding"
        )
    output = output.reshape(output.shape[0], -1) if output.ndim != 2 else output
    if len(output) != len(batch):
        raise InputError(
            f"{path or 'the model'} gives {len(output)} rows for {len(batch)} pictures"
        )
    return output.astype(np.float32, copy=False)


def normalized_batch(
    pictures: np.ndarray, preprocessing: Preprocessing, *, channels_last: bool
) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB to float32 in the model's colour order, scale and layout."""
    mean = np.asarray(preprocessing.mean, np.float32) * 255
    std = np.asarray(preprocessing.std, np.float32) * 255
    if preprocessing.color == "bgr":
        pictures = pictures[..., ::-1]
    batch = (pictures.astype(np.float32) - mean) / std
    return batch if channels_last else np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
