"""Who is on the pictures that did not become an embedding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from faceidx.embedding.pipeline import PipelineOptions
from faceidx.images.sources import Picture


def identities_missed(
    pictures: Iterable[Picture], left: Sequence[tuple[str, str]], options: PipelineOptions
) -> list[str]:
    """The identity of each picture that was left out, as its rows would have had it.

    Args:
        pictures: all that were to be embedded.
        left: stored key and reason of those left out (`Left.reasons`).
        options: by which they were embedded.
    """
    known = dict.fromkeys((key for key, _ in left), "")
    for picture in pictures if known else ():
        key = options.stored_key(picture.key)
        if key in known:
            known[key] = options.stored_identity(picture.identity)
    return [known[key] for key, _ in left]
