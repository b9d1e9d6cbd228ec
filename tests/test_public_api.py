"""The names that `import faceidx` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import faceidx


@pytest.mark.parametrize("name", faceidx.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(faceidx, name).__doc__


def test_a_name_that_is_not_public_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = faceidx.nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = "import faceidx, sys; sys.exit(bool({'torch', 'faiss', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
