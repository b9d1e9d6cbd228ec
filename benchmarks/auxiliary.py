"""Auxiliary losses from the start, once the validation curve is flat, or never: side by side.

    python benchmarks/auxiliary.py [--aux center] [--aux-weight X] [--loss softmax] [--epochs 12]
        [--seeds 0,1] [--image-size 32] [--arch mobilefacenet] [--data DIR --val 0.3] [--out DIR]
        [--draw FILE.svg]

Trains on lfw-train with the same seeds each way, in turn, and prints a table: the best epoch by the
training's own validation, and what that epoch reaches on the pairs of lfw-dev, which choose
nothing. `--data` trains on other people, without such pairs. `--draw` draws the curves. `--out`
keeps the runs: the same command goes on with them, and draws anew what is finished. Without the LFW
pictures faces are drawn to train on.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from faceidx.demo.faces import write_people
from faceidx.training import history, run_folder
from faceidx.training.loop import train
from faceidx.training.options import TrainOptions
from faceidx.training.state import read_state

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WAYS = {"never": None, "from the start": "1", "auto": "auto"}
COLOURS = {"never": "#555555", "from the start": "#c0392b", "auto": "#1f77b4"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--aux", action="append", choices=["center", "angle"])
    parser.add_argument("--aux-weight", type=float)
    parser.add_argument("--loss", default="softmax")
    parser.add_argument("--arch", default="mobilefacenet")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--val", default="0.1")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    print(f"{'way':15} seed  came in  went back  best epoch  val_accuracy  val_auc  pairs_auc")
    runs: dict[str, list[list[dict[str, Any]]]] = {way: [] for way in arguments.ways.split(",")}
    with tempfile.TemporaryDirectory() as temporary:
        data = options_of_data(arguments.data, Path(temporary))
        for seed in map(int, arguments.seeds.split(",")):
            for way in runs:
                out = (arguments.out or Path(temporary)) / f"{way.replace(' ', '-')}-{seed}"
                lines = lines_of(options_of(arguments, data, way, seed, out))
                runs[way].append(lines)
                report(way, seed, lines)
    if arguments.draw:
        draw(runs, arguments.draw)


def lines_of(options: TrainOptions) -> list[dict[str, Any]]:
    """The lines of metrics of a run, which is trained unless it is finished."""
    saved = read_state(options.out / run_folder.STATE)
    if not (saved and saved[0].finished):
        train(options)
    with (options.out / run_folder.METRICS).open() as file:
        return [json.loads(line) for line in file]


def options_of_data(given: Path | None, temporary: Path) -> dict[str, Any]:
    """Where the pictures lie, and the pairs that choose nothing."""
    if given is not None:
        return {"data": given}
    if not DATA.is_dir():
        write_people(temporary / "people", people=40, pictures=12, seed=0, size=32)
        return {"data": temporary / "people"}
    pairs = {"pairs": DATA / "lfw-pairs-dev.txt", "pairs_root": DATA / "lfw-dev"}
    return {"data": DATA / "lfw-train", **pairs}


def options_of(
    arguments: argparse.Namespace, data: dict[str, Any], way: str, seed: int, out: Path
) -> TrainOptions:
    start = WAYS[way]
    more: dict[str, Any] = {}
    if start is not None:
        more = {"aux": tuple(arguments.aux or ["center"]), "aux_start": start}
    return TrainOptions(
        **data,
        **more,
        out=out,
        recipe="laptop",
        arch=arguments.arch,
        image_size=arguments.image_size,
        loss=arguments.loss,
        aux_weight=arguments.aux_weight if start else None,
        epochs=arguments.epochs,
        val=arguments.val,
        seed=seed,
        device="cpu",
    )


def report(way: str, seed: int, lines: list[dict[str, Any]]) -> None:
    on = [line["epoch"] for line in lines if line.get("aux_share")]
    back = sum(len(line.get("aux_rollbacks", [])) for line in lines)
    best = history.best(lines, "val")
    figures = [best[name] for name in ("val_accuracy", "val_auc", "pairs_auc")]
    accuracy, own_pairs, pairs = ("-" if f is None else f"{f:.4f}" for f in figures)
    print(
        f"{way:15} {seed:4}  {min(on, default='-')!s:>7}  {back:9}  {best['epoch']:10}  "
        f"{accuracy:>12}  {own_pairs:>7}  {pairs:>9}",
        flush=True,
    )


def draw(runs: dict[str, list[list[dict[str, Any]]]], path: Path) -> None:
    """Draw the curves, a line a run; a dot where the losses came in."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = {
        "loss_head": "the classifier's own loss",
        "val_accuracy": "accuracy on held-out pictures",
        "val_auc": "pair AUC of held-out people",
    }
    for place, (name, title) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), place)
        for way, several in runs.items():
            for number, lines in enumerate(several):
                at = [line["epoch"] for line in lines]
                values = [line[name] for line in lines]
                label = way if number == 0 else None
                axes.plot(at, values, color=COLOURS[way], lw=1.2, label=label)
                on = [i for i, line in enumerate(lines) if line.get("aux_share")]
                if on:
                    axes.plot(at[on[0]], values[on[0]], "o", color=COLOURS[way], ms=4)
        axes.set(title=title, xlabel="epoch")
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
