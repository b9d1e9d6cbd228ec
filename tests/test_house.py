"""Rules of the house that no type checker knows."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / "faceidx"
_FILES = sorted(_PACKAGE.rglob("*.py"))

# What stands at the top of the package, for everyone to use.
_BASE = {
    "children",
    "errors",
    "files",
    "hdf5",
    "escape",
    "progress",
    "processes",
    "resources",
    "shared_memory",
    "tables",
    "threads",
    "versions",
}
# Folder -> the folders that it may import.
_MAY_IMPORT = {
    "images": set(),
    "models": {"images"},
    "losses": set(),
    "embedding": {"images", "models"},
    "evaluation": {"images", "models", "embedding"},
    "gallery": {"images", "models", "embedding", "evaluation"},
    "training": {"images", "models", "losses", "embedding", "evaluation"},
}
_LIBRARY = set(_MAY_IMPORT)
_MAY_IMPORT["demo"] = {*_LIBRARY}
_MAY_IMPORT["cli"] = {*_LIBRARY, "demo"}

# The one place where a pickle is read, by an unpickler that admits plain types alone.
_READER_OF_PICKLES = _PACKAGE / "images" / "packed.py"
_NEVER_IMPORTED = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def _imports(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _place(file: Path) -> str:
    """The folder of a file within the package, or the name of a file at its top."""
    return file.relative_to(_PACKAGE).with_suffix("").parts[0]


def test_imports_go_one_way() -> None:
    wrong = []
    for file in _FILES:
        here = _place(file)
        if here in ("__init__", "__main__"):
            continue
        allowed = _BASE if here in _BASE else _MAY_IMPORT[here] | _BASE | {here}
        for name in _imports(file):
            first, _, rest = name.partition(".")
            if first == "faceidx" and rest.partition(".")[0] not in allowed:
                wrong.append(f"{file.relative_to(_ROOT)} imports {name}")
    assert wrong == []


def test_there_is_no_circle_among_the_folders() -> None:
    order: list[str] = []
    while len(order) < len(_MAY_IMPORT):
        free = [n for n, may in _MAY_IMPORT.items() if n not in order and may <= set(order)]
        assert free, f"a circle among {set(_MAY_IMPORT) - set(order)}"
        order += free


def test_what_is_imported_is_what_is_installed_and_no_more() -> None:
    """Else an install lacks a package as soon as another one needs it no more."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed, *extras = (
        {re.split(r"[><=; \[]", line)[0] for line in lines}
        for lines in (
            project["dependencies"],
            *(
                some
                for name, some in project["optional-dependencies"].items()
                if name not in ("dev", "bench")
            ),
        )
    )
    owners = {
        module: {re.sub("[-_.]+", "-", name).lower() for name in names}
        for module, names in packages_distributions().items()
    }
    imported = {name.partition(".")[0] for file in _FILES for name in _imports(file)}
    imported -= {*sys.stdlib_module_names, "faceidx"}
    imported -= {"google", "typing_extensions"}  # of onnx, and for types alone
    declared = needed.union(*extras)
    assert {name for name in imported if not declared & owners.get(name, set())} == set()
    used = {owner for name in imported for owner in owners.get(name, set())}
    one_of_both = {"faiss-gpu", "faiss-cpu"}
    # The one is imported by torch for us, with the other users check our figures.
    assert declared - used - one_of_both == {"tensorboard", "scikit-learn"}


def test_nothing_but_the_one_reader_knows_pickles() -> None:
    found = {
        file
        for file in _FILES
        for name in _imports(file)
        if name.partition(".")[0] in _NEVER_IMPORTED
    }
    assert found <= {_READER_OF_PICKLES}


def test_nothing_is_loaded_in_a_way_that_could_unpickle() -> None:
    """`torch.load` only with `weights_only=True`, NumPy never with `allow_pickle=True`."""
    wrong = []
    for file in _FILES:
        for node in ast.walk(_tree(file)):
            if not isinstance(node, ast.Call):
                continue
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            name = ast.unparse(node.func)
            where = f"{file.relative_to(_ROOT)}:{node.lineno}: {name}"
            if keywords.get("allow_pickle", "False") != "False":
                wrong.append(where)
            if name == "torch.load" and keywords.get("weights_only") != "True":
                wrong.append(where)
    assert wrong == []


