"""The command line: one module a command, imported only when that command is run."""

from __future__ import annotations

import importlib

import click

# Command name -> (module, attribute, one line of help). The help stands here so that listing the
# commands imports none of them.
_COMMANDS = {
    "train": ("faceidx.cli.train", "train", "Train a face model on a folder of people."),
    "embed": ("faceidx.cli.embed", "embed", "Embed pictures into an HDF5 file."),
    "align": ("faceidx.cli.align", "align", "Write the faces of photos, cut out and aligned."),
    "index": ("faceidx.cli.index", "index", "Build, change and search a gallery."),
    "classify": ("faceidx.cli.classify", "classify", "Say who is in each picture, or `unknown`."),
    "cluster": ("faceidx.cli.cluster", "cluster", "Group faces by person; find near-duplicates."),
    "verify": ("faceidx.cli.verify", "verify", "Say whether two pictures show one person."),
    "verify-pairs": (
        "faceidx.cli.verify_pairs",
        "verify_pairs",
        "Score a list of pairs: exact ROC, AUC, EER, TAR at FAR.",
    ),
    "eval": ("faceidx.cli.evaluate", "evaluate", "Judge a model: classifier and verification."),
    "models": ("faceidx.cli.models", "models", "List architectures, look into model files."),
    "demo": ("faceidx.cli.demo", "demo", "Run the whole way on faces drawn on the spot."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        from faceidx.cli.frame import take_device

        take_device(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Click's own option ends in a traceback in a checkout that is not installed."""
    if wanted:
        from faceidx.versions import version_of

        click.echo(f"faceidx, version {version_of('faceidx') or 'of a checkout, not installed'}")
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  faceidx demo
  faceidx embed photos/ --model model.safetensors --out photos.h5
  faceidx verify-pairs pairs.txt --embeddings photos.h5""",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Batch face recognition: train, embed, index, classify, verify."""


def run() -> None:
    """Entry point of the `faceidx` script: run the command line and exit with its code."""
    from faceidx.cli.frame import run_and_exit
    from faceidx.resources import limit_threads

    limit_threads()
    run_and_exit(main)
