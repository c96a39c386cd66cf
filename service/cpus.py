"""How many processors this process may use: its affinity, narrowed by the limit of its control group.

A container with two of sixty-four cores sees sixty-four, and sixty-four threads on two cores are slower than two.
Sources: cgroups(7); Linux admin guide, "CPU" of control group v2 (`cpu.max`); "CFS bandwidth control" for version 1
(`cpu.cfs_quota_us`, `cpu.cfs_period_us`). Groups above the own one may limit it too, so all of them are read.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MEMBERSHIP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def available_cpus(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> int:
    """Whole processors to plan for: at least 1; a limit of 1.5 counts as 1, since a second thread would be throttled.

    Args:
        membership: the file that names the control groups of this process.
        mount: where their files lie.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([float(affinity), *_limits(membership, mount)])))


def _limits(membership: Path, mount: Path) -> Iterator[float]:
    """Every limit that applies, in processors."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux, or no /proc
        return
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if hierarchy == "0":
            for folder in _upwards(mount, group):
                yield from _ratio(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for folder in _upwards(mount / controllers, group):
                yield from _ratio(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _upwards(root: Path, group: str) -> Iterator[Path]:
    """The folder of a group and those above it; within a container the group's own folder is the root."""
    path = PurePosixPath(group.lstrip("/"))
    for part in (path, *path.parents):
        yield root / part


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _ratio(words: list[str]) -> Iterator[float]:
    """Quota over period, both in microseconds; `max` and -1 are no limit."""
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[0]) and int(words[1]):
        yield int(words[0]) / int(words[1])
