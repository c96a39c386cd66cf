"""One version of a model as it is served: its bundle, a session for each execution plan, its verdicts."""

import math
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle
from model.graph import subgraph
from model.outputs import Output, Plan, cheapest_plan, plan_outputs
from service.batching import Cost, Lane
from service.computed import Computed
from service.features import Features
from service.flips import CategoryFlips, category_flips
from service.policy import Policy
from service.runtime import Runtime, Session
from service.sensitivity import Judge
from service.settings import OnCritical

PLANS = tuple(Plan)
READY_PLANS = (Plan.PREDICT, Plan.SENSITIVITY)
WARM_UPS = 3
FLIPPING_PLANS = (Plan.FLIPS, Plan.WHOLE)
WITHIN_AT_MOST = 2**22  # float32 of a result within a run of flips; a few of these are there at once
SELECTIONS = 64  # kept of the sets of outputs that callers ask for


@dataclass(frozen=True)
class Selection:
    """Outputs that are wanted together."""

    outputs: tuple[Output, ...]
    plan: Plan
    """The cheapest that computes them."""
    values: int
    """How many they have for each row."""


class ServedModel:
    """Runs the plans of one bundle.

    ONNX Runtime computes a whole graph whatever outputs are asked for, so each plan is a subgraph with a session of its
    own. The weights are not shared between sessions: each keeps them packed for its own matrix products anyway, and to
    share the unpacked ones beside that was measured to need more memory, not less (docs/decisions/0002-plans.md). So
    the rarer plans are cut when they are first asked for.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        judge: Judge,
        max_batch_rows: int,
        on_critical: OnCritical = "report",
    ) -> None:
        """Make and warm the sessions of the common plans; raises StartError where ONNX Runtime refuses the graph."""
        self._model = bundle.model
        self.manifest = bundle.manifest
        """What the bundle says of itself."""
        self.provider = runtime.execution.provider
        """What it is computed on."""
        self.digest = bundle.digest
        """SHA-256 of the bundle's manifest, which holds that of every other file."""
        self._runtime = runtime
        self._max_batch_rows = max_batch_rows
        self._lock = threading.Lock()
        self._sessions: dict[Plan, Session] = {}
        self._costs: dict[Plan, Cost] = {}
        self.judge = judge
        self.policy = Policy(on_critical, judge.elevated_percentile, judge.critical_percentile)
        """What becomes of critical rows, unless a request asks for something stricter."""
        self._selections: dict[tuple[str, ...], Selection] = {}
        self.default = self.of_plan(Plan.SENSITIVITY)
        """What is given where nothing is named: the prediction and its sensitivity."""
        self.lanes: dict[Plan, Lane] = {}
        """Where requests wait for a plan; the engine's."""
        for plan in READY_PLANS:
            self.prepare(plan)
        # The whole graph once, and dropped again: a bundle that ONNX Runtime would refuse later must not get to serve.
        runtime.session(bundle.content)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Every output that can be asked for."""
        return self.manifest.outputs()

    @cached_property
    def outputs_by_name(self) -> dict[str, Output]:
        """The same, to look one up."""
        return {output.name: output for output in self.outputs}

    def of_plan(self, plan: Plan) -> Selection:
        """Every output of a plan."""
        return self._of_plan[plan]

    @cached_property
    def _of_plan(self) -> dict[Plan, Selection]:
        return {plan: self.select(tuple(output.name for output in plan_outputs(self.outputs, plan))) for plan in PLANS}

    def select(self, names: tuple[str, ...]) -> Selection:
        """Outputs by their names, all of which must exist, and the cheapest plan that computes them."""
        selection = self._selections.get(names)
        if selection is None:
            outputs = tuple(self.outputs_by_name[name] for name in names)
            values = sum(math.prod(output.shape) for output in outputs)
            selection = Selection(outputs, cheapest_plan(outputs), values)
            if len(self._selections) < SELECTIONS:
                self._selections[names] = selection
        return selection

    @cached_property
    def features(self) -> Features:
        """How values of the input are read."""
        return Features.of(self.manifest)

    @cached_property
    def flips(self) -> tuple[CategoryFlips, ...]:
        """Where each categorical feature stands among the columns of `category_predictions`."""
        return category_flips(self.manifest)

    @cached_property
    def labels(self) -> tuple[str, str]:
        """Name and version, as text."""
        return self.manifest.name, str(self.manifest.version)

    def compute(self, plan: Plan, x: NDArray[np.float32]) -> Computed:
        """Compute a plan for rows [batch, features]; blocks, and may be called from several threads."""
        return Computed(x, self._run(plan, self.prepare(plan), x), self.judge)

    def _run(self, plan: Plan, session: Session, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run a session, over so many rows at once as its memory allows."""
        most = self.rows_at_once(plan)
        if len(x) <= most:
            return session.run(x)
        parts = [session.run(x[start : start + most]) for start in range(0, len(x), most)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def rows_at_once(self, plan: Plan) -> int:
        """How many rows one run of a session may have: within it, flips take [rows, columns, widest layer]."""
        if plan not in FLIPPING_PLANS or not self.flips:
            return sys.maxsize
        columns = sum(len(flips.categories) for flips in self.flips)
        widest = max(*self.manifest.architecture.hidden, len(self.flips), len(self.manifest.target.classes))
        return max(1, WITHIN_AT_MOST // (columns * widest))

    def cost(self, plan: Plan) -> Cost:
        """How long a prepared plan takes, about."""
        return self._costs[plan]

    def prepared(self, plan: Plan) -> bool:
        """Whether a plan can be computed at once."""
        return plan in self._costs

    def prepare(self, plan: Plan) -> Session:
        """The session of a plan; the first time, which takes long, it is made, warmed and measured."""
        if plan not in self._costs:
            with self._lock:
                if plan not in self._costs:
                    names = [output.name for output in plan_outputs(self.outputs, plan)]
                    self._sessions[plan] = self._runtime.session(subgraph(self._model, names))
                    self._costs[plan] = self._measure(plan, self._sessions[plan])
        return self._sessions[plan]

    def _measure(self, plan: Plan, session: Session) -> Cost:
        """The cost of a session; the first calls also allocate what later ones use.

        The rows are the features' means, and their first categories: no row of these lies where a network overflows.
        """
        mean = np.array([[feature.mean for feature in self.manifest.features]], np.float32)

        def least(rows: int) -> float:
            x = np.repeat(mean, rows, axis=0)
            times = []
            for _ in range(WARM_UPS):
                begin = time.perf_counter()
                self._run(plan, session, x)
                times.append(time.perf_counter() - begin)
            return min(times)

        rows = min(self._max_batch_rows, self.rows_at_once(plan))
        first, full = least(1), least(rows)
        return Cost(first, max(0.0, full - first) / (rows - 1) if rows > 1 else first)
