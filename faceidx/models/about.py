"""What a model file is, told without running it."""

from __future__ import annotations

import math
from typing import Any

from faceidx.images.preprocess import Preprocessing
from faceidx.models.file import ModelFile, backbone_digest, read_model
from faceidx.models.onnx_file import OnnxFile, read_onnx
from faceidx.models.open import (
    ModelOptions,
    given_facts,
    kind_of,
    onnx_shape,
    read_content,
    recognise_file,
    refuse_given,
)
from faceidx.models.record import fingerprint

# What a foreign file does not say unless it is given beside it.
_OF_PICTURES = (
    *("image_size", "color", "mean", "std", "template"),
    *("fingerprint", "fingerprint_flip"),
)


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
        facts = _of_onnx(read_onnx(path), options)
    elif kind == "faceidx":
        refuse_given(options)
        facts = {"kind": "faceidx", **_facts(read_model(path), str(path))}
    elif _is_enough(known := given_facts(options, None)):
        facts = {"kind": "weights", **_facts(read_content(options), str(path))}
    else:
        facts = _of_weights(options, known)
    return {"model": str(path), **facts}


def _is_enough(known: dict[str, Any]) -> bool:
    """Whether what is known of pictures is all that a model needs; RGB is what they are fed as."""
    return all(known[name] for name in ("image_size", "mean", "std"))


def _listed(known: dict[str, Any]) -> dict[str, Any]:
    """What is known of pictures, of JSON's types alone."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}


def _facts(content: ModelFile, source: str) -> dict[str, Any]:
    """What a model file says, all of it known."""
    record = content.record
    digest = backbone_digest(content, source)
    return {
        "recognised": record.training.get("recognised"),
        "arch": record.arch,
        "embedding_dim": record.embedding_dim,
        **record.preprocessing.to_dict(),
        "template": record.template,
        "parameters": sum(t.numel() for t in content.backbone.values()),
        **_fingerprints(digest, record.preprocessing, record.template),
        "classes": len(record.class_names) if record.class_names else 0,
        "class_names": record.class_names,
        "head": vars(record.head) if record.head else None,
        "training": record.training,
    }


def _fingerprints(
    weights: str, preprocessing: Preprocessing, template: str | None
) -> dict[str, str]:
    """What embeddings by these weights are known by, alone and with those of mirror images."""
    return {
        name: fingerprint(weights, preprocessing, template, flip=flip)
        for name, flip in (("fingerprint", False), ("fingerprint_flip", True))
    }


def _of_weights(options: ModelOptions, known: dict[str, Any]) -> dict[str, Any]:
    """What weights of another project say, and of pictures what is given beside them."""
    found = recognise_file(options.path, fc=options.fc)
    return {
        "kind": "weights",
        "recognised": str(found),
        "arch": found.arch,
        "embedding_dim": found.embedding_dim,
        **dict.fromkeys(_OF_PICTURES),
        **_listed(known),
        "parameters": sum(t.numel() for t in found.weights.values()),
        "classes": 0,
        "class_names": None,
        "head": None,
        "training": {},
    }


def _of_onnx(file: OnnxFile, options: ModelOptions) -> dict[str, Any]:
    """What an ONNX file says; unless faceidx wrote it, of pictures their size and what is given."""
    graph, record = file.graph, file.own.record if file.own else None
    known = given_facts(options, file.image_size)
    facts: dict[str, Any] = {**dict.fromkeys(_OF_PICTURES), **_listed(known)}
    if record or _is_enough(known):
        preprocessing, template = onnx_shape(file, options)
        prints = _fingerprints(file.weights, preprocessing, template)
        facts |= {**preprocessing.to_dict(), "template": template, **prints}
    names = record.class_names if record else None
    dims = [dim.dim_value for dim in graph.graph.output[0].type.tensor_type.shape.dim]
    dim = math.prod(dims[1:]) or None if len(dims) > 1 else None
    producer = f"{graph.producer_name} {graph.producer_version}".strip()
    return {
        "kind": "onnx",
        "recognised": record.training.get("recognised") if record else None,
        "arch": record.arch if record else "onnx",
        "embedding_dim": record.embedding_dim if record else dim,
        **facts,
        "parameters": sum(math.prod(t.dims) for t in graph.graph.initializer),
        "classes": len(names or []),
        "class_names": names,
        "head": vars(record.head) if record and record.head else None,
        "training": {**(record.training if record else {}), "producer": producer},
    }
