"""Prometheus metrics: what is counted, and where. Names and units follow Prometheus's own conventions.

Several worker processes share one set of metrics: prometheus_client keeps it in files of the folder that the variable
PROMETHEUS_MULTIPROC_DIR names, and whichever worker is asked answers for all of them.
"""

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from service.batching import Batch, Share
from service.computed import Computed
from service.drift_metrics import DriftMetrics
from service.policy import Decision
from service.runtime import Execution
from service.sensitivity import VERDICTS, Judge
from service.timing import Timing
from service.trail.metrics import TrailMetrics
from service.window import Window

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Four a decade: gradient norms are compared by ratio, and their scale is the model's.
NORMS = tuple(float(f"{10 ** (k / 4):.3g}") for k in range(-8, 17))
OK = 200
LATER_COUNT, LATER_SECONDS = 256, 0.1  # what is counted together, at most, and how long that is put off
MODEL = ("model", "version")
PLAN = (*MODEL, "plan")


class Later:
    """Calls something once enough has come together, or shortly after the first; for one event loop."""

    def __init__(self, call: Callable[[], None]) -> None:
        """Nothing has come yet."""
        self._call = call
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, count: int) -> None:
        """So much more has come."""
        self._count += count
        if self._count >= LATER_COUNT:
            self._now()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LATER_SECONDS, self._now)

    def _now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._count = 0
        self._call()


class BulkHistogram(Histogram):
    """A histogram that observes many values at once: 256 rows one by one would take as long as to compute them."""

    def observe_all(self, values: NDArray[np.floating[Any]]) -> None:
        """Observe every value; buckets and sum are those that `observe` fills one by one."""
        counts = np.bincount(
            np.searchsorted(self._upper_bounds, values, side="left"), minlength=len(self._upper_bounds)
        )
        for place in np.flatnonzero(counts).tolist():
            self._buckets[place].inc(float(counts[place]))
        self._sum.inc(float(values.sum(dtype=np.float64)))


class PlanMetrics:
    """What is counted for one plan of one model version; the labels are looked up once.

    Times are kept and observed together, some at a time: one by one, they would cost a request several microseconds.
    """

    def __init__(self, metrics: "Metrics", model: str, version: str, plan: str, sensitivity: "ModelMetrics") -> None:
        """Find the children of each metric."""
        labels = (model, version, plan)
        self._rows = metrics.rows.labels(*labels)
        self._histograms = [
            metrics.request_seconds.labels(*labels),
            metrics.queue_seconds.labels(*labels),
            metrics.inference_seconds.labels(*labels),
            metrics.batch_rows.labels(*labels),
            metrics.decode_seconds.labels(*labels),
            metrics.encode_seconds.labels(*labels),
        ]
        self._pending: list[list[float]] = [[] for _ in self._histograms]
        self._latest = metrics.last_inference.labels(model, version)
        self._sensitivity = sensitivity
        self._later = Later(self.flush)

    def answered(self, seconds: float, timing: Timing) -> None:
        """Count a good answer."""
        self._pending[0].append(seconds)
        self._pending[4].append(timing.decode)
        self._pending[5].append(timing.encode)
        self._later.add(1)

    def record(self, batch: Batch, shares: list[Share]) -> None:
        """Count a batch."""
        _, waited, inference, rows, _, _ = self._pending
        waited.extend([share.waited for share in shares])
        inference.append(batch.seconds)
        rows.append(len(batch.computed.x))
        self._later.add(len(shares))
        if "gradient_norm" in batch.computed.outputs:
            self._sensitivity.record(batch.computed)

    def flush(self) -> None:
        """Observe what is pending."""
        pending, self._pending = self._pending, [[] for _ in self._histograms]
        for histogram, values in zip(self._histograms, pending, strict=True):
            if values:
                histogram.observe_all(np.array(values))
        if pending[3]:
            self._rows.inc(sum(pending[3]))
            self._latest.set_to_current_time()


