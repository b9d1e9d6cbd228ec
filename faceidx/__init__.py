"""faceidx: batch face recognition. Train, embed, index, classify and verify.

The names below are the public Python API; each is imported when it is first used, so that
`import faceidx` costs nothing.

    import faceidx
    from pathlib import Path

    with faceidx.EmbeddingFile(Path("photos.h5")) as file:
        vectors, keys = file.vectors(), file.paths()
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Recent onnxruntimes tell Microsoft of their use, and keep a number for the machine in the user's
# cache (Privacy.md in their package). They look for this when they are loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Public name -> the module that defines it.
_PUBLIC = {
    "FaceidxError": "faceidx.errors",
    "InputError": "faceidx.errors",
    "JobError": "faceidx.errors",
    "Progress": "faceidx.progress",
    "open_source": "faceidx.images.sources",
    "decode": "faceidx.images.decode",
    "ModelOptions": "faceidx.models.open",
    "open_model": "faceidx.models.open",
    "TrainOptions": "faceidx.training.options",
    "train": "faceidx.training.loop",
    "PipelineOptions": "faceidx.embedding.pipeline",
    "embed_pictures": "faceidx.embedding.pipeline",
    "EmbedOptions": "faceidx.embedding.embed",
    "embed": "faceidx.embedding.embed",
    "EmbeddingFile": "faceidx.embedding.store",
    "BuildOptions": "faceidx.gallery.build",
    "build": "faceidx.gallery.build",
    "CalibrateOptions": "faceidx.gallery.calibrate",
    "calibrate": "faceidx.gallery.calibrate",
    "ClusterOptions": "faceidx.gallery.cluster",
    "cluster": "faceidx.gallery.cluster",
    "load_gallery": "faceidx.gallery.folder",
    "search": "faceidx.gallery.search",
    "LookupOptions": "faceidx.gallery.lookup",
    "look_up": "faceidx.gallery.lookup",
    "VerifyOptions": "faceidx.evaluation.verdict",
    "verify_pairs": "faceidx.evaluation.verification",
    "CompareOptions": "faceidx.evaluation.comparison",
    "compare_systems": "faceidx.evaluation.comparison",
    "PairOptions": "faceidx.evaluation.one_pair",
    "verify_pair": "faceidx.evaluation.one_pair",
    "read_threshold": "faceidx.evaluation.threshold",
    "read_list": "faceidx.evaluation.lists",
    "roc_curve": "faceidx.evaluation.roc",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'faceidx' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
