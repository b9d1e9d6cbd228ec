"""Whether the cores decode JPEGs or the GPU does, settled by trying both on the user's pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from faceidx.embedding.crew import Job
from faceidx.embedding.making import crew_for, make_shards
from faceidx.embedding.pipeline import (
    CARD_DECODER,
    PipelineOptions,
    Waiting,
    origin_of,
    prepare_of,
)
from faceidx.embedding.roll import Made, News
from faceidx.embedding.shards import split_into_shards
from faceidx.files import scratch_folder
from faceidx.images.card_jpeg import can_decode, is_installed
from faceidx.images.pictures import Picture
from faceidx.images.prepare import Prepared, WholePicture
from faceidx.images.workers import Workers, survives
from faceidx.models.choose import LEAST_COSINE
from faceidx.models.face_model import FaceModel
from faceidx.models.fidelity import compare
from faceidx.models.open import ModelOptions
from faceidx.models.remembered import Measured, keep, machine_key, recall
from faceidx.progress import silent

logger = logging.getLogger(__name__)

# Trying both takes some twenty seconds, a good part of them to start processes: below so many
# pictures it cannot pay. Pictures that each is tried on, and how much faster the GPU has to be.
_WORTH_TRYING, _TRIED, _GAIN = 2_000_000, 100_000, 1.1
# Pictures whose embeddings must stay what they are.
_COMPARED = 64


def settle_decoder(
    pictures: Sequence[Picture],
    model: FaceModel,
    wanted: ModelOptions,
    pipeline: PipelineOptions,
    *,
    before: Mapping[str, Any],
    beside: Path,
) -> PipelineOptions:
    """Options with the GPU that decodes, where there is one that is better at it than the cores.

    Args:
        pictures: all that are to be embedded.
        model: opened as `wanted`.
        before: what is recorded of the work that is gone on with or added to; it stays as it was.
        beside: the output; trials are written into a folder beside it, and removed.
    """
    if not _is_gpu(model.device):
        return pipeline
    on_card = replace(pipeline, card=model.device)
    whole = prepare_of(model.preprocessing, model.template, pipeline)
    if not isinstance(whole, WholePicture) or not is_installed():
        return pipeline
    if before:
        as_before = before.get("decoder") == CARD_DECODER and can_decode(model.device)
        return on_card if as_before else pipeline
    trial = _Trial(pictures=pictures, model=model, wanted=wanted, beside=beside)
    worth_it = trial.known or len(pictures) >= _WORTH_TRYING
    if worth_it and trial.is_true(whole) and trial.gain(pipeline, on_card) >= _GAIN:
        return on_card
    return pipeline


def _is_gpu(device: str) -> bool:
    return device.startswith("cuda")


@dataclass(kw_only=True)
class _Trial:
    pictures: Sequence[Picture]
    model: FaceModel
    wanted: ModelOptions
    beside: Path

    def __post_init__(self) -> None:
        model = self.model
        self._key = machine_key(model.weights, model.preprocessing, "decoding", device=model.device)
        recalled = recall(self._key)
        self.known = recalled if recalled.keys() >= {"cores", "card"} else {}
        """What was measured before, on this machine with this model."""

    def gain(self, by_cores: PipelineOptions, on_card: PipelineOptions) -> float:
        """How many times as fast all is where the GPU decodes; 0 where that was not to be seen."""
        if not self.known:
            self.known = {
                name: Measured(rate=self._rate(pipeline), seconds=0.0)
                for name, pipeline in (("cores", by_cores), ("card", on_card))
            }
            logger.info("images/s: %s", {name: round(m.rate) for name, m in self.known.items()})
            keep(self._key, self.known)
        cores, card = self.known["cores"].rate, self.known["card"].rate
        return card / cores if cores else 0.0

    def _rate(self, pipeline: PipelineOptions) -> float:
        """Pictures a second from files to shards, once all is running."""
        some = self.pictures[:_TRIED]
        clock = _Clock()
        with scratch_folder(self.beside) as folder:
            job = Job(
                folder=folder,
                pipeline=pipeline,
                origin=origin_of(self.model, pipeline),
                dtype="float32",
                total=len(some),
            )
            make_shards(
                split_into_shards(some),
                job,
                self.model,
                self.wanted,
                crew_for(self.model, self.wanted, len(self.pictures)),
                waiting=Waiting(),
                report=clock,
                progress=silent,
            )
        return clock.rate()

    def is_true(self, whole: WholePicture) -> bool:
        """Whether embeddings stay what they are where the GPU decodes."""
        on_card = replace(whole, card=self.model.device)
        # In a process of its own first: what kills that would have ended this one.
        if not survives([*self.pictures[:_COMPARED]], on_card) or not can_decode(on_card.card):
            return False
        faces = [self._faces(prepare) for prepare in (whole, on_card)]
        both = [row for row in range(_COMPARED) if all(row in found for found in faces)]
        if not both:
            return False
        exact, found = (self.model.embed(np.stack([part[row] for row in both])) for part in faces)
        fidelity = compare(found, exact)
        return fidelity is not None and fidelity.least >= LEAST_COSINE

    def _faces(self, whole: WholePicture) -> dict[int, np.ndarray]:
        """The faces of the first pictures, by their numbers."""
        some = self.pictures[:_COMPARED]
        with Workers(1, at_once=_COMPARED) as workers:
            made = workers.prepare(enumerate(some), whole, ahead=2 * _COMPARED, total=len(some))
            return {
                number: result.crops[0]
                for number, _, result in made
                if isinstance(result, Prepared)
            }


@dataclass
class _Clock:
    """When shards were made."""

    made: list[tuple[float, int]] = field(default_factory=list)

    def __call__(self, news: News) -> None:
        if isinstance(news, Made):
            self.made.append((time.monotonic(), news.pictures))

    def rate(self) -> float:
        """Pictures a second, without the first quarter of the shards: processes start meanwhile.

        0 where one shard is all there is.
        """
        times, counts = zip(*sorted(self.made), strict=True)
        first = len(times) // 4
        return sum(counts[first + 1 :]) / max(times[-1] - times[first], 1e-9)
