"""What Prometheus is told of drift: gauges by model and version, of each process for itself."""

import math

from prometheus_client import CollectorRegistry, Gauge

from service.drift import Drift

MODEL = ("model", "version")


class DriftMetrics:
    """The gauges; a version without rows enough has only that it has not drifted."""

    def __init__(self, registry: CollectorRegistry, *, shared: bool) -> None:
        """`shared`: other processes count too, and what was once told can be set, but not taken back."""
        self._shared = shared
        self.drifted = Gauge(
            "chainzrule_drifted",
            "1 where the latest rows of a process have drifted from the calibration set, else 0.",
            MODEL,
            registry=registry,
            multiprocess_mode="liveall",
        )
        self.distance = Gauge(
            "chainzrule_drift_distance",
            "Kolmogorov-Smirnov distance of the latest gradient norms of a process from the calibration set.",
            MODEL,
            registry=registry,
            multiprocess_mode="liveall",
        )
        self.critical_share = Gauge(
            "chainzrule_critical_share",
            "Share of the latest rows of a process that are critical.",
            MODEL,
            registry=registry,
            multiprocess_mode="liveall",
        )
        self.out_of_range_share = Gauge(
            "chainzrule_out_of_range_share",
            "Share of the latest rows of a process that are out of range.",
            MODEL,
            registry=registry,
            multiprocess_mode="liveall",
        )

        self._shares = (self.distance, self.critical_share, self.out_of_range_share)
        self._told: set[tuple[str, str]] = set()

    def follow(self, model: str, version: str) -> None:
        """A version, or another bundle in its place, has begun to serve."""
        self.drifted.labels(model, version).set(0)
        self._forget(model, version)

    def told(self, model: str, version: str, drift: Drift) -> None:
        """A window was looked at."""
        self.drifted.labels(model, version).set(drift.drifted)
        if drift.enough_rows:
            window = drift.window
            values = (drift.distance, window.critical_share, window.out_of_range_share)
            for gauge, value in zip(self._shares, values, strict=True):
                gauge.labels(model, version).set(value)
            self._told.add((model, version))

    def end(self, model: str, version: str) -> None:
        """A version serves no more."""
        self.drifted.labels(model, version).set(0)
        if not self._shared:
            self.drifted.remove(model, version)
        self._forget(model, version)

    def _forget(self, model: str, version: str) -> None:
        """Take the figures of a window back."""
        if (model, version) in self._told:
            self._told.remove((model, version))
            for gauge in self._shares:
                gauge.labels(model, version).set(math.nan)
                if not self._shared:
                    gauge.remove(model, version)
