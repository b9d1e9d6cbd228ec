"""Which device to run on."""

from __future__ import annotations

from faceidx.errors import InputError
from faceidx.resources import available_memory


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


def free_memory(device: str) -> int:
    """Bytes that a device has free: of a GPU's own memory, or of what this process may take.

    Args:
        device: as `resolve_device` takes it.
    """
    device = resolve_device(device)
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return available_memory()


def device_name(device: str) -> str:
    """What a GPU is, for people; empty for what is none."""
    import torch

    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return torch.cuda.get_device_name(device) if on_gpu else ""


def all_devices(device: str) -> list[str]:
    """The devices that a job may use: every GPU where `auto` or `cuda` names none of several."""
    resolved = resolve_device(device)
    if resolved != "cuda":
        return [resolved]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
