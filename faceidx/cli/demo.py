"""`faceidx demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceidx.cli.frame import common_options, device_option, progress_bar, seed_option
from faceidx.cli.paths import OUTPUT


@click.command(
    epilog="""\b
Examples:
  faceidx demo
  faceidx demo --out somewhere --json"""
)
@click.option(
    "--out",
    type=OUTPUT,
    default=Path("faceidx-demo"),
    show_default=True,
    metavar="DIR",
    help="Folder that gets every file and index.html.",
)
@device_option
@seed_option
@common_options
def demo(**options: Any) -> tuple[dict[str, Any], str]:
    """Run the whole way on faces drawn on the spot, in minutes on two cores.

    Draws people, trains on some, then embeds, indexes, classifies and verifies others that the
    model never saw. The faces are drawn: the figures say nothing about real ones.
    """
    from faceidx.demo.run import DemoOptions
    from faceidx.demo.run import demo as run

    with progress_bar() as progress:
        result = run(DemoOptions(**options), progress)
    low, high = result["auc_ci"]
    lines = [
        "The faces are drawn: these figures say nothing about real ones.",
        f"trained on {result['people_trained']} drawn people, "
        f"judged on {result['people_unseen']} that it never saw",
        f"pair AUC   {result['auc']:.4f}  (95 %: {low:.4f} to {high:.4f})",
        f"rank-1     {result['rank1']['value']:.2%} of {result['rank1']['trials']} enrolled probes",
        f"strangers  {result['fpir']['errors']} of {result['fpir']['trials']} taken for somebody "
        f"(threshold {result['threshold']:.3f})",
        f"look at    {result['page']}",
    ]
    return result, "\n".join(lines)
