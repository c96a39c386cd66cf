"""The documentation names every metric, and none that there is not."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics
from service.runtime import CPU, Execution

DOCS = Path(__file__).parents[2] / "docs"
SERIES = ("_bucket", "_count", "_sum")
"""What a histogram `x` also is: x_bucket, x_count and x_sum."""


@pytest.fixture(scope="module")
def metrics() -> dict[str, str]:
    """Every metric as a query names it, and its type."""
    execution = Execution(CPU, "cpu", None, "onnxruntime", 1, tf32=False)
    text = Metrics(execution, shared=False, window_rows=100).expose().decode()
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(text)
    }


@pytest.fixture(scope="module")
def documented() -> set[str]:
    """Every name in the documents for those who use and run the service that begins as a metric does."""
    texts = [path.read_text(encoding="utf-8") for name in ("api.md", "operations.md") if (path := DOCS / name).exists()]
    return {name for text in texts for name in re.findall(r"\bchainzrule_[a-z][a-z_]*[a-z]\b", text)}


def test_every_metric_is_documented(metrics: dict[str, str], documented: set[str]) -> None:
    """Counters with their `_total`."""
    assert [] == [name for name in metrics if name not in documented]


def test_no_metric_is_documented_that_there_is_not(metrics: dict[str, str], documented: set[str]) -> None:
    """Nor any series of one, such as a histogram's `_count`."""
    series = {name + end for name, kind in metrics.items() if kind == "histogram" for end in SERIES}
    assert set() == documented - set(metrics) - series
