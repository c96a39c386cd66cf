"""Interleaved timing: every candidate in turn, many times over, so that a drift of the machine strikes all alike."""

import os
import platform
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray


def interleaved(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 25, seconds: float = 0.02
) -> dict[str, NDArray[np.float64]]:
    """Time each candidate once a round, in turn.

    Args:
        candidates: what to time, by name.
        rounds: how often each gets its turn.
        seconds: how long a turn lasts, about.

    Returns:
        Seconds a call by name, [rounds] each. Ratios are to be taken round by round.
    """
    repeats = {}
    for name, call in candidates.items():
        call()  # the first call pays for what is set up lazily
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, round(seconds / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - begin) / repeats[name])
    return {name: np.array(values) for name, values in times.items()}


def quartiles(values: NDArray[np.float64], scale: float = 1.0, digits: int = 2) -> str:
    """The median of some figures, with the quartiles."""
    low, middle, high = np.quantile(values * scale, (0.25, 0.5, 0.75))
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def machine() -> str:
    """One line on what this ran on."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):  # noqa: PTH110  (one read, where Linux keeps it)
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {platform.system()}"
