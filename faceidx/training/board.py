"""TensorBoard's event files of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from faceidx.errors import JobError


class Board:
    """Takes the figures of each epoch.

    Args:
        folder: of the event files; None for a process that writes none.
        epochs: done before. What a killed run wrote of later ones is no longer shown.
    """

    def __init__(self, folder: Path | None, epochs: int) -> None:
        self._folder = folder
        self._writer: Any = None
        self.reopen(epochs)

    def reopen(self, epochs: int) -> None:
        """Go on after so many epochs; those after them are no longer shown."""
        if self._folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        with self._disk_errors():
            self._writer = SummaryWriter(self._folder, purge_step=epochs + 1)

    def write(self, line: dict[str, Any]) -> None:
        """Add the figures of a line of the history."""
        with self._disk_errors():
            for name, value in line.items():
                if isinstance(value, float):
                    self._writer.add_scalar(name, value, line["epoch"])
            self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            with self._disk_errors():
                self._writer.close()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            raise JobError(
                f"{self._folder} could not be written: {error.strerror or error}"
            ) from error

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
