"""Models for others: ONNX, checked against torch, or a copy of ours without names of people."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceidx.errors import InputError, JobError
from faceidx.files import refuse_existing, require_parent, sha256_file, together, whole_file
from faceidx.models.file import ModelFile, backbone_digest, write_model
from faceidx.models.onnx_record import CLASSIFIER, attach_record
from faceidx.models.open import ModelOptions, kind_of, read_content
from faceidx.models.record import Head, fingerprint
from faceidx.versions import version_of

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

# 17 holds all that is needed, and runtimes since 2022 read it.
OPSET = 17
INPUT, OUTPUT, CLASSES = "pictures", "embeddings", "probabilities"
# Batches of noise that the graph is compared on: one picture, and several.
_CHECKED = (1, 5)
# What float32 in another order of summing stays above, by far; a wrong graph does not.
_LEAST_COSINE = 0.9999


@dataclass(kw_only=True)
class ExportOptions:
    """What to export, and whereto."""

    model: ModelOptions
    out: Path
    """`.onnx`, or `.safetensors` for a copy."""
    class_names: bool = True
    """Without, neither the names of the people it was trained on nor its classifier go along."""
    overwrite: bool = False


def export(options: ExportOptions) -> dict[str, Any]:
    """Write a model to another file, whole or not at all.

    Returns:
        `out, format, opset, arch, embedding_dim, image_size, fingerprint, classes, least_cosine,
        largest_difference, sha256, bytes`; None for what does not apply.

    Raises:
        InputError: the model cannot be opened or is ONNX already; the output exists, or its
            name says no format.
        JobError: ONNX gives other embeddings than torch, or torch cannot export.
    """
    suffix = options.out.suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        raise InputError(f"{options.out}: give --out a name that ends in .onnx or .safetensors")
    require_parent(options.out)
    refuse_existing(options.out, overwrite=options.overwrite)
    if kind_of(options.model.path) == "onnx":
        raise InputError(f"{options.model.path} is an ONNX file already; there is nothing to do")
    content = read_content(options.model)
    if not options.class_names:
        content = without_names(content)
    source = str(options.model.path)
    facts: dict[str, Any] = {"opset": None, "least_cosine": None, "largest_difference": None}
    with together(options.out):
        if suffix == ".onnx":
            facts |= _write_onnx(content, source, options.out)
        else:
            write_model(options.out, content)
    record = content.record
    return {
        "out": str(options.out),
        "format": suffix[1:],
        "arch": record.arch,
        "embedding_dim": record.embedding_dim,
        "image_size": list(record.preprocessing.image_size),
        "fingerprint": fingerprint(
            backbone_digest(content, source), record.preprocessing, record.template, flip=False
        ),
        "classes": len(record.class_names or []),
        **facts,
        "sha256": sha256_file(options.out),
        "bytes": options.out.stat().st_size,
    }


def without_names(content: ModelFile) -> ModelFile:
    """A model without its classifier: neither names nor the weights that stand for people."""
    return ModelFile(
        record=replace(content.record, class_names=None, head=None),
        backbone=content.backbone,
        head={},
    )


def onnx_graph(
    backbone: nn.Module,
    image_size: tuple[int, int],
    *,
    head: Head | None = None,
    head_weights: dict[str, torch.Tensor] | None = None,
) -> onnx.ModelProto:
    """Export a backbone, in evaluation mode, to ONNX with a free batch size.

    Args:
        backbone: from (N, 3, H, W) to (N, D); on the CPU.
        head: its classifier, to give the probabilities of the classes too; None for none.

    Returns:
        From `pictures` (batch, 3, H, W) float32, normalised, to `embeddings` (batch, D) and, with
        a classifier, `probabilities` (batch, classes).

    Raises:
        JobError: torch cannot export it.
    """
    import onnx
    import torch

    network = backbone
    outputs = [OUTPUT]
    if head is not None and head_weights:
        network = _with_classifier(backbone, head, head_weights)
        outputs.append(CLASSES)
    # Two pictures: torch takes a size of one for a fixed one.
    pictures = torch.zeros(2, 3, *image_size)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            file = Path(folder) / "graph.onnx"
            # The exporter through TorchScript is called old, but it needs no further package, takes
            # a quarter of the time, and keeps the norms as they are; the other folds them. What it
            # warns of would show in embeddings that differ, which are looked at afterwards.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.eval(),
                (pictures,),
                file,
                dynamo=False,
                opset_version=OPSET,
                do_constant_folding=False,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (INPUT, *outputs)},
            )
            return onnx.load(file)
    except OSError as error:
        raise JobError(
            f"{tempfile.gettempdir()}: the graph cannot be written there for a moment "
            f"({error.strerror or error}); set TMPDIR to another folder"
        ) from None
    except Exception as error:  # torch's exporter has no error of its own that covers all
        reason = " ".join(str(error).split())[:200]
        raise JobError(f"torch {torch.__version__} cannot export this to ONNX ({reason})") from None


def _with_classifier(
    backbone: nn.Module, head: Head, head_weights: dict[str, torch.Tensor]
) -> nn.Module:
    import torch

    from faceidx.models.torch_model import class_logits

    class _Both(torch.nn.Module):
        """(N, 3, H, W) to (N, D) embeddings and (N, classes) probabilities."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            for name, weight in head_weights.items():
                self.register_buffer(f"{CLASSIFIER}{name}", weight)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            embeddings = self.backbone(x)
            weights = {name: getattr(self, f"{CLASSIFIER}{name}") for name in head_weights}
            return embeddings, class_logits(embeddings, weights, head).softmax(1)

    return _Both()


def _write_onnx(content: ModelFile, source: str, out: Path) -> dict[str, Any]:
    """Export, compare with torch, and only then write; what is to be reported."""
    from faceidx.models.torch_model import build_backbone

    record = content.record
    backbone = build_backbone(content, source).eval()
    graph = onnx_graph(
        backbone, record.preprocessing.image_size, head=record.head, head_weights=content.head
    )
    graph.producer_name, graph.producer_version = "faceidx", version_of("faceidx") or ""
    attach_record(graph, record, backbone_digest(content, source))
    data = graph.SerializeToString()
    least, largest = _compare(backbone, data, record.preprocessing.image_size)
    if not least >= _LEAST_COSINE:
        raise JobError(
            f"{source}: ONNX gives other embeddings than torch (least cosine {least:.6f}); "
            "nothing is written"
        )
    with whole_file(out) as temporary:
        temporary.write_bytes(data)
    return {"opset": OPSET, "least_cosine": least, "largest_difference": largest}


def _compare(backbone: nn.Module, graph: bytes, image_size: tuple[int, int]) -> tuple[float, float]:
    """Least cosine and largest difference between onnxruntime's embeddings of noise and torch's."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    cosines, differences = [], []
    for count in _CHECKED:
        pictures = rng.uniform(-1, 1, (count, 3, *image_size)).astype(np.float32)
        found = session.run([OUTPUT], {INPUT: pictures})[0]
        with torch.inference_mode():
            wanted = backbone(torch.from_numpy(pictures)).numpy()
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines.append(float(((found * wanted).sum(1) / lengths).min()))
        differences.append(float(np.abs(found - wanted).max()))
    return min(cosines), max(differences)
