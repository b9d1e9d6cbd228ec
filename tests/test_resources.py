from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest

from faceidx import resources
from faceidx.gallery.indexes import IndexOptions
from faceidx.models import onnx_model
from faceidx.models.device import free_memory
from faceidx.resources import available_memory, core_limit, limit_threads, usable_cores
from tests.models.onnx_graphs import mean_color_graph

System = Callable[[Mapping[str, str]], None]
_MIB = 2**20


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Makes up a system of which these files tell; 8000 MiB are free on the machine."""
    monkeypatch.setattr(resources, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(resources, "_MOUNTED", tmp_path / "mounted")
    (tmp_path / "meminfo").write_text(
        f"MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable:    {8000 * 1024} kB\n"
    )

    def write(files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


def _v2(folder: str, limit: object, taken: int, files: int = 0) -> dict[str, str]:
    stat = f"anon 5\nfile 99999\ninactive_file {files}\nactive_file 0\nslab_reclaimable 7\n"
    limits = {f"{folder}/memory.max": f"{limit}\n", f"{folder}/memory.stat": stat}
    return {**limits, f"{folder}/memory.current": f"{taken}\n"}


def _v1(folder: str, limit: int, taken: int, files: int = 0) -> dict[str, str]:
    stat = f"inactive_file 1\nactive_file 1\ntotal_inactive_file 0\ntotal_active_file {files}\n"
    limits = {f"{folder}/memory.limit_in_bytes": f"{limit}\n", f"{folder}/memory.stat": stat}
    return {**limits, f"{folder}/memory.usage_in_bytes": f"{taken}\n"}


# Name -> files, and the MiB that can be had.
_SYSTEMS = {
    "no groups at all": ({}, 8000),
    "version 2, a container that sees its own group as the root": (
        {"groups": "0::/\n", **_v2("mounted", 2000 * _MIB, 500 * _MIB)},
        1500,
    ),
    "files that can be read again count as free": (
        {"groups": "0::/\n", **_v2("mounted", 2000 * _MIB, 1900 * _MIB, 400 * _MIB)},
        500,
    ),
    "version 2, the limit is that of a group around it": (
        {
            "groups": "0::/batch/job/step\n",
            **_v2("mounted/batch/job", 1000 * _MIB, 300 * _MIB),
            **_v2("mounted/batch/job/step", "max", 200 * _MIB),
        },
        700,
    ),
    "version 2, no limit": ({"groups": "0::/a\n", **_v2("mounted/a", "max", 500 * _MIB)}, 8000),
    "version 2, a limit that makes it slow": (
        {
            "groups": "0::/a\n",
            **_v2("mounted/a", 5000 * _MIB, 0),
            "mounted/a/memory.high": f"{600 * _MIB}\n",
        },
        600,
    ),
    "version 1, a container whose path is of another system": (
        {
            "groups": "5:cpu,cpuacct:/docker/f00\n4:memory:/docker/f00\n0::/docker/f00\n",
            **_v1("mounted/memory", 3000 * _MIB, 2500 * _MIB, 500 * _MIB),
        },
        1000,
    ),
    "version 1, no limit": (
        {"groups": "4:memory:/a\n", **_v1("mounted/memory/a", 2**63 - 4096, 500 * _MIB)},
        8000,
    ),
    "both versions": (
        {
            "groups": "9:name=systemd:/a\n4:memory:/a\n0::/a\n",
            **_v1("mounted/memory/a", 900 * _MIB, 0),
            **_v2("mounted/unified/a", 800 * _MIB, 0),
        },
        800,
    ),
    "more is taken than is allowed": (
        {"groups": "0::/\n", **_v2("mounted", 500 * _MIB, 600 * _MIB)},
        0,
    ),
    "files that say nothing": (
        {
            "groups": "nonsense\n0::/a\n",
            "mounted/a/memory.max": "",
            "mounted/a/memory.current": "x",
        },
        8000,
    ),
}


@pytest.mark.parametrize(("files", "wanted"), _SYSTEMS.values(), ids=_SYSTEMS)
def test_no_more_memory_can_be_had_than_a_container_may_take(
    files: Mapping[str, str], wanted: int, system: System
) -> None:
    system(files)
    assert available_memory() == wanted * _MIB
    # Batches, pictures to train on and galleries all go by it.
    assert free_memory("cpu") == wanted * _MIB
    assert IndexOptions().budget == wanted * _MIB // 2


def test_where_the_system_says_nothing_half_of_all_memory_is_taken(
    system: System, tmp_path: Path
) -> None:
    (tmp_path / "meminfo").unlink()
    assert available_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


# Name -> files, and the cores, of 64 that the process may run on.
_QUOTAS = {
    "no groups at all": ({}, 64),
    "version 2, a container": ({"groups": "0::/\n", "mounted/cpu.max": "200000 100000\n"}, 2),
    "a part of a core is one": ({"groups": "0::/\n", "mounted/cpu.max": "50000 100000\n"}, 1),
    "two and a half are three": ({"groups": "0::/\n", "mounted/cpu.max": "250000 100000\n"}, 3),
    "version 2, the limit is that of a group around it": (
        {
            "groups": "0::/batch/step\n",
            "mounted/batch/cpu.max": "400000 100000\n",
            "mounted/batch/step/cpu.max": "max 100000\n",
        },
        4,
    ),
    "version 2, no limit": ({"groups": "0::/a\n", "mounted/a/cpu.max": "max 100000\n"}, 64),
    "more than there are": ({"groups": "0::/\n", "mounted/cpu.max": "9900000 100000\n"}, 64),
    "version 1": (
        {
            "groups": "5:cpu,cpuacct:/docker/f00\n",
            "mounted/cpu/cpu.cfs_quota_us": "600000\n",
            "mounted/cpu/cpu.cfs_period_us": "100000\n",
        },
        6,
    ),
    "version 1, no limit": (
        {
            "groups": "5:cpu,cpuacct:/\n",
            "mounted/cpu/cpu.cfs_quota_us": "-1\n",
            "mounted/cpu/cpu.cfs_period_us": "100000\n",
        },
        64,
    ),
    "files that say nothing": ({"groups": "0::/\n", "mounted/cpu.max": "\n"}, 64),
}


@pytest.mark.parametrize(("files", "wanted"), _QUOTAS.values(), ids=_QUOTAS)
def test_no_more_cores_are_used_than_a_container_has_the_time_of(
    files: Mapping[str, str], wanted: int, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    system(files)
    assert usable_cores() == wanted
    assert core_limit() == (wanted if wanted < 64 else None)


@pytest.mark.parametrize(
    ("quota", "given", "wanted"),
    [("150000", None, "2"), ("150000", "1", "1"), ("max", None, None), ("6400000", None, None)],
)
def test_libraries_start_no_more_threads_than_a_container_has_cores_time_for(
    quota: str,
    given: str | None,
    wanted: str | None,
    system: System,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    system({"groups": "0::/\n", "mounted/cpu.max": f"{quota} 100000\n"})
    limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == wanted


@pytest.mark.parametrize(("limit", "wanted"), [(3, 3), (None, 0)])
def test_onnxruntime_is_told_of_a_containers_limit(
    limit: int | None, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_model, "core_limit", lambda: limit)
    graph = onnx.load(mean_color_graph(tmp_path / "m.onnx", shape=(1, 3, 4, 4)))
    session = onnx_model.open_session(graph, "cpu", tmp_path / "m.onnx")
    assert session.get_session_options().intra_op_num_threads == wanted
