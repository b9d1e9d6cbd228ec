"""Other people's models, brought into a file that says everything of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.errors import InputError
from faceidx.files import refuse_existing, require_parent, sha256_file, together, whole_file
from faceidx.models.about import describe
from faceidx.models.file import ModelFile, write_model
from faceidx.models.onnx_file import read_onnx
from faceidx.models.onnx_record import attach_record
from faceidx.models.open import ModelOptions, kind_of, open_onnx, read_content
from faceidx.models.record import ModelRecord


@dataclass(kw_only=True)
class ImportOptions:
    """What to import, what its file does not say, and whereto."""

    model: ModelOptions
    out: Path
    """`.safetensors`; of an ONNX graph that is no known network, `.onnx`."""
    overwrite: bool = False


_OURS = "{} is a model of faceidx already; there is nothing to import"
_NOT_FINITE = "{}: its embeddings are not finite; the file is damaged"


def import_model(options: ImportOptions) -> dict[str, Any]:
    """Write another project's model with a record of what was recognised and what was given.

    Returns:
        `out, source, recognised`, and what `about.describe` says of the new file.

    Raises:
        InputError: the file is refused or not recognised, something that it does not say is not
            given, or the output exists.
    """
    require_parent(options.out)
    refuse_existing(options.out, overwrite=options.overwrite)
    path = options.model.path
    kind = kind_of(path)
    suffix = options.out.suffix.lower()
    if kind == "faceidx":
        raise InputError(_OURS.format(path))
    if suffix != (".onnx" if kind == "onnx" else ".safetensors"):
        raise InputError(
            f"{path} becomes {'an .onnx' if kind == 'onnx' else 'a .safetensors'} file; give --out "
            "a name that ends so"
        )
    source = {"file": path.name, "sha256": sha256_file(path)}
    if kind == "onnx":
        _copy_onnx(options, source)
    else:
        content = read_content(options.model)
        content.record.training["source"] = source
        _run_once(content, str(path))
        with together(options.out):
            write_model(options.out, content)
    facts = describe(ModelOptions(path=options.out))
    return {"out": str(options.out), "source": source, **facts}


def _run_once(content: ModelFile, source: str) -> None:
    """Raise `InputError` where a picture of grey does not come out as finite numbers."""
    import torch

    from faceidx.models.torch_model import build_backbone

    backbone = build_backbone(content, source).eval()
    with torch.inference_mode():
        embedding = backbone(torch.zeros(1, 3, *content.record.preprocessing.image_size))
    if embedding.shape != (1, content.record.embedding_dim) or not embedding.isfinite().all():
        raise InputError(_NOT_FINITE.format(source))


def _copy_onnx(options: ImportOptions, source: dict[str, str]) -> None:
    """Write an ONNX graph anew, in one file, with a record in its metadata."""
    path = options.model.path
    file = read_onnx(path)
    if file.own is not None:
        raise InputError(_OURS.format(path))
    model = open_onnx(file, options.model)  # it runs, and what it lacks is given
    grey = np.full((1, *model.preprocessing.image_size, 3), 127, np.uint8)
    if not np.isfinite(model.raw_embed(grey)).all():
        raise InputError(_NOT_FINITE.format(path))
    record = ModelRecord(
        arch="onnx",
        embedding_dim=model.embedding_dim,
        preprocessing=model.preprocessing,
        template=model.template,
        training={"source": source},
    )
    attach_record(file.graph, record, model.weights)
    try:
        data = file.graph.SerializeToString()
    except ValueError as error:
        raise InputError(f"{path} is too large for one ONNX file ({error})") from None
    with together(options.out), whole_file(options.out) as temporary:
        temporary.write_bytes(data)
