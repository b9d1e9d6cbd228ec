"""Which version of a package is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str | None:
    """Its version; None where it is not installed, as faceidx is not in a bare checkout."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
