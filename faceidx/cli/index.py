"""`faceidx index`: build, change, search and check a gallery."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceidx.cli.frame import aligned, common_options, device_option, progress_bar, seed_option
from faceidx.cli.paths import FILE, OUTPUT, OUTPUT_FOLDER
from faceidx.cli.pipeline_options import warn_of_no_use
from faceidx.escape import for_terminal

if TYPE_CHECKING:
    from faceidx.gallery.indexes import IndexOptions

Outcome = tuple[Mapping[str, Any], str]

_GALLERY = click.argument("gallery", type=FILE)
_FILES = click.argument("files", metavar="FILE.h5...", type=FILE, nargs=-1, required=True)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
_PREFIX = click.option(
    "--prefix",
    "prefixes",
    multiple=True,
    help="Once for each FILE.h5, in order: its keys become PREFIX/key.",
)


# So many counts of pictures are told one by one.
_FEW_ENTRIES = 10

_MEMORY = click.option(
    "--memory",
    help="What a search may take, such as 4G.  [default: half of what is free]",
)


def _index_options(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Add the options of an index, given to the command as one `IndexOptions`, `index`."""

    @click.option(
        "--kind",
        default="auto",
        show_default=True,
        metavar="auto|flat|hnsw|ivf|FACTORY",
        help="flat: exact search. FACTORY: any index by FAISS's name, such as IVF1024,SQ8.",
    )
    @click.option(
        "--target-recall",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.99,
        show_default=True,
        help="Recall@1 that an approximate index is tuned to.",
    )
    @click.option(
        "--recall-of",
        type=click.Choice(["neighbours", "identities"]),
        default="neighbours",
        show_default=True,
        help="What must be found: the very same picture as by exact search, or the same person.",
    )
    @_MEMORY
    @seed_option
    @functools.wraps(command)
    def wrapper(
        kind: str,
        target_recall: float,
        recall_of: str,
        memory: str | None,
        seed: int,
        **options: Any,
    ) -> Outcome:
        from faceidx.gallery.indexes import IndexOptions

        index = IndexOptions(
            kind=kind,
            target_recall=target_recall,
            recall_of=recall_of,
            memory=_bytes(memory),
            seed=seed,
        )
        return command(index=index, **options)

    return wrapper


def _bytes(memory: str | None) -> int | None:
    from faceidx.gallery.memory import parse_bytes

    return None if memory is None else parse_bytes(memory)


@click.group(
    epilog="""\b
Examples:
  faceidx index build people.h5 --out gallery
  faceidx index calibrate gallery --fpir 0.01
  faceidx classify probes.h5 --index gallery"""
)
def index() -> None:
    """Build, change and search a gallery of known faces."""


@index.command(
    epilog="""\b
Examples:
  faceidx index build people.h5 --out gallery
  faceidx index build a.h5 b.h5 --prefix a --prefix b --out gallery
  faceidx index build many.h5 --kind ivf --target-recall 0.995 --memory 2G --out gallery"""
)
@_FILES
@click.option("--out", type=OUTPUT_FOLDER, required=True, help="Gallery folder to make.")
@_index_options
@_PREFIX
@_OVERWRITE
@common_options
def build(files: tuple[Path, ...], index: IndexOptions, **options: Any) -> Outcome:
    """Build a gallery from embeddings files of one model.

    Rows with NaN or of length zero are left out, counted, and listed in gallery.h5. With auto, a
    small gallery is searched exactly; a large one by inverted lists or a graph, whichever serves
    better, where it reaches the target recall on pictures held out and is at least twice as fast.
    """
    from faceidx.gallery.build import BuildOptions
    from faceidx.gallery.build import build as build_gallery

    with progress_bar() as progress:
        result = build_gallery(BuildOptions(files=files, index=index, **options), progress=progress)
    return result, _changed("built", result)


@index.command(
    epilog="""\b
Examples:
  faceidx index add gallery more.h5"""
)
@_GALLERY
@_FILES
@_PREFIX
@_MEMORY
@common_options
def add(
    gallery: Path, files: tuple[Path, ...], prefixes: tuple[str, ...], memory: str | None
) -> Outcome:
    """Add embeddings files to GALLERY, in one step.

    The calibrated threshold becomes stale.
    """
    from faceidx.gallery.build import AddOptions
    from faceidx.gallery.build import add as add_to_gallery

    with progress_bar() as progress:
        options = AddOptions(gallery=gallery, files=files, prefixes=prefixes, memory=_bytes(memory))
        result = add_to_gallery(options, progress=progress)
    return result, _changed(f"added {result['added']:,} vectors:", result)


