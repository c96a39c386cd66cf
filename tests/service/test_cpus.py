"""How many processors the service plans for, from control groups as Linux lays them out."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.cpus import available_cpus

AFFINITY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
V1 = "cpu,cpuacct"


def cpus(folder: Path, membership: str | None, files: Mapping[str, str]) -> int:
    """What is available in a made-up tree of control groups."""
    mount = folder / "cgroup"
    for name, text in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    own = folder / "membership"
    if membership is not None:
        own.write_text(membership)
    return available_cpus(own, mount)


def v1(quota: object, period: object = 100_000, group: str = "") -> dict[str, str]:
    """The files of one group, version 1."""
    return {f"{V1}/{group}cpu.cfs_quota_us": f"{quota}\n", f"{V1}/{group}cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        (None, {}),
        ("", {}),
        ("0::/\n", {}),
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        ("0::/\n", {"cpu.max": ""}),
        ("0::/\n", {"cpu.max": "what is this\n"}),
        ("0::/\n", {"cpu.max": "100000 0\n"}),
        ("0::/\n", {"cpu.max": "10000000000 100000\n"}),
        (f"4:{V1}:/\n", v1(-1)),
        (f"4:{V1}:/\n", {f"{V1}/cpu.cfs_quota_us": "100000\n"}),
        ("4:memory:/\n", v1(100_000)),
        ("nonsense\n", {"cpu.max": "100000 100000\n"}),
    ],
    ids=[
        "no membership",
        "no group",
        "no file",
        "max",
        "empty",
        "nonsense",
        "no period",
        "a limit above the affinity",
        "version 1, -1",
        "version 1, no period",
        "a group of something else",
        "a membership that is none",
    ],
)
def test_without_a_limit_the_affinity_counts(tmp_path: Path, membership: str | None, files: dict[str, str]) -> None:
    """Where no group limits the processors, or what the files say is no limit."""
    assert AFFINITY == cpus(tmp_path, membership, files)


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}),
        ("0::/pod/box\n", {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "50000 50000\n"}),
        ("0::/pod/box\n", {"pod/box/cpu.max": "100000 100000\n", "pod/cpu.max": "max 100000\n"}),
        ("0::/pod/box\n", {"cpu.max": "100000 100000\n"}),
        ("0::/../../gone\n", {"cpu.max": "100000 100000\n"}),
        (f"4:{V1}:/\n0::/\n", v1(100_000)),
        (f"4:{V1}:/docker/box\n", {**v1(100_000, group="docker/"), **v1(-1, group="docker/box/")}),
        (f"12:memory:/x\n4:{V1}:/docker/box\n", v1(25_000, 25_000)),
    ],
    ids=[
        "the own group",
        "the group above",
        "the group below one without",
        "the root, as in a container",
        "a group outside of the container's view",
        "version 1",
        "version 1, the group above",
        "version 1, the root, another period",
    ],
)
def test_one_processor_is_found_wherever_it_is_said(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    """A limit of one processor counts in either version, in the own group and in every group above it."""
    assert 1 == cpus(tmp_path, membership, files)


@pytest.mark.parametrize(
    ("quota", "expected"), [(10_000, 1), (99_999, 1), (150_000, 1), (199_999, 1), (200_000, 2), (250_000, 2)]
)
def test_a_fraction_is_rounded_down_but_one_is_left(tmp_path: Path, quota: int, expected: int) -> None:
    """1.5 processors are one thread's worth, a tenth of one too; never more than the affinity."""
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    assert min(expected, AFFINITY) == cpus(tmp_path / "new", "0::/\n", {"cpu.max": f"{quota} 100000\n"})
    assert min(expected, AFFINITY) == cpus(tmp_path / "old", f"4:{V1}:/\n", v1(quota))


def test_the_narrowest_of_all_limits_counts(tmp_path: Path) -> None:
    """Of both versions at once, and of nested groups."""
    files = {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "200000 100000\n", "cpu.max": "400000 100000\n"}
    assert min(2, AFFINITY) == cpus(tmp_path, "0::/a/b\n", files)
    assert 1 == cpus(tmp_path, f"4:{V1}:/\n0::/a/b\n", v1(100_000))


def test_this_machine_has_at_least_one() -> None:
    """The real files, whatever they say."""
    assert 1 <= available_cpus() <= AFFINITY