class ModelMetrics:
    """What is counted of the sensitivities of one model version."""

    def __init__(self, metrics: "Metrics", model: str, version: str, window_rows: int) -> None:
        """Find the children of each metric."""
        self._norms = metrics.gradient_norm.labels(model, version)
        self._verdicts = [metrics.verdicts.labels(model, version, verdict.value) for verdict in VERDICTS]
        self._overflowed = metrics.overflowed_rows.labels(model, version)
        self._window_rows = window_rows
        self._windows: WeakKeyDictionary[Judge, Window] = WeakKeyDictionary()  # a new bundle begins with no rows
        self._latest: Window | None = None
        self._gauge = metrics.window
        self._labels = (model, version)
        self._pending: list[Computed] = []
        self._later = Later(self.flush)

    def record(self, computed: Computed) -> None:
        """Count the rows of a batch: at once where they are many, else together with those that follow shortly."""
        self._pending.append(computed)
        self._later.add(len(computed.x))

    def flush(self) -> None:
        """Count what is pending."""
        pending, self._pending = self._pending, []
        judges = {id(computed.judge): computed.judge for computed in pending}
        for judge in judges.values():  # a model that was replaced has its own
            self._count(Computed.together([computed for computed in pending if computed.judge is judge]))

    def _count(self, computed: Computed) -> None:
        norms, judgement = computed.outputs["gradient_norm"], computed.judgement
        verdicts, out_of_range = judgement.verdict, judgement.out_of_range
        if computed.overflowed is not None:
            self._overflowed.inc(int(computed.overflowed.sum()))
            good = ~computed.overflowed
            norms, verdicts, out_of_range = norms[good], verdicts[good], out_of_range[good]
        self._norms.observe_all(norms)
        for count, counter in zip(np.bincount(verdicts, minlength=len(VERDICTS)).tolist(), self._verdicts, strict=True):
            if count:
                counter.inc(count)
        window = self._windows.get(computed.judge)
        if window is None:
            window = self._windows[computed.judge] = self._latest = Window(self._window_rows)
        window.add(norms, verdicts, out_of_range)

    def window_of(self, judge: Judge) -> Window | None:
        """The latest rows of the bundle that has this judge; None where it has had none."""
        return self._windows.get(judge)

    def set_gauges(self) -> None:
        """Set the gauges of the window of the bundle that came last."""
        if self._latest is not None:
            for statistic, value in self._latest.statistics().items():
                self._gauge.labels(*self._labels, statistic).set(value)


