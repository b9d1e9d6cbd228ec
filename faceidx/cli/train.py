"""`faceidx train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceidx.cli.frame import aligned, common_options, device_option, progress_bar, seed_option
from faceidx.cli.model_options import TEMPLATES
from faceidx.cli.paths import FILE, OUTPUT

_BY_RECIPE = "(by the recipe)"


@click.command(
    epilog="""\b
Examples:
  faceidx train people/ --out run
  faceidx train people/ --out run --pairs pairs.txt --pairs-root photos/
  faceidx train people/ --out run --aux center --aux angle
  faceidx train others/ --out tuned --from run/model.safetensors --stage finetune
  faceidx train people/ --out run --device cpu --devices 2
  faceidx train 'shards/{000..099}.tar' --out run --min-pictures 3 --dry-run

The same command goes on after an interruption, and ends as if there had been none."""
)
@click.argument("data", type=FILE)
@click.option("--out", type=OUTPUT, required=True, metavar="RUN", help="Folder of the run.")
@click.option("--root", type=FILE, metavar="DIR", help="For lists: what their paths start from.")
@click.option(
    "--min-pictures",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Identities with fewer pictures are left out.",
)
@click.option(
    "--recipe",
    default="auto",
    show_default=True,
    metavar="auto|NAME|FILE.toml",
    help="Presets what is not given.",
)
@click.option("--arch", metavar="ARCH", help=f"See `faceidx models list`. {_BY_RECIPE}")
@click.option("--from", "from_model", type=FILE, metavar="MODEL", help="Model to start from.")
@click.option(
    "--stage",
    type=click.Choice(["pretrain", "continue", "finetune"]),
    help="continue keeps the classifier, finetune takes new identities. (by --from and DATA)",
)
@click.option(
    "--loss",
    metavar="LOSS",
    help=f"Loss of the classifier: softmax, arcface, cosface, "
    f"adaface, sphereface or subcenter-arcface. {_BY_RECIPE}",
)
@click.option("--scale", type=float, help="Scale of the margin losses. (their papers')")
@click.option("--margin", type=float, help="Margin of the margin losses. (their papers')")
@click.option(
    "--aux",
    multiple=True,
    type=click.Choice(["center", "angle"]),
    help="Auxiliary loss; repeatable.",
)
@click.option("--aux-weight", type=click.FloatRange(0), help="Weight of the auxiliary losses.")
@click.option(
    "--aux-start",
    default="auto",
    show_default=True,
    metavar="auto|EPOCH",
    help="auto: once the validation curve is flat; earlier they are in the way.",
)
@click.option("--epochs", type=click.IntRange(1), help=_BY_RECIPE)
@click.option("--batch-size", type=click.IntRange(1), help=f"Over all processes. {_BY_RECIPE}")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help=f"Peak rate. {_BY_RECIPE}")
@click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), help=_BY_RECIPE)
@click.option("--weight-decay", type=click.FloatRange(0), help=_BY_RECIPE)
@click.option(
    "--clip-norm", type=click.FloatRange(0), help=f"Largest norm of the gradient. {_BY_RECIPE}"
)
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, max_open=True),
    help=f"Keep a moving average of the weights, of this decay. {_BY_RECIPE}",
)
@click.option(
    "--accumulate",
    type=click.IntRange(1),
    help="Parts that a batch is cut into where it does not fit into memory whole.",
)
@click.option(
    "--sampling",
    type=click.Choice(["natural", "balanced"]),
    help=f"balanced: each identity as often as any other. {_BY_RECIPE}",
)
@click.option(
    "--sample-rate",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the classes in each step, for very many: those of the batch and some others. "
    f"{_BY_RECIPE}",
)
@click.option("--warmup-epochs", type=click.FloatRange(0), help=_BY_RECIPE)
@click.option("--label-smoothing", type=click.FloatRange(0, 1), help=_BY_RECIPE)
@click.option("--image-size", type=click.IntRange(16), help=_BY_RECIPE)
@click.option("--embedding-dim", type=click.IntRange(1), help=_BY_RECIPE)
@click.option(
    "--augment",
    type=click.Choice(["none", "light", "medium", "strong", "randaugment"]),
    help=_BY_RECIPE,
)
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    help="How the faces of DATA are aligned, where `align` did not do it: so are those of photos.",
)
@click.option(
    "--val",
    default="0.1",
    show_default=True,
    metavar="DIR|FRACTION",
    help="What judges: a folder, or a share of DATA, half of it people held out whole.",
)
@click.option("--pairs", type=FILE, help="Pair list to report each epoch.")
@click.option("--pairs-root", type=FILE, metavar="DIR", help="Where the list's pictures lie.")
@click.option(
    "--pairs-format",
    metavar="FORMAT",
    help="Format of the list: lfw, csv, ...; a wrong name lists them all.  [default: recognised]",
)
@click.option(
    "--select",
    type=click.Choice(["val", "pairs"]),
    default="val",
    show_default=True,
    help="What chooses the best model.",
)
@click.option(
    "--devices", default="auto", show_default=True, metavar="auto|N", help="Number of processes."
)
@click.option("--num-nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines.")
@click.option(
    "--head-shards",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Spread the classes of the classifier over the processes. auto: from 50,000 classes.",
)
@click.option(
    "--sync-bn",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Batch norm over all processes. auto: on the CPU, and on GPUs of few pictures each.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where the device is fast at it.",
)
@click.option(
    "--compile",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="auto: on a GPU, where the run is long enough.",
)
@click.option(
    "--save-steps",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    metavar="N",
    help="Save the state every N steps, and at the end of each epoch.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan, time a few steps, write nothing.")
@click.option("--follow-links", is_flag=True, help="Follow links to folders.")
@click.option("--overwrite", is_flag=True, help="Replace a run in RUN.")
@device_option
@seed_option
@common_options
def train(dry_run: bool, **options: Any) -> tuple[dict[str, Any], str]:
    """Train a face model on DATA: a folder for each person, a list of pictures, or tar shards.

    RUN gets model.safetensors (the best), last.safetensors, metrics.jsonl (a line an epoch),
    curves.png, config.toml, TensorBoard events, and state/ to go on from.
    """
    from faceidx.training.launch import is_first_process
    from faceidx.training.loop import train as run
    from faceidx.training.options import TrainOptions

    with progress_bar() as progress:
        if dry_run:
            from faceidx.training.plan import make_plan

            plan = make_plan(TrainOptions(**options), progress)
            return plan, _plan_text(plan)
        result = run(TrainOptions(**options), progress)
    if not is_first_process():
        raise click.exceptions.Exit(0)  # the first of the processes speaks for all
    return result, _summary(result)


def _summary(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']}: {result['arch']}, {result['classes']} identities, "
        f"{result['images']} pictures, epoch {result['best_epoch']} of {result['epochs']} is best"
    ]
    names = {
        "val_accuracy": "accuracy on held-out pictures",
        "val_auc": f"pair AUC on held-out {'people' if result['held_out_people'] else 'pictures'}",
        "pairs_auc": "pair AUC on the pair list",
    }
    lines += [f"{text}: {result[n]:.4f}" for n, text in names.items() if result[n] is not None]
    if "aux_share" in result:
        lines.append(_auxiliary(result))
    if result["left_out"]:
        run = Path(result["model"]).parent
        lines.append(f"{result['left_out']} pictures were left out: {run / 'left-out.csv'}")
    minutes = result["seconds"] / 60
    lines.append(f"{result['images_per_second']:.0f} images/s, {minutes:.1f} minutes")
    return "\n".join(lines)


def _plan_text(plan: dict[str, Any]) -> str:
    from faceidx.training.recipes import as_toml

    recipe = plan["recipe"]
    rows = [
        ("model", f"{recipe['arch']} at {recipe['image_size']} pixels, {plan['stage']}"),
        (
            "parameters",
            f"{plan['parameters']:,}, and {plan['head_parameters']:,} of the classifier",
        ),
        ("a picture", f"{plan['flops'] / 1e9:.2f} GFLOPs forward, some three times that to learn"),
        ("trains on", f"{plan['images']} pictures of {plan['classes']} identities"),
        (
            "judged by",
            f"{plan['held_out_images']} pictures, {plan['held_out_people']} people held out whole",
        ),
        ("left out", f"{plan['left_out']} pictures"),
        (
            "runs on",
            f"{plan['device']}, {plan['processes']} processes, {plan['precision']}"
            f"{', compiled' if plan['compiled'] else ''}",
        ),
        ("memory", f"some {plan['memory'] / 2**30:.1f} GiB a process"),
        ("steps", f"{plan['steps_per_epoch']} an epoch, {plan['steps']} in all"),
        (
            "time",
            f"some {plan['seconds'] / 60:.1f} minutes ({plan['images_per_second']:.0f} images/s "
            "in the steps timed)",
        ),
        ("recipe", recipe["name"]),
    ]
    table = aligned((name, str(value)) for name, value in rows)
    return f"{table}\n\n# its settings, as a file for --recipe:\n{as_toml(recipe).rstrip()}"


def _auxiliary(result: dict[str, Any]) -> str:
    """What became of the auxiliary losses."""
    started, back = result["aux_started"], len(result["aux_rollbacks"])
    if started is None:
        return "the auxiliary losses never came in: the validation curve did not flatten"
    text = f"the auxiliary losses came in with epoch {started}"
    if not back:
        return text
    left = "none" if not result["aux_share"] else f"{result['aux_share']:g}"
    times = "once" if back == 1 else f"{back} times"
    return f"{text}; the run went back {times}, and {left} of their weight is left"
