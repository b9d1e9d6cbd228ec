"""The one door to a model file, ours or others'."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from faceidx.errors import InputError
from faceidx.images.preprocess import PRESETS, Preprocessing, Preset
from faceidx.images.templates import template_for
from faceidx.models.device import resolve_device
from faceidx.models.face_model import Compiled, FaceModel
from faceidx.models.file import ModelFile, has_record, load_tensors, read_model, read_record
from faceidx.models.foreign.recognised import OF_TORCHVISION, Recognised, to_model_file
from faceidx.models.onnx_file import OnnxFile, read_onnx

if TYPE_CHECKING:
    from faceidx.models.onnx_model import OnnxModel

logger = logging.getLogger(__name__)

ONNX_SUFFIX = ".onnx"
# First bytes of what torch.save and pickle write: a zip archive, or a pickle of protocol 2 to 5.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# The field `ir_version` of ONNX's ModelProto, by its number, comes first.
_ONNX_STARTS = (b"\x08",)

Kind = Literal["faceidx", "weights", "onnx"]


@dataclass(kw_only=True)
class ModelOptions:
    """Which model to open, on what, and what a foreign file does not say of itself."""

    path: Path
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    compiled: Compiled | None = None
    """Whether and how torch compiles it first; None leaves that to `choose_model`."""
    image_size: int | None = None
    mean: tuple[float, float, float] | None = None
    """In units of the pixel range 0 to 1, in the order of `color`."""
    std: tuple[float, float, float] | None = None
    color: str | None = None
    preset: str | None = None
    template: str | None = None
    """Alignment of the faces it was trained on, one of `images.templates.TEMPLATES`."""
    fc: str | None = None
    """Of a torchvision ResNet: whether its last layer gives an `embedding` or is a `classifier`."""


FACTS = ("image_size", "mean", "std", "color", "preset", "template", "fc")
"""Options of what a foreign file does not say."""


def open_model(options: ModelOptions, *, batch_size: int | None = None) -> FaceModel:
    """Open a model for few pictures: nothing is measured, and what is not given is never guessed.

    An engine of `auto` is the one natural to the file (torch for weights, onnxruntime for ONNX, but
    torch where a GPU is asked for that onnxruntime cannot use), a precision of `auto` is fp32. So
    a verdict does not depend on what was measured on a machine before. For many pictures there is
    `choose_model`.

    Args:
        batch_size: what batches will have, where that is known: for GPUs.

    Raises:
        InputError: the file is missing, of no known kind, names code, is damaged; a foreign file
            whose preprocessing is not given; facts given that contradict the file's own record; or
            an engine or precision that cannot run it.
    """
    from faceidx.models.engines import Way, build

    exact = open_exact(options)
    engine, device = options.engine, exact.device
    if options.device != "auto":
        device = resolve_device(options.device)
        if engine == "auto" and device != exact.device:
            engine = "torch"
    elif engine == "torch":
        device = resolve_device("auto")
    way = Way(
        engine=exact.engine if engine == "auto" else engine,
        precision="fp32" if options.precision == "auto" else options.precision,
        compiled=options.compiled or False,
    )
    return build(exact, way, device=device, batch_size=batch_size)


def open_exact(options: ModelOptions) -> FaceModel:
    """Open a model by the engine that is natural to its file, in float32.

    It runs on the device that is asked for, where that engine can use it, else on the CPU.

    Raises:
        InputError: as `open_model`.
    """
    device = resolve_device(options.device)
    if kind_of(options.path) == "onnx":
        return open_onnx(read_onnx(options.path), options)
    from faceidx.models.torch_model import load_torch_model

    return load_torch_model(read_content(options), options.path, device=device)


def model_shape(options: ModelOptions) -> tuple[Preprocessing, str | None]:
    """What pictures a model wants and their alignment template, told without loading it.

    Raises:
        InputError: as `open_model`, as far as that shows in the file's head.
    """
    kind = kind_of(options.path)
    if kind == "weights":
        return _given_shape(options, None)
    if kind == "onnx":
        return onnx_shape(read_onnx(options.path), options)
    record = read_record(options.path)
    return record.preprocessing, record.template


def kind_of(path: Path) -> Kind:
    """Tell by a file's content what it is: ours, weights of another project, or ONNX.

    Raises:
        InputError: the file is missing, or none of these.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    if _is_pickled(path):
        return "weights"
    if path.suffix.lower() == ONNX_SUFFIX or _begins(path, _ONNX_STARTS):
        return "onnx"
    return "faceidx" if has_record(path) else "weights"