class Metrics:
    """Every metric of the service, in a registry of its own."""

    def __init__(self, execution: Execution, *, shared: bool, window_rows: int) -> None:
        """`shared`: PROMETHEUS_MULTIPROC_DIR is set, and other processes count too."""
        # Else there is a sample for each counter of when it began: as many again, and nobody reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.shared = shared
        self._window_rows = window_rows
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self._digests: dict[tuple[str, str], str] = {}
        self._plans: dict[tuple[str, str, str], PlanMetrics] = {}
        self._requests: dict[tuple[str, tuple[str, str, str], int], Counter] = {}
        self.requests = Counter(
            "chainzrule_requests", "Prediction requests by outcome.", ("api", *PLAN, "status"), registry=self._registry
        )
        self.rows = Counter("chainzrule_rows", "Rows computed.", PLAN, registry=self._registry)
        self.request_seconds = BulkHistogram(
            "chainzrule_request_seconds",
            "From the beginning of a good request to its encoded answer.",
            PLAN,
            buckets=SECONDS,
            registry=self._registry,
        )
        self.failed_seconds = Counter(
            "chainzrule_failed_seconds", "Time spent on requests that failed.", MODEL, registry=self._registry
        )
        self.queue_seconds = BulkHistogram(
            "chainzrule_queue_seconds",
            "From the arrival of a request's rows to the beginning of their batch.",
            PLAN,
            buckets=SECONDS,
            registry=self._registry,
        )
        self.inference_seconds = BulkHistogram(
            "chainzrule_inference_seconds", "Computing one batch.", PLAN, buckets=SECONDS, registry=self._registry
        )
        self.batch_rows = BulkHistogram(
            "chainzrule_batch_rows", "Rows computed together.", PLAN, buckets=ROWS, registry=self._registry
        )
        self.decode_seconds = BulkHistogram(
            "chainzrule_decode_seconds", "Reading a good request.", PLAN, buckets=SECONDS, registry=self._registry
        )
        self.encode_seconds = BulkHistogram(
            "chainzrule_encode_seconds", "Writing a good answer.", PLAN, buckets=SECONDS, registry=self._registry
        )
        self.queue_rows = Gauge(
            "chainzrule_queue_rows",
            "Rows that wait or are being computed.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self.requests_under_way = Gauge(
            "chainzrule_requests_under_way",
            "Prediction requests that have not been answered yet.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self.gradient_norm = BulkHistogram(
            "chainzrule_gradient_norm",
            "Gradient norm of each row, by the standardised input.",
            MODEL,
            buckets=NORMS,
            registry=self._registry,
        )
        self.verdicts = Counter("chainzrule_verdicts", "Rows by verdict.", (*MODEL, "verdict"), registry=self._registry)
        self.overflowed_rows = Counter(
            "chainzrule_overflowed_rows", "Rows on which the model overflowed.", MODEL, registry=self._registry
        )
        self.withheld_rows = Counter(
            "chainzrule_withheld_rows",
            "Critical rows whose prediction was withheld.",
            MODEL,
            registry=self._registry,
        )
        self.rejected_rows = Counter(
            "chainzrule_rejected_rows",
            "Rows of requests that were refused for a critical row.",
            MODEL,
            registry=self._registry,
        )
        self.window = Gauge(
            "chainzrule_gradient_norm_window",
            "Gradient norms of the latest rows of a process: rows, mean, p50, p95, p99, maximum, tail_ratio.",
            (*MODEL, "statistic"),
            registry=self._registry,
            multiprocess_mode="liveall",
        )
        self.drift = DriftMetrics(self._registry, shared=shared)
        self.trail = TrailMetrics(self._registry)
        self.last_inference = Gauge(
            "chainzrule_last_inference_timestamp_seconds",
            "When the model was last computed.",
            MODEL,
            registry=self._registry,
            multiprocess_mode="max",
        )
        self.loads = Counter(
            "chainzrule_model_loads", "Bundles read, by result.", (*MODEL, "result"), registry=self._registry
        )
        self.served = Gauge(
            "chainzrule_model_served",
            "1 for each version of a model that is served, else 0.",
            (*MODEL, "digest"),
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self.execution = Gauge(
            "chainzrule_execution_info",
            "What predictions really run on.",
            ("provider", "runtime", "threads", "tf32"),
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self.execution.labels(
            execution.provider, execution.runtime, str(execution.threads), str(execution.tf32).lower()
        ).set(1)

    def watch(self, model: str, version: int, digest: str | None, *, well: bool) -> None:
        """Take note of a version that was loaded (its digest), refused (None, not well) or retired (None, well)."""
        labels = (model, str(version))
        if digest is not None or not well:
            self.loads.labels(*labels, "loaded" if well else "refused").inc()
        if well:
            before = self._digests.pop(labels, None)
            if before is not None:
                self.served.labels(*labels, before).set(0)
                if not self.shared and digest not in {None, before}:
                    self.served.remove(*labels, before)
            if digest is not None:
                self._digests[labels] = digest
                self.served.labels(*labels, digest).set(1)

    def of_model(self, model: str, version: str) -> ModelMetrics:
        """What is counted of a model version: one and the same, however often it is loaded."""
        key = (model, version)
        if key not in self._models:
            self._models[key] = ModelMetrics(self, model, version, self._window_rows)
        return self._models[key]

    def window_of(self, model: str, version: str, judge: Judge) -> Window | None:
        """The latest rows of one bundle of a model version; None where it has had none."""
        counted = self._models.get((model, version))
        return None if counted is None else counted.window_of(judge)

    def of_plan(self, model: str, version: str, plan: str) -> PlanMetrics:
        """What is counted of a plan."""
        key = (model, version, plan)
        if key not in self._plans:
            self._plans[key] = PlanMetrics(self, model, version, plan, self.of_model(model, version))
        return self._plans[key]

    def count(self, api: str, labels: tuple[str, str, str], status: int, seconds: float, timing: Timing) -> None:
        """Count a request.

        Args:
            api: by which face it came.
            labels: model, version and plan; empty where it did not get so far.
            status: of the answer.
            seconds: from its beginning to its encoded answer.
            timing: of its stages.
        """
        key = (api, labels, status)
        counter = self._requests.get(key)
        if counter is None:  # as many as there are models, plans and statuses: the labels are never a caller's
            counter = self._requests[key] = self.requests.labels(api, *labels, str(int(status)))
        counter.inc()
        if status == OK:
            self.of_plan(*labels).answered(seconds, timing)
        else:
            self.failed_seconds.labels(labels[0], labels[1]).inc(seconds)

    def decided(self, labels: tuple[str, str], decision: Decision) -> None:
        """Count the rows of a request, of a model and version, that were withheld or rejected."""
        withheld = len(decision.withheld())
        if withheld:
            self.withheld_rows.labels(*labels).inc(withheld)
        if decision.rejected:
            self.rejected_rows.labels(*labels).inc(decision.rejected)

    @cached_property
    def _exposed(self) -> CollectorRegistry:
        if not self.shared:
            return self._registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def flush(self) -> None:
        """Count what has been kept to be counted together; on the event loop."""
        for plan in self._plans.values():
            plan.flush()
        for model in self._models.values():
            model.flush()
            model.set_gauges()

    def expose(self) -> bytes:
        """The text that Prometheus reads; blocks for some milliseconds. What is kept is to be flushed before."""
        return generate_latest(self._exposed)

    def samples(self) -> "Samples":
        """Every sample by name and labels, over all worker processes; blocks for some milliseconds."""
        return [
            (sample.name, sample.labels, sample.value)
            for family in self._exposed.collect()
            for sample in family.samples
        ]


Samples = list[tuple[str, dict[str, str], float]]
"""Name, labels and value of samples."""
