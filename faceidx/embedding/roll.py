"""What is known of the shards of a job: their names, and what they hold."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)

Condition = Literal["missing", "whole", "damaged"]


@dataclass(kw_only=True)
class Counts:
    """How many of what shards hold."""

    embedded: int = 0
    """Pictures with an embedding."""
    faces: int = 0
    failed: int = 0
    no_face: int = 0
    far: int = 0
    """Pictures whose shape is far from the model's."""

    def add(self, other: Counts) -> None:
        """Count what others hold too."""
        for field in fields(Counts):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True, kw_only=True)
class Named:
    """A shard has got its name, and this is how it was found."""

    number: int
    path: Path
    pictures: int
    condition: Condition
    counts: Counts
    """What it holds already."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A shard was committed."""

    pictures: int
    counts: Counts


News = Named | Made


class Roll:
    """Takes the news of shards, in any order and from any thread."""

    def __init__(self) -> None:
        self._taking = threading.Lock()
        self.counts = Counts()
        self.resumed = 0
        """Pictures of shards that were there already."""
        self.follow: Callable[[Path], None] = lambda _: None
        """Called with each shard in the order of keys, once it is named."""
        self._paths: dict[int, Path] = {}
        self._followed = 0

    def take(self, news: News) -> None:
        """Take one in."""
        with self._taking:
            self.counts.add(news.counts)
            if isinstance(news, Named):
                self._name(news)

    def _name(self, news: Named) -> None:
        if news.condition == "damaged":
            logger.warning("the shard %s is damaged and is made anew", news.path.name)
        elif news.condition == "whole":
            self.resumed += news.pictures
        self._paths[news.number] = news.path
        while (path := self._paths.get(self._followed)) is not None:
            self.follow(path)
            self._followed += 1

    def paths(self) -> list[Path]:
        """All of them in the order of keys."""
        return [self._paths[number] for number in range(len(self._paths))]
