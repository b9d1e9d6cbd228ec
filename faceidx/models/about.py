"""What a model file is, told without running it."""

from __future__ import annotations

from typing import Any

from faceidx.images.preprocess import Preprocessing
from faceidx.models.file import ModelFile, backbone_digest, read_model
from faceidx.models.onnx_model import describe_onnx, onnx_image_size, own_record
from faceidx.models.open import (
    FACTS,
    ModelOptions,
    given_preprocessing,
    kind_of,
    read_content,
    recognise_file,
    refuse_given,
)
from faceidx.models.record import fingerprint


def describe(options: ModelOptions) -> dict[str, Any]:
    """Read what a model file says of itself, and what follows with the facts given beside it.

    Returns:
        `model, kind, recognised, arch, embedding_dim, image_size, color, mean, std, template,
        parameters, fingerprint, fingerprint_flip, classes, class_names, head, training`; None for
        what the file does not say.

    Raises:
        InputError: the file is missing, damaged, names code, is of no known kind, or says itself
            what is given.
    """
    path = options.path
    kind = kind_of(path)
    facts: dict[str, Any]
    if kind == "onnx":
        facts = describe_onnx(path, _given(options))
    elif kind == "faceidx":
        refuse_given(options)
        facts = {"kind": "faceidx", **_facts(read_model(path), str(path))}
    elif _says_something(options):
        facts = {"kind": "weights", **_facts(read_content(options), str(path))}
    else:
        facts = _of_weights(options)
    return {"model": str(path), **facts}


def _says_something(options: ModelOptions) -> bool:
    return any(getattr(options, name) for name in FACTS)


def _given(options: ModelOptions) -> Preprocessing | None:
    """What is given beside an ONNX file, None where nothing is."""
    if not _says_something(options):
        return None
    if own_record(options.path):
        refuse_given(options)
    return given_preprocessing(options, onnx_image_size(options.path))


def _facts(content: ModelFile, source: str) -> dict[str, Any]:
    """What a model file says, all of it known."""
    record = content.record
    digest = backbone_digest(content, source)
    prints = (
        fingerprint(digest, record.preprocessing, record.template, flip=flip)
        for flip in (False, True)
    )
    return {
        "recognised": record.training.get("recognised"),
        "arch": record.arch,
        "embedding_dim": record.embedding_dim,
        **record.preprocessing.to_dict(),
        "template": record.template,
        "parameters": sum(t.numel() for t in content.backbone.values()),
        **dict(zip(("fingerprint", "fingerprint_flip"), prints, strict=True)),
        "classes": len(record.class_names) if record.class_names else 0,
        "class_names": record.class_names,
        "head": vars(record.head) if record.head else None,
        "training": record.training,
    }


def _of_weights(options: ModelOptions) -> dict[str, Any]:
    """What weights of another project say, which is nothing of pictures."""
    found = recognise_file(options.path, fc=options.fc)
    unknown = ("image_size", "color", "mean", "std", "template", "fingerprint", "fingerprint_flip")
    return {
        "kind": "weights",
        "recognised": str(found),
        "arch": found.arch,
        "embedding_dim": found.embedding_dim,
        **dict.fromkeys(unknown),
        "parameters": sum(t.numel() for t in found.weights.values()),
        "classes": 0,
        "class_names": None,
        "head": None,
        "training": {},
    }
