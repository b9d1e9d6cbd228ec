"""`faceidx cluster`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceidx.cli.frame import common_options, progress_bar, seed_option
from faceidx.cli.paths import FILE, OUTPUT, OUTPUT_FOLDER
from faceidx.escape import for_terminal


@click.command(
    epilog="""\b
Examples:
  faceidx cluster photos.h5 --out groups.csv
  faceidx cluster photos.h5 --out groups.csv --duplicates
  faceidx cluster photos.h5 --out groups.csv --copy-to people --pictures photos/
  faceidx cluster photos.h5 --out groups.csv --threshold 0.4"""
)
@click.argument("file", metavar="FILE.h5", type=FILE)
@click.option(
    "--out",
    type=OUTPUT,
    required=True,
    metavar="groups.csv",
    help="File to write: path,group,size,score,identity,duplicate_of.",
)
@click.option(
    "--threshold",
    metavar="T|FILE.json",
    help="Smallest mean cosine of groups that are joined: a number, or a threshold file of "
    "verify-pairs.  [default: found from the faces]",
)
@click.option(
    "--duplicates",
    type=click.FloatRange(0, 1, min_open=True),
    is_flag=False,
    flag_value=0.95,
    metavar="[T]",
    help="Name near-duplicates too: faces at this cosine or above.  [0.95 where none is given]",
)
@click.option(
    "--copy-to", type=OUTPUT_FOLDER, metavar="DIR", help="Copy the pictures, a folder a group."
)
@click.option("--pictures", type=FILE, metavar="ROOT", help="Folder of the pictures to copy.")
@click.option(
    "--neighbours",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Nearest faces of each that are looked at.",
)
@click.option("--overwrite", is_flag=True, help="Replace a FILE of --out that exists.")
@seed_option
@common_options
def cluster(file: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """Group the faces of FILE.h5 by person, without knowing who they are.

    Groups are numbered from 1, the largest first; a face without its like is a group of size 1.
    Where the file holds identities, they are left out of the grouping and say how right it is.
    """
    from faceidx.gallery.cluster import ClusterOptions
    from faceidx.gallery.cluster import cluster as cluster_faces

    with progress_bar() as progress:
        result = cluster_faces(ClusterOptions(file=file, **options), progress=progress)
    return result, _summary(result)


def _summary(result: dict[str, Any]) -> str:
    lines = [
        f"{result['faces']:,} faces: {result['groups']:,} groups (the largest of "
        f"{result['largest']:,}) and {result['singles']:,} singles at threshold "
        f"{result['threshold']:.4f} (from {for_terminal(result['threshold_from'])})"
    ]
    if result["refused"]:
        lines.append(f"{result['refused']:,} cannot be compared")
    if result["duplicates"] is not None:
        lines.append(f"{result['duplicates']:,} near-duplicates")
    for name, figures in ((n, result.get(n)) for n in ("pairwise", "bcubed")):
        if figures:
            told = (f"{n} {'unknown' if v is None else f'{v:.2%}'}" for n, v in figures.items())
            lines.append(f"{name}: {', '.join(told)}")
    if result["copy_to"]:
        lines.append(f"{result['copied']:,} pictures in {for_terminal(str(result['copy_to']))}")
    lines.append(f"all faces: {for_terminal(str(result['out']))}")
    return "\n".join(lines)
