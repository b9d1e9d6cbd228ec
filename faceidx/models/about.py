"""What a model file is, told without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faceidx.models.file import backbone_digest, read_model
from faceidx.models.onnx_model import describe_onnx
from faceidx.models.open import ONNX_SUFFIX, refuse_pickle
from faceidx.models.record import fingerprint


def describe(path: Path) -> dict[str, Any]:
    """Read what a model file says of itself.

    Returns:
        `model, kind, arch, embedding_dim, image_size, color, mean, std, template, parameters,
        fingerprint, fingerprint_flip, classes, class_names, head, training`; None for what the
        file does not say.

    Raises:
        InputError: the file is missing, damaged, a pickle, or of no known kind.
    """
    refuse_pickle(path)
    facts: dict[str, Any]
    if path.suffix.lower() == ONNX_SUFFIX:
        facts = describe_onnx(path)
    else:
        content = read_model(path)
        record = content.record
        digest = backbone_digest(content, str(path))
        facts = {
            "kind": "faceidx",
            "arch": record.arch,
            "embedding_dim": record.embedding_dim,
            **record.preprocessing.to_dict(),
            "template": record.template,
            "parameters": sum(t.numel() for t in content.backbone.values()),
            "fingerprint": fingerprint(digest, record.preprocessing, record.template, flip=False),
            "fingerprint_flip": fingerprint(
                digest, record.preprocessing, record.template, flip=True
            ),
            "classes": len(record.class_names) if record.class_names else 0,
            "class_names": record.class_names,
            "head": vars(record.head) if record.head else None,
            "training": record.training,
        }
    return {"model": str(path), **facts}
