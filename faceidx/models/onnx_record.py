"""faceidx's record in the metadata of an ONNX file: what the graph itself does not say.

Beside the record stand two digests. That of the backbone's weights keeps embeddings comparable with
those of the file the graph was made from. That of the graph tells whether the record still speaks
of this graph: tools that quantise or prune keep metadata they do not understand.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from faceidx.models.record import ModelRecord

if TYPE_CHECKING:
    import onnx
    import torch

logger = logging.getLogger(__name__)

CLASSIFIER = "head_"
"""What the names of a classifier's weights begin with, in a graph that `export` wrote."""

_RECORD, _WEIGHTS, _GRAPH = "faceidx", "faceidx.weights", "faceidx.graph"


@dataclass(kw_only=True)
class OnnxRecord:
    """What an ONNX file says of itself to faceidx."""

    record: ModelRecord
    weights: str | None
    """SHA-256 of the backbone's weights; None where the graph has changed since it was noted."""


def attach_record(graph: onnx.ModelProto, record: ModelRecord, weights: str) -> None:
    """Write the record and the SHA-256 of the backbone's weights into a graph's metadata."""
    import onnx

    kept = [entry for entry in graph.metadata_props if entry.key not in (_RECORD, _WEIGHTS, _GRAPH)]
    facts = {entry.key: entry.value for entry in kept}
    facts |= {_RECORD: record.to_json(), _WEIGHTS: weights, _GRAPH: _graph_digest(graph)}
    onnx.helper.set_model_props(graph, facts)


def attached_record(graph: onnx.ModelProto, path: Path) -> OnnxRecord | None:
    """The record in a graph's metadata, None where faceidx wrote none.

    Raises:
        InputError: the record is damaged, or of a newer faceidx.
    """
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    if _RECORD not in facts:
        return None
    record = ModelRecord.from_json(facts[_RECORD], str(path))
    weights = facts.get(_WEIGHTS)
    if facts.get(_GRAPH) != _graph_digest(graph):
        logger.warning(
            "%s was changed after faceidx wrote its record: it counts as another model, prepared "
            "as the record says",
            path.name,
        )
        weights = None
    return OnnxRecord(record=record, weights=weights)


def attached_classifier(graph: onnx.ModelProto, own: OnnxRecord | None) -> dict[str, torch.Tensor]:
    """Weights of the classifier in a graph, float32; empty where it has none that is usable."""
    if own is None or own.record.head is None or not own.record.class_names:
        return {}
    import torch
    from onnx import numpy_helper

    arrays = {
        tensor.name.removeprefix(CLASSIFIER): numpy_helper.to_array(tensor)
        for tensor in graph.graph.initializer
        if tensor.name.startswith(CLASSIFIER)
    }
    shape = arrays["weight"].shape if "weight" in arrays else ()
    wanted = (len(own.record.class_names), own.record.embedding_dim)
    whole = (*shape[:1], *shape[-1:]) == wanted
    if not whole or any(array.dtype.kind != "f" for array in arrays.values()):
        return {}
    return {name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()}


def _graph_digest(graph: onnx.ModelProto) -> str:
    """SHA-256 of a graph without its metadata, its weights read into it."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
