"""`faceidx models`: what can be trained, what a model file says, and its way in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceidx.cli.frame import common_options, progress_bar
from faceidx.cli.model_options import model_argument
from faceidx.cli.paths import OUTPUT

if TYPE_CHECKING:
    from faceidx.models.open import ModelOptions

_OUT = click.option("--out", type=OUTPUT, required=True, help="The file to write.")
# What lies deeper is told on one line: a record from elsewhere may go down without end.
_DEEPEST = " " * 6
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace a file that exists.")


@click.group(
    epilog="""\b
Examples:
  faceidx models list
  faceidx models info run/model.safetensors
  faceidx models import backbone.pth --preset insightface --out r50.safetensors
  faceidx models export run/model.safetensors --out model.onnx
  faceidx models get yunet"""
)
def models() -> None:
    """List architectures; look into model files, bring others' in, give ours away."""


@models.command("list", epilog="\b\nExample:\n  faceidx models list")
@common_options
def list_() -> tuple[dict[str, Any], str]:
    """List the architectures, losses and recipes that `train` knows."""
    from faceidx.losses.registry import AUXILIARIES, HEADS
    from faceidx.models.registry import BACKBONES, FOREIGN_BACKBONES
    from faceidx.training.recipes import recipe_names

    result = {
        "architectures": list(BACKBONES),
        "imported_architectures": list(FOREIGN_BACKBONES),
        "losses": list(HEADS),
        "auxiliary_losses": list(AUXILIARIES),
        "recipes": recipe_names(),
    }
    lines = [f"{kind}: {', '.join(names)}" for kind, names in result.items()]
    return result, "\n".join(lines)


@models.command(
    epilog="""\b
Examples:
  faceidx models info run/model.safetensors --json
  faceidx models info backbone.pth --preset insightface"""
)
@model_argument
@common_options
def info(model: ModelOptions) -> tuple[dict[str, Any], str]:
    """Say what MODEL is: architecture, input, fingerprint, classes, how it was trained."""
    from faceidx.models.about import describe

    return _told(describe(model))


@models.command(
    "import",
    epilog="""\b
Examples:
  faceidx models import backbone.pth --preset insightface --out r50.safetensors
  faceidx models import adaface_ir101.ckpt --preset adaface --out ada.safetensors
  faceidx models import w600k_r50.onnx --preset insightface --out w600k.onnx""",
)
@model_argument
@_OUT
@_OVERWRITE
@common_options
def import_(model: ModelOptions, out: Path, overwrite: bool) -> tuple[dict[str, Any], str]:
    """Bring another project's MODEL into a file that says everything of itself.

    Weights of InsightFace, AdaFace, facenet-pytorch, torchvision and MobileFaceNet become
    .safetensors; an ONNX graph becomes .onnx with a record in it. Code in a file is never run.
    """
    from faceidx.models.importing import ImportOptions, import_model

    return _told(import_model(ImportOptions(model=model, out=out, overwrite=overwrite)))


@models.command(
    epilog="""\b
Examples:
  faceidx models export run/model.safetensors --out model.onnx
  faceidx models export run/model.safetensors --out model.onnx --no-class-names
  faceidx models export run/model.safetensors --out given.safetensors --no-class-names"""
)
@model_argument
@_OUT
@click.option(
    "--no-class-names",
    is_flag=True,
    help="Leave out the names of the people it was trained on, and its classifier.",
)
@_OVERWRITE
@common_options
def export(
    model: ModelOptions, out: Path, no_class_names: bool, overwrite: bool
) -> tuple[dict[str, Any], str]:
    """Write MODEL as ONNX with any batch size, checked against torch; or as a copy of itself."""
    from faceidx.models.export import ExportOptions
    from faceidx.models.export import export as write

    return _told(
        write(
            ExportOptions(model=model, out=out, class_names=not no_class_names, overwrite=overwrite)
        )
    )


def _told(result: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The result, and what of it is known as lines; the names of people are for `--json`."""
    shown = {k: v for k, v in result.items() if k != "class_names"}
    return result, "\n".join(_lines(shown))


def _lines(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A line a fact; the facts of a fact stand below it, further in."""
    from faceidx.escape import for_terminal

    for name, value in facts.items():
        if isinstance(value, Mapping) and len(indent) < len(_DEEPEST):
            if inner := list(_lines(value, indent + "  ")):
                yield from (for_terminal(f"{indent}{name}:"), *inner)
        elif value is not None:
            yield for_terminal(f"{indent}{name}: {value}")


@models.command(
    epilog="""\b
Examples:
  faceidx models get yunet
  https_proxy=http://proxy:3128 faceidx models get yunet"""
)
@click.argument("name", type=click.Choice(["yunet"]))
@click.option("--url", help="Another place that holds the same file.")
@common_options
def get(name: str, url: str | None) -> tuple[dict[str, Any], str]:
    """Fetch a published file into the user's cache: yunet finds faces, for --detect.

    The file is checked by its SHA-256. What was cut off goes on where it stopped; proxies are those
    of the system (https_proxy and the like).
    """
    from faceidx.images.detector_file import PUBLISHED, fetch

    published = PUBLISHED[name]
    with progress_bar() as progress:
        path, fetched = fetch(published, url=url, progress=progress)
    result = {
        "file": str(path),
        "fetched": fetched,
        "bytes": published.size,
        "sha256": published.sha256,
    }
    return result, f"{path} {'is here now' if fetched else 'was here already'}"
