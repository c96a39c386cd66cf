"""What the service costs before it does anything: seconds to start, and memory."""

import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.builders import make_bundle
from tests.service.support import Truth, predictions
from tests.system.server import serving

RESIDENT_AT_MOST = 250 * 10**6
"""Issue 2: "its resident memory at most 250 MB with the demo model"."""


def test_start_and_memory(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """With a model of the demo's size, after predictions of every plan, the process stays below 250 MB."""
    repository = tmp_path / "bundles"
    truth = Truth(make_bundle(repository, "demo", features=64, hidden=(128, 128), targets=10))
    rows = truth.rows(64, seed=80).tolist()
    with serving(repository, tmp_path) as server:
        process = psutil.Process(server.process.pid)
        started = process.memory_info().rss
        for _ in range(10):
            assert 64 == len(predictions(server.predict("demo", rows)))
            assert 64 == len(predictions(server.predict("demo", rows, sensitivity=False)))
            assert 64 == len(predictions(server.predict("demo", rows, top_features=3)))
        used = process.memory_info().rss
        if sys.platform == "linux":
            assert [] == [mapped.path for mapped in process.memory_maps() if "torch" in mapped.path]
        assert [] == process.children()
    for name, value in (
        ("start_seconds", round(server.start_seconds, 2)),
        ("resident_megabytes_at_start", round(started / 1e6, 1)),
        ("resident_megabytes_after_predictions", round(used / 1e6, 1)),
    ):
        record_property(name, value)
        print(f"{name}: {value}")
    assert used <= RESIDENT_AT_MOST