def test_the_library_neither_prints_nor_exits() -> None:
    wrong = []
    for file in _FILES:
        if _place(file) == "cli":
            continue
        for node in ast.walk(_tree(file)):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("print", "exit", "quit", "sys.exit", "os._exit", "input"):
                wrong.append(f"{file.relative_to(_ROOT)}:{node.lineno}: {name}")
    assert wrong == []


def test_nothing_is_left_unfinished() -> None:
    words = ("TODO", "FIXME", "XXX", "NotImplementedError")
    found = [
        f"{file.relative_to(_ROOT)}: {word}"
        for file in _FILES
        for word in words
        if word in file.read_text("utf-8")
    ]
    assert found == []


def test_no_module_has_grown_out_of_hand() -> None:
    lengths = {str(f.relative_to(_ROOT)): len(f.read_text("utf-8").splitlines()) for f in _FILES}
    assert {name: n for name, n in lengths.items() if n > 420} == {}
    assert not [f for f in _FILES if f.stem in ("utils", "helpers", "common", "misc")]


@pytest.mark.parametrize("script", ["hybrid_parts", "open_set"])
def test_a_benchmark_without_its_files_does_not_end_the_others(script: str) -> None:
    """`make bench` runs them one after another."""
    path = _ROOT / "benchmarks" / f"{script}.py"
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "skipped:"), done.stderr


def test_every_promise_names_tests_that_there_are() -> None:
    text = (_ROOT / "docs" / "design.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)`((?:: )?(?:`test_\w+`(?:, )?)*)", text)
    assert len(named) > 20
    missing = [
        f"{file}: {name}"
        for file, names in named
        for name in re.findall(r"`(test_\w+)`", names) or ["test_"]
        if f"def {name}" not in (_ROOT / file).read_text("utf-8")
    ]
    assert missing == []


# --- the command line --------------------------------------------------------------------------

_WALK = """
import contextlib, io, json, sys
import click
from faceidx.cli import main

def walk(command, context, path):
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            inner = click.Context(child, info_name=name, parent=context)
            yield from walk(child, inner, [*path, name])

heavy = {"torch", "faiss", "sklearn", "matplotlib", "scipy", "onnx", "h5py", "numpy"}
found = {}
for path, command, context in walk(main, click.Context(main, info_name="faceidx"), []):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main.main([*path, "--help"], prog_name="faceidx", standalone_mode=False)
    found[" ".join(path)] = {"help": out.getvalue(), "heavy": sorted(heavy & set(sys.modules))}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, dict[str, object]]:
    """The help of every command and subcommand, and what was loaded by then."""
    done = subprocess.run(
        [sys.executable, "-c", _WALK], capture_output=True, text=True, check=False, cwd=_ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_the_promised_commands_are_there(helps: dict[str, dict[str, object]]) -> None:
    promised = {"train", "embed", "index", "classify", "verify-pairs", "eval", "models", "demo"}
    promised |= {f"index {n}" for n in ("build", "add", "remove", "info", "search", "calibrate")}
    promised |= {"index verify", "index import", "models list", "models info"}
    promised |= {"models import", "models export"}
    assert promised <= set(helps)


def test_no_help_loads_anything_heavy(helps: dict[str, dict[str, object]]) -> None:
    assert {name: h["heavy"] for name, h in helps.items() if h["heavy"]} == {}


def test_every_help_ends_in_examples(helps: dict[str, dict[str, object]]) -> None:
    assert [name for name, h in helps.items() if "Example" not in str(h["help"])] == []


def test_every_command_of_work_takes_the_common_options(
    helps: dict[str, dict[str, object]],
) -> None:
    for name, h in helps.items():
        if "COMMAND [ARGS]" in str(h["help"]):
            continue
        for option in ("--json", "--config", "--verbose"):
            assert option in str(h["help"]), f"{name} lacks {option}"
