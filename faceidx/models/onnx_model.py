"""Other people's `.onnx` models, run by onnxruntime."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceidx.errors import InputError
from faceidx.escape import for_terminal
from faceidx.images.keys import escape_key
from faceidx.images.preprocess import Preprocessing
from faceidx.models.face_model import FaceModel
from faceidx.models.onnx_file import OnnxFile, goes_by_its_batch, one_line, subtracts_a_mean
from faceidx.models.onnx_record import attached_classifier
from faceidx.resources import core_limit

if TYPE_CHECKING:
    import onnx
    import onnxruntime

logger = logging.getLogger(__name__)

# How far batched and single embeddings may differ, relative to their length, for a model whose
# batch size was freed to count as working in batches: float32 rounding, with room for reordering.
_BATCH_TOLERANCE = 1e-3
_IN_TRAINING = (
    "gives a picture another embedding each time, or with other pictures beside it; export it in "
    "evaluation mode (model.eval())"
)
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
    file: OnnxFile, preprocessing: Preprocessing, template: str | None, *, device: str
) -> OnnxModel:
    """Load an ONNX model, with its batch size freed where the export fixed it to 1.

    Args:
        template: alignment of the faces that it was trained on, where that is known.

    Raises:
        InputError: it cannot be run, it does not turn a batch of such pictures into one row of
            numbers a picture, or these depend on chance or on the pictures beside.
    """
    path, own, shape = file.path, file.own, file.shape
    height, width = preprocessing.image_size
    wanted = [height, width, 3] if file.channels_last else [3, height, width]
    for given, needed in zip(shape[1:], wanted, strict=True):
        if given not in (None, needed):
            raise InputError(
                f"{path} takes pictures of {shape[1:]}, not {wanted}; drop --image-size"
            )
    if goes_by_its_batch(file.graph.graph):
        raise InputError(f"{path} {_IN_TRAINING}")
    if own is None and any(preprocessing.mean) and subtracts_a_mean(file.graph.graph):
        logger.warning(
            "%s takes a mean from its pictures itself, beside the one given; where it is to have "
            "them as they are, give --mean 0, and --std 1 for pixels of 0 to 1 or %.7f of 0 to 255",
            path.name,
            1 / 255,
        )
    fixed = shape[0]
    freed = None if fixed is None else _freed(file.graph, fixed, wanted, device, path)
    batched = fixed is None or freed is not None
    graph, session = freed or (file.graph, open_session(file.graph, device, path))
    if not batched and fixed != 1:
        raise InputError(f"{path} takes batches of {fixed} and nothing else; export it anew")
    picture = np.random.default_rng(0).uniform(-1, 1, (1, *wanted)).astype(np.float32)
    single = run_session(session, picture, path)
    _check_output(session, single, path, tell=own is None)
    exported = own is not None and own.record.arch != "onnx"
    batched = batched and (exported or _works_in_batches(session, picture, single))
    if not batched and _differ(run_session(session, picture, path), single):
        raise InputError(f"{path} {_IN_TRAINING}")
    head = attached_classifier(graph, own)
    return OnnxModel(
        name=escape_key(path.name),
        arch=own.record.arch if own else "onnx",
        embedding_dim=single.shape[1],
        preprocessing=preprocessing,
        weights=file.weights,
        template=template,
        training=own.record.training if own else {},
        class_names=own.record.class_names if own and head else None,
        head=own.record.head if own and head else None,
        head_weights=head,
        engine="onnx",
        device=device,
        precision="fp32",
        graph=graph,
        session=session,
        channels_last=file.channels_last,
        batched=batched,
    )


def _works_in_batches(
    session: onnxruntime.InferenceSession, picture: np.ndarray, single: np.ndarray
) -> bool:
    """Whether a graph whose batch is said to be free gives two pictures what it gives each.

    Args:
        single: what it gives the picture.
    """
    two = np.concatenate([picture, np.zeros_like(picture)])
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


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether finite rows are not the same."""
    return bool(np.isfinite(one).all()) and not bool(_close(one, other).all())


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
    options.intra_op_num_threads = core_limit() or 0  # 0 is as many as it sees
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        _, _, number = device.partition(":")
        providers.insert(0, (_CUDA, {"device_id": int(number or 0)}))
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # its errors share no base class but Exception
        raise InputError(f"{path} cannot be run by onnxruntime ({one_line(error)})") from None


def run_session(
    session: onnxruntime.InferenceSession, batch: np.ndarray, path: Path | None = None
) -> np.ndarray:
    name = session.get_inputs()[0].name
    try:
        output = np.asarray(session.run([session.get_outputs()[0].name], {name: batch})[0])
    except Exception as error:  # as above
        raise InputError(f"{path or 'the model'} failed to run ({one_line(error)})") from None
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
