"""The one door to a model file, ours or others'."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from faceidx.errors import InputError
from faceidx.images.preprocess import PRESETS, Preprocessing, Preset
from faceidx.models.device import resolve_device
from faceidx.models.face_model import FaceModel
from faceidx.models.file import read_record

logger = logging.getLogger(__name__)

ONNX_SUFFIX = ".onnx"
# First bytes of what torch.save and pickle write: a zip archive, or a pickle of protocol 2 to 5.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(kw_only=True)
class ModelOptions:
    """Which model to open, on what, and what a foreign file does not say of itself."""

    path: Path
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    image_size: int | None = None
    mean: tuple[float, float, float] | None = None
    """In units of the pixel range 0 to 1, in the order of `color`."""
    std: tuple[float, float, float] | None = None
    color: str | None = None
    preset: str | None = None


def open_model(options: ModelOptions) -> FaceModel:
    """Open a model for inference.

    Raises:
        InputError: the file is missing, of no known kind, a pickle, damaged; a foreign file whose
            preprocessing is not given; or facts given that contradict the file's own record.
    """
    refuse_pickle(options.path)
    if options.path.suffix.lower() == ONNX_SUFFIX:
        return _open_onnx(options)
    return _open_ours(options, resolve_device(options.device))


def model_shape(options: ModelOptions) -> tuple[Preprocessing, str | None]:
    """What pictures a model wants and their alignment template, told without loading it.

    Raises:
        InputError: as `open_model`, as far as that shows in the file's head.
    """
    refuse_pickle(options.path)
    if options.path.suffix.lower() == ONNX_SUFFIX:
        from faceidx.models.onnx_model import onnx_image_size

        return _given_preprocessing(options, onnx_image_size(options.path)), None
    record = read_record(options.path)
    return record.preprocessing, record.template


def refuse_pickle(path: Path) -> None:
    """Raise `InputError` where a model file is missing or a pickle, whatever its name says."""
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLE_STARTS):
        raise InputError(
            f"{path} is a pickle, which could run code when read, so it is refused; "
            "give a .safetensors written by faceidx, or an .onnx file"
        )


def _open_ours(options: ModelOptions, device: str) -> FaceModel:
    from faceidx.models.torch_model import load_torch_model

    given = [n for n in ("image_size", "mean", "std", "color", "preset") if getattr(options, n)]
    if given:
        flag = f"--{given[0].replace('_', '-')}"
        raise InputError(f"{options.path} has its own record of preprocessing; drop {flag}")
    if options.engine == "onnx":
        raise InputError(f"{options.path} is no .onnx file; drop --engine onnx")
    precision = "fp32" if options.precision == "auto" else options.precision
    return load_torch_model(options.path, device=device, precision=precision)


def _open_onnx(options: ModelOptions) -> FaceModel:
    from faceidx.models.onnx_model import load_onnx_model, onnx_image_size, runs_on_gpu

    if options.engine == "torch":
        raise InputError(f"{options.path} is run by onnxruntime; drop --engine torch")
    if options.precision not in ("auto", "fp32"):
        raise InputError(f"{options.path} runs as it was exported; drop --precision")
    if runs_on_gpu():
        device = resolve_device(options.device)
    elif options.device in ("auto", "cpu"):
        device = "cpu"
    else:
        raise InputError(
            f"--device {options.device}: the installed onnxruntime has no GPU in it; give cpu or "
            "auto, or install onnxruntime-gpu in its place"
        )
    preprocessing = _given_preprocessing(options, onnx_image_size(options.path))
    return load_onnx_model(options.path, preprocessing, device=device)


def _given_preprocessing(options: ModelOptions, own_size: tuple[int, int] | None) -> Preprocessing:
    """Put together what a foreign file says and what was given on the command line."""
    preset = _preset(options.preset) if options.preset else None
    mean = options.mean or (preset and preset.mean)
    std = options.std or (preset and preset.std)
    color = options.color or (preset and preset.color)
    size = own_size or (preset and preset.image_size)
    if options.image_size:
        size = (options.image_size, options.image_size)
    if not mean or not std:
        raise InputError(
            f"{options.path} does not say how its pictures are normalised; give --mean and --std, "
            f"or --preset {'|'.join(PRESETS)}"
        )
    if any(value > 1 for value in (*mean, *std)):
        raise InputError("--mean and --std are of pixels in 0..1; divide those of 0..255 by 255")
    if not size:
        raise InputError(f"{options.path} does not say its picture size; give --image-size")
    if not color:
        logger.warning("--color is not given: %s is fed RGB pictures", options.path.name)
    return Preprocessing(
        image_size=size, mean=mean, std=std, color="bgr" if color == "bgr" else "rgb"
    )


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise InputError(f"no preset named {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