def read_content(options: ModelOptions) -> ModelFile:
    """Read a model that torch runs, ours or another project's, to the CPU.

    Raises:
        InputError: as `open_model`.
    """
    if kind_of(options.path) == "faceidx":
        refuse_given(options)
        return read_model(options.path)
    found = recognise_file(options.path, fc=options.fc)
    _say_once(f"{options.path}: {found}")
    preprocessing, template = _given_shape(options, None)
    content = to_model_file(found, preprocessing, str(options.path))
    content.record.template = template
    return content


def recognise_file(path: Path, *, fc: str | None = None) -> Recognised:
    """Tell what network of another project a file of weights holds.

    Raises:
        InputError: as `open_model`.
    """
    from faceidx.models.archive import read_tensors
    from faceidx.models.foreign import recognise

    tensors = read_tensors(path) if _is_pickled(path) else load_tensors(path)
    return recognise(tensors, str(path), fc=fc)


def _is_pickled(path: Path) -> bool:
    return _begins(path, _PICKLE_STARTS)


def _begins(path: Path, starts: tuple[bytes, ...]) -> bool:
    """Whether a file begins so, and not as a `.safetensors` whose header has just that length."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return False
    return start.startswith(starts)


def open_onnx(file: OnnxFile, options: ModelOptions) -> OnnxModel:
    """Open an ONNX graph with onnxruntime, on a GPU where that can use one.

    Raises:
        InputError: as `open_model`.
    """
    from faceidx.models.onnx_model import load_onnx_model, runs_on_gpu

    device = resolve_device(options.device) if runs_on_gpu() else "cpu"
    preprocessing, template = onnx_shape(file, options)
    return load_onnx_model(file, preprocessing, template, device=device)


def onnx_shape(file: OnnxFile, options: ModelOptions) -> tuple[Preprocessing, str | None]:
    """As `model_shape`, of an ONNX file that was read already.

    Raises:
        InputError: something is neither said nor given, or the file itself says what is given.
    """
    if file.own is None:
        if options.fc:
            raise InputError(f"{options.path}: {OF_TORCHVISION}")
        return _given_shape(options, file.image_size)
    refuse_given(options)
    return file.own.record.preprocessing, file.own.record.template


def refuse_given(options: ModelOptions) -> None:
    """Raise `InputError` where something is given that the file itself says."""
    if given := [name for name in FACTS if getattr(options, name)]:
        flag = f"--{given[0].replace('_', '-')}"
        raise InputError(f"{options.path} has its own record of preprocessing; drop {flag}")


def _given_shape(
    options: ModelOptions, own_size: tuple[int, int] | None
) -> tuple[Preprocessing, str | None]:
    """Put together what a foreign file says and what was given on the command line.

    Args:
        own_size: height and width that the file asks for, None where it leaves them open.

    Raises:
        InputError: something is neither said nor given, or makes no sense.
    """
    known = given_facts(options, own_size)
    template = known.pop("template")
    if not known["mean"] or not known["std"]:
        raise InputError(
            f"{options.path} does not say how its pictures are normalised; give --mean and --std, "
            f"or --preset {'|'.join(PRESETS)}"
        )
    if not known["image_size"]:
        raise InputError(f"{options.path} does not say its picture size; give --image-size")
    if not known["color"]:
        _say_once(f"--color is not given: {options.path} is fed RGB pictures")
    return Preprocessing(**{**known, "color": known["color"] or "rgb"}), template


def given_facts(options: ModelOptions, own_size: tuple[int, int] | None) -> dict[str, Any]:
    """`image_size, color, mean, std, template` as far as known; None for what is not.

    Args:
        own_size: height and width that the file asks for, None where it leaves them open.

    Raises:
        InputError: something given makes no sense, or the file says otherwise.
    """
    preset = _preset(options.preset) if options.preset else None
    mean = options.mean or (preset and preset.mean)
    std = options.std or (preset and preset.std)
    size = own_size or (preset and preset.image_size)
    if options.image_size:
        size = (options.image_size, options.image_size)
        if own_size not in (None, size):
            raise InputError(
                f"{options.path} takes pictures of {own_size[0]} x {own_size[1]}; drop --image-size"
            )
    if any(value > 1 for value in (*(mean or ()), *(std or ()))):
        raise InputError("--mean and --std are of pixels in 0..1; divide those of 0..255 by 255")
    color = options.color or (preset and preset.color)
    template = preset.template if preset else None
    if options.template:
        template = template_for(options.template, (0, 0))
    return {"image_size": size, "color": color, "mean": mean, "std": std, "template": template}


@cache
def _say_once(line: str) -> None:
    """Warn, but not again where a command opens its model more than once."""
    logger.warning("%s", line)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise InputError(f"no preset named {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
