"""The errors of the library: everything it raises on purpose derives from `FaceidxError`.

A message is one line: what is wrong, where (file and line), and the way out.
"""

from __future__ import annotations


class FaceidxError(Exception):
    """Base of every error raised on purpose; the command line exits with 1 on it."""


class InputError(FaceidxError):
    """The user's options or files are wrong; the command line exits with 2 on it."""


class JobError(FaceidxError):
    """The job itself failed (full disk, diverged training); the command line exits with 1."""