@index.command(
    epilog="""\b
Examples:
  faceidx index remove gallery --identity alice
  faceidx index remove gallery --path alice/3.jpg --path bob/1.jpg"""
)
@_GALLERY
@click.option("--identity", "identities", multiple=True, help="A person; may be repeated.")
@click.option("--path", "paths", multiple=True, help="Key of one picture; may be repeated.")
@_MEMORY
@common_options
def remove(
    gallery: Path, identities: tuple[str, ...], paths: tuple[str, ...], memory: str | None
) -> Outcome:
    """Remove people or pictures from every file of GALLERY, in one step.

    The calibrated threshold becomes stale. Where a name is unknown nothing is removed.
    """
    from faceidx.gallery.build import RemoveOptions
    from faceidx.gallery.build import remove as remove_from_gallery

    with progress_bar() as progress:
        options = RemoveOptions(
            gallery=gallery, identities=identities, paths=paths, memory=_bytes(memory)
        )
        result = remove_from_gallery(options, progress=progress)
    return result, _changed(f"removed {result['removed']:,} vectors:", result)


@index.command(
    "import",
    epilog="""\b
Examples:
  faceidx index import downloaded-gallery --out gallery""",
)
@click.argument("source", type=FILE)
@click.option("--out", type=OUTPUT_FOLDER, required=True, help="Gallery folder to make.")
@_index_options
@_OVERWRITE
@common_options
def import_(**options: Any) -> Outcome:
    """Rebuild a gallery that comes from elsewhere from its gallery.h5 alone.

    SOURCE is the folder or its gallery.h5. A FAISS file of unknown origin is never opened.
    """
    from faceidx.gallery.build import ImportOptions, import_gallery

    with progress_bar() as progress:
        result = import_gallery(ImportOptions(**options), progress=progress)
    return result, _changed("imported", result)


@index.command(
    epilog="""\b
Examples:
  faceidx index info gallery
  faceidx index info gallery --json"""
)
@_GALLERY
@common_options
def info(gallery: Path) -> Outcome:
    """Say what is in GALLERY: counts, sizes, pictures per person, threshold."""
    from faceidx.gallery.check import info as gallery_info

    result = gallery_info(gallery)
    pictures = _binned(result["pictures_per_person"])
    lines = [
        ("kind", f"{result['kind']}, {result['dim']} numbers a vector"),
        ("model", f"{for_terminal(result['model'])} ({result['fingerprint'][:12]})"),
        ("vectors", f"{result['vectors']:,} ({result['without_identity']:,} without identity)"),
        ("people", f"{result['identities']:,}"),
        ("refused", f"{result['refused']:,}"),
        ("recall@1", _recall_text(result)),
        *((name, f"{size:,} bytes") for name, size in result["files"].items()),
        ("threshold", _threshold_text(result["threshold"])),
        ("pictures", ", ".join(f"{n}: {people:,}" for n, people in pictures.items())),
        ("", "(pictures of a person: people)"),
    ]
    return result, "\n".join(f"{name:12} {text}" for name, text in lines)


@index.command(
    epilog="""\b
Examples:
  faceidx index search gallery probes.h5 --out hits.csv
  faceidx index search gallery probes.h5 --top-k 3"""
)
@_GALLERY
@click.argument("file", metavar="FILE.h5", type=FILE)
@click.option("--top-k", type=click.IntRange(1), help="Pictures for a probe.  [default: 10]")
@click.option("--out", type=OUTPUT, help="CSV: path,rank,match,identity,score.")
@_OVERWRITE
@device_option
@common_options
def search(**options: Any) -> Outcome:
    """Rank the pictures of GALLERY by cosine for each row of FILE.h5."""
    from faceidx.gallery.hits import HEADER, SearchOptions, search_file

    with progress_bar() as progress:
        result, first = search_file(SearchOptions(**options), progress=progress)
    summary = f"{result['hits']:,} hits for {result['probes']:,} probes"
    if result["out"]:
        return result, f"{summary} in {for_terminal(str(result['out']))}"
    return result, f"{summary}, the first of them:\n{aligned([HEADER, *first])}"


