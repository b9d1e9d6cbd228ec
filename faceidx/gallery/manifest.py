"""`manifest.json`: what a gallery consists of, and the threshold calibrated for it.

The manifest carries a checksum of itself and is written in one canonical form, so that a flipped
bit in it is noticed as one in the large files is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from faceidx.errors import InputError

FORMAT = "faceidx-gallery"
VERSION = 1
# Of a manifest with the field `tuning`, which readers of version 1 do not know.
TUNED_VERSION = 2
STRANGERS_BELOW = 50_000
"""In a gallery of fewer vectors the recall has to hold for strangers too. Exact search takes less
than half a millisecond there, and looking at nearly everything no more. In a larger one the nearest
to a stranger lies too far off to be found fast, and to miss it only lowers the FPIR."""
MAX_BYTES = 1 << 20


@dataclass(kw_only=True, frozen=True)
class FileRecord:
    """Size and hash of one file of the gallery."""

    size: int
    sha256: str


@dataclass(kw_only=True, frozen=True)
class Threshold:
    """A score from which on a person found is believed, calibrated on the gallery itself."""

    value: float
    fpir_target: float
    fpir: float
    """Share of non-mated searches with a score at or above `value`; never above the target."""
    errors: int
    trials: int
    interval: tuple[float, float]
    """95 % interval of the share of strangers at or above `value`, with people as the sample."""
    identities: int
    """People whose pictures were searched."""
    identity_errors: int
    """People with at least one false match."""
    gallery_vectors: int
    """Size of the gallery searched: FPIR grows with it."""
    stale: bool
    """The gallery has changed since."""
    created: str
    expected: float | None = None
    """Expected share of strangers at or above `value`; None where not computed."""
    method: str = "counted"
    """`counted`, or `extrapolated` where the people are too few to count."""
    fusion: str = "best"
    """How a person's score is made of pictures: `value` is for such scores alone."""
    neighbours: int = 5
    """Of the fusion `vote`."""


@dataclass(kw_only=True, frozen=True)
class Recall:
    """Shares of held-out pictures that an approximate search answers as exact search does."""

    neighbours: float
    """With the very same nearest picture."""
    identities: float | None
    """With the same person, of those that exact search answers with their own; null where it
    answers none so."""
    queries: int
    strangers: float | None = None
    """With the very same nearest picture of anybody else, as searches for strangers find them; None
    where no picture has an identity, or nobody measured."""


@dataclass(kw_only=True, frozen=True)
class Tuning:
    """How an approximate index is to be searched, and what was measured so."""

    factory: str
    """FAISS's name of the index."""
    parameters: dict[str, int]
    """FAISS's search parameters: `nprobe`, `efSearch`."""
    candidates: int
    """Pictures taken from the index, beyond twice the number asked for, to be ranked exactly."""
    target_recall: float
    recall_of: str
    """`neighbours` or `identities`: the recall that was to reach the target."""
    recall: Recall
    measured_vectors: int
    """Size of the gallery when it was measured."""
    queries_per_second: float
    exact_queries_per_second: float | None
    """Of exact search over the same vectors; null where `--kind` left nothing to choose."""

    @property
    def recall_at_1(self) -> float:
        """Share of searches that find the true nearest picture."""
        found = self.recall
        if found.strangers is None or self.measured_vectors >= STRANGERS_BELOW:
            return found.neighbours
        return min(found.neighbours, found.strangers)

    @property
    def reached(self) -> float:
        """The recall that was to reach the target."""
        if self.recall_of == "identities" and self.recall.identities is not None:
            return self.recall.identities
        return self.recall_at_1


@dataclass(kw_only=True, frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    kind: str
    model: str
    fingerprint: str
    dim: int
    vectors: int
    identities: int
    """Different people; rows without identity belong to none."""
    refused: int
    """Rows of the sources that could not be taken; `gallery.h5` lists them."""
    recall_at_1: float
    """Share of searches that find the true nearest picture: 1 for exact search, else measured
    (`Tuning.recall_at_1`)."""
    files: dict[str, FileRecord]
    threshold: Threshold | None
    created: str
    tuning: Tuning | None = None
    """None for exact search."""

    @property
    def bytes(self) -> int:
        """Size of the gallery's large files together."""
        return sum(record.size for record in self.files.values())


def render_manifest(manifest: Manifest) -> bytes:
    """Return the one canonical text of a manifest, with its checksum."""
    version = TUNED_VERSION if manifest.tuning else VERSION
    fields: dict[str, Any] = {"format": FORMAT, "version": version, **asdict(manifest)}
    if manifest.tuning is None:
        del fields["tuning"]
    counts = ("vectors", "identities", "refused")
    fields["counts"] = {name: fields.pop(name) for name in counts}
    return with_checksum(fields)


def parse_manifest(raw: bytes, name: str) -> Manifest:
    """Read a manifest that `render_manifest` wrote.

    Raises:
        InputError: it is no manifest, of a newer version, or not byte for byte what was written.
    """
    try:
        fields = json.loads(raw, parse_constant=_no_constant)
        found, version = fields["format"], fields["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{name} is damaged or no manifest of a gallery") from None
    if found != FORMAT:
        raise InputError(f"{name} is no {FORMAT} manifest (its format is {found!r})")
    if isinstance(version, int) and version > TUNED_VERSION:
        raise InputError(f"{name} was written by a newer faceidx; update faceidx to read it")
    try:
        # Of what was written, not of what is read from it: an older faceidx wrote fewer fields.
        written = {name: value for name, value in fields.items() if name != "checksum"}
        intact = with_checksum(written) == raw
        manifest = _manifest(fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise InputError(
            f"{name} is damaged or was edited; rebuild the gallery with `faceidx index import`"
        )
    return manifest


def with_checksum(fields: dict[str, Any]) -> bytes:
    """The canonical text of a manifest's fields, with its checksum."""
    return _render({**fields, "checksum": hashlib.sha256(_render(fields)).hexdigest()})


def _manifest(fields: dict[str, Any]) -> Manifest:
    del fields["format"], fields["version"], fields["checksum"]
    fields.update(fields.pop("counts"))
    fields["files"] = {name: FileRecord(**record) for name, record in fields["files"].items()}
    if fields["threshold"] is not None:
        interval = tuple(fields["threshold"].pop("interval"))
        fields["threshold"] = Threshold(**fields["threshold"], interval=interval)
    if "tuning" in fields:
        recall = Recall(**fields["tuning"].pop("recall"))
        fields["tuning"] = Tuning(**fields["tuning"], recall=recall)
    manifest = Manifest(**fields)
    numbers = (manifest.dim, manifest.vectors, manifest.identities, manifest.refused)
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("counts are whole numbers")
    return manifest


def _render(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n").encode("ascii")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
