"""What Prometheus is told of the trail."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class TrailMetrics:
    """Counters and gauges of one writer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them."""
        self._records = Counter("chainzrule_trail_records", "Records written to the audit trail.", registry=registry)
        self._seconds = Histogram(
            "chainzrule_trail_commit_seconds",
            "Making the documents of a group of records, and committing it.",
            buckets=SECONDS,
            registry=registry,
        )
        self._groups = Histogram(
            "chainzrule_trail_group_records", "Records committed together.", buckets=RECORDS, registry=registry
        )
        self.missed = Counter(
            "chainzrule_trail_missed_requests",
            "Requests that were refused or failed while no record of them could be written.",
            registry=registry,
        )
        self.failing = Gauge(
            "chainzrule_trail_failing",
            "1 while the audit trail cannot be written, else 0.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.queue = Gauge(
            "chainzrule_trail_queue_records",
            "Records that wait to be written.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def written(self, records: int, seconds: float) -> None:
        """Count a group."""
        self._records.inc(records)
        self._seconds.observe(seconds)
        self._groups.observe(records)