@index.command(
    epilog="""\b
Examples:
  faceidx index calibrate gallery --fpir 0.01"""
)
@_GALLERY
@click.option(
    "--fpir",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    required=True,
    help="Wanted share of strangers that are taken for somebody.",
)
@click.option(
    "--fusion",
    type=click.Choice(["best", "mean", "vote"]),
    default="best",
    show_default=True,
    help="A person's score: best picture, mean template, or the vote of the nearest pictures.",
)
@click.option(
    "--neighbours",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="With --fusion vote: nearest pictures that vote.",
)
@click.option(
    "--sample",
    type=click.IntRange(2),
    help="Search with so many pictures.  [default: all up to 20,000]",
)
@seed_option
@common_options
def calibrate(**options: Any) -> Outcome:
    """Find the threshold for a wanted FPIR on GALLERY itself, and store it there.

    Every picture is searched in the gallery without its own person, as a stranger would be. The
    threshold is the smallest that keeps the expected share of strangers who are taken for somebody
    at --fpir; with too few people to count that, it is extrapolated, with a warning.
    """
    from faceidx.gallery.calibrate import CalibrateOptions
    from faceidx.gallery.calibrate import calibrate as calibrate_gallery

    if options["fusion"] != "vote":
        warn_of_no_use(click.get_current_context(), ["neighbours"], "--fusion vote")
    with progress_bar() as progress:
        result = calibrate_gallery(CalibrateOptions(**options), progress=progress)
    return result, _threshold_text(result)


@index.command(
    epilog="""\b
Examples:
  faceidx index verify gallery"""
)
@_GALLERY
@common_options
def verify(gallery: Path) -> Outcome:
    """Check GALLERY to the last bit: hashes, counts, the index against gallery.h5."""
    from faceidx.gallery.check import verify as verify_gallery

    with progress_bar() as progress:
        result = verify_gallery(gallery, progress=progress)
    return result, (
        f"{for_terminal(str(gallery))} is intact: "
        f"{result['vectors']:,} vectors, {result['identities']:,} people"
    )


def _binned(pictures: Mapping[str, int]) -> dict[str, int]:
    """Pictures of a person to people; where those are many entries: 1, 2-4, 5-9, 10-19, ..."""
    if len(pictures) <= _FEW_ENTRIES:
        return dict(pictures)
    digits = max(map(len, pictures))
    bounds = [step * 10**power for power in range(digits + 1) for step in (1, 2, 5)]
    binned = {}
    for low, end in pairwise(bounds):
        if people := sum(count for n, count in pictures.items() if low <= int(n) < end):
            binned[str(low) if end == low + 1 else f"{low}-{end - 1}"] = people
    return binned


def _recall_text(result: Mapping[str, Any]) -> str:
    tuning = result["tuning"]
    if tuning is None:
        return "1 (exact search)"
    recall = tuning["recall"]
    people, strangers = recall["identities"], recall["strangers"]
    settings = ", ".join(f"{name} {value}" for name, value in tuning["parameters"].items())
    return (
        f"{recall['neighbours']:.4f} of nearest pictures"
        + (f", {people:.4f} of people" if people is not None else "")
        + (f", {strangers:.4f} of nearest to strangers" if strangers is not None else "")
        + f" ({recall['queries']:,} held-out pictures, {for_terminal(tuning['factory'])}, "
        + (f"{settings}, " if settings else "")
        + f"{tuning['candidates']} candidates; {tuning['queries_per_second']:,.0f} queries/s)"
    )


def _changed(what: str, result: Mapping[str, Any]) -> str:
    refused = f", {result['refused']:,} refused" if result["refused"] else ""
    return (
        f"{what} {for_terminal(str(result['out']))}: {result['vectors']:,} vectors, "
        f"{result['identities']:,} people, {result['kind']}, {result['bytes']:,} bytes{refused} "
        f"({result['seconds']:.1f} s)"
    )


def _threshold_text(threshold: Mapping[str, Any] | None) -> str:
    if threshold is None:
        return "none; run `faceidx index calibrate GALLERY --fpir P`"
    low, high = threshold["interval"]
    stale = "; stale, the gallery has changed since" if threshold["stale"] else ""
    expected = threshold["expected"]
    expects = "" if expected is None else f"FPIR of strangers {expected:.2g} expected, "
    fusion = "" if threshold["fusion"] == "best" else f", fusion {threshold['fusion']}"
    return (
        f"{threshold['value']:.6f} for an FPIR of {threshold['fpir_target']:g}{fusion} "
        f"({threshold['method']}: {threshold['errors']:,} of {threshold['trials']:,} searches, "
        f"{threshold['identity_errors']:,} of {threshold['identities']:,} people; {expects}"
        f"95 % {low:.2g} to {high:.2g}){stale}"
    )
