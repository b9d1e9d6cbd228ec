"""`faceidx models`: what can be trained, and what a model file says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceidx.cli.frame import FILE, common_options


@click.group(
    epilog="""\b
Examples:
  faceidx models list
  faceidx models info run/model.safetensors"""
)
def models() -> None:
    """List architectures, look into model files."""


@models.command("list", epilog="\b\nExample:\n  faceidx models list")
@common_options
def list_() -> tuple[dict[str, Any], str]:
    """List the architectures, losses and recipes that `train` knows."""
    from faceidx.losses.registry import AUXILIARIES, HEADS
    from faceidx.models.registry import BACKBONES
    from faceidx.training.options import recipe_names

    result = {
        "architectures": list(BACKBONES),
        "losses": list(HEADS),
        "auxiliary_losses": list(AUXILIARIES),
        "recipes": recipe_names(),
    }
    lines = [f"{kind}: {', '.join(names)}" for kind, names in result.items()]
    return result, "\n".join(lines)


@models.command(epilog="\b\nExample:\n  faceidx models info run/model.safetensors --json")
@click.argument("model", type=FILE)
@common_options
def info(model: Path) -> tuple[dict[str, Any], str]:
    """Say what MODEL is: architecture, input, fingerprint, classes, how it was trained."""
    from faceidx.escape import for_terminal
    from faceidx.models.about import describe

    result = describe(model)
    shown = {k: v for k, v in result.items() if k != "class_names" and v is not None}
    return result, "\n".join(for_terminal(f"{k}: {v}") for k, v in shown.items())
