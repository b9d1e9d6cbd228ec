"""Which device to run on."""

from __future__ import annotations

from faceidx.errors import InputError


def resolve_device(device: str) -> str:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into the name of a device that is there.

    Raises:
        InputError: a GPU is asked for and there is none, or none of that number.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError(f"--device {device}: torch finds no GPU here; give cpu or auto")
        _, _, number = device.partition(":")
        if number and int(number) >= torch.cuda.device_count():
            raise InputError(f"--device {device}: there are {torch.cuda.device_count()} GPUs")
    return device
