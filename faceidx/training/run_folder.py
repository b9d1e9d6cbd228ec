"""The folder of a run: what it holds, and what is written at the end of each epoch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from faceidx.errors import InputError
from faceidx.files import FOLDER_MODE, remove_leftovers, require_parent, where_it_leads, whole_file
from faceidx.tables import write_rows
from faceidx.training.options import Recipe, TrainOptions
from faceidx.training.state import read_state

MODEL, LAST, STATE = "model.safetensors", "last.safetensors", "state"
METRICS, CONFIG, CURVES, LEFT_OUT = "metrics.jsonl", "config.toml", "curves.png", "left-out.csv"
TENSORBOARD = "tensorboard"
# The end of the last healthy epoch, while an auxiliary loss is on (`guard`).
GOOD = "good-state"
_OURS = {MODEL, LAST, STATE, METRICS, CONFIG, CURVES, LEFT_OUT, TENSORBOARD, GOOD}
# Options that do not change what is learned: a run may go on with others.
_ELSEWHERE = {"out", "root", "pairs_root", "overwrite"}
_FREE = _ELSEWHERE | {"device", "devices", "num_nodes", "compile", "head_shards", "save_steps"}

_FINISHED = "holds a finished run; give --overwrite to train anew"
# What has happened where a digest of the data is another one.
_DATA = {
    "data_digest": "pictures or identities of DATA have changed",
    "classes_digest": "the people to tell apart have changed",
    "split_digest": "the pictures to train on are others, as of a --from that was replaced,",
    "val_digest": "pictures or identities of --val have changed",
    "pairs_digest": "the pairs of --pairs whose pictures are there have changed",
}


def settings_of(
    options: TrainOptions, recipe: Recipe, digests: Mapping[str, str]
) -> dict[str, Any]:
    """What must be the same for a run to go on, in JSON's types.

    Args:
        digests: of the data (`TrainingData.digests`).
    """
    values = {**asdict(options), **asdict(recipe)}
    plain = {k: v for k, v in values.items() if k not in _FREE and v is not None}
    plain |= {f"{name}_digest": digest for name, digest in digests.items()}
    return json.loads(json.dumps(plain, default=str))


def refuse_at_once(run: Path, *, overwrite: bool) -> None:
    """Refuse what can be told before the pictures are read, which may take minutes.

    Raises:
        InputError: the run is finished, or cannot be written.
    """
    require_parent(where_it_leads(run))
    saved = None if overwrite else read_state(run / STATE)
    if saved and saved[0].finished:
        raise InputError(f"{run} {_FINISHED}")


def prepare_folder(run: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder ready: new, emptied, or as an unfinished run left it.

    An unfinished run with the same settings is gone on with, `overwrite` or not: it would come out
    the same again.

    Raises:
        InputError: it holds a finished run, one with other options, or something that is no run.
    """
    if not run.exists():
        run.mkdir(FOLDER_MODE)
        return
    if not run.is_dir():
        raise InputError(f"{run} is no folder; a run is one")
    for name in _OURS:
        remove_leftovers(run / name)
    if {p.name for p in run.iterdir()} - _OURS:
        raise InputError(f"{run} holds other things than a run; give a folder of its own")
    reason = _why_not_go_on(run, settings)
    if reason and not overwrite:
        raise InputError(f"{run} {reason}")
    if reason:
        for path in run.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _why_not_go_on(run: Path, settings: dict[str, Any]) -> str | None:
    """What keeps a run from being gone on with, None where nothing does."""
    try:
        saved = read_state(run / STATE)
    except InputError as error:
        return f"cannot go on: {error}"
    if saved is None:
        held = (run / MODEL).exists()
        return "holds a model but no state to go on from; give --overwrite" if held else None
    state, before = saved
    if state.finished:
        return _FINISHED
    for name in sorted({*before, *settings}, key=lambda name: (name in _DATA, name)):
        if before.get(name) != settings.get(name):
            if name in _DATA:
                return (
                    f"holds an unfinished run, and {_DATA[name]} since; give the same, or "
                    "--overwrite"
                )
            return (
                f"holds an unfinished run with other options: {name.replace('_', '-')} was "
                f"{before.get(name)}, now {settings.get(name)}; give the same, or --overwrite"
            )
    return None


def write_config(run: Path, options: TrainOptions, recipe: Recipe) -> None:
    """Write every setting, so that `faceidx train DATA --out RUN --config FILE` does it again."""
    values = {**asdict(options), **asdict(recipe)}
    left = {"data", "out", "overwrite", "recipe"}
    plain = {k: v for k, v in values.items() if k not in left and v is not None and v != ()}
    named = {
        {"from_model": "from"}.get(k, k).replace("_", "-"): str(v) if isinstance(v, Path) else v
        for k, v in plain.items()
    }
    with whole_file(run / CONFIG) as temporary:
        temporary.write_text(tomli_w.dumps(named), "utf-8")


def write_metrics(run: Path, history: list[dict[str, Any]]) -> None:
    """Write `metrics.jsonl`, a line an epoch."""
    with whole_file(run / METRICS) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in history), "utf-8")


def write_left_out(run: Path, left_out: list[tuple[str, str]]) -> None:
    """Write `left-out.csv`: every picture that was found and not used, with the reason."""
    write_rows(run / LEFT_OUT, ["path", "reason"], left_out)


def draw_curves(run: Path, history: list[dict[str, Any]]) -> None:
    """Draw loss, accuracy and AUC over the epochs to `curves.png`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (
        ("loss", ("loss",)),
        ("accuracy", ("train_accuracy", "val_accuracy")),
        ("pair AUC", ("val_auc", "pairs_auc")),
    )
    for place, (title, names) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        for name in names:
            points = [(h["epoch"], h[name]) for h in history if h.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        for line in history:
            if line.get("aux_started"):
                axes.axvline(line["epoch"], color="grey", linestyle=":")
    with whole_file(run / CURVES) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def remove_good_state(run: Path) -> None:
    """Delete what a finished run has no use for."""
    shutil.rmtree(run / GOOD, ignore_errors=True)
