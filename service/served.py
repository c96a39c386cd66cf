"""One version of a model as it is served: its bundle, a session for each execution plan, its verdicts."""

import threading

import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle
from model.graph import subgraph
from model.manifest import Manifest
from model.outputs import Output, Plan, plan_outputs
from service.runtime import Runtime, Session
from service.sensitivity import Judge

READY_PLANS = (Plan.PREDICT, Plan.SENSITIVITY)


class ServedModel:
    """Runs the plans of one bundle.

    ONNX Runtime computes a whole graph whatever outputs are asked for, so each plan is a subgraph with a session of its
    own. The weights are not shared between sessions: each keeps them packed for its own matrix products anyway, and to
    share the unpacked ones beside that was measured to need more memory, not less (docs/decisions/0002-plans.md). So
    the rarer plans are cut when they are first asked for.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, judge: Judge) -> None:
        """Make the sessions of the common plans; raises StartError where ONNX Runtime refuses the graph."""
        self._bundle = bundle
        self._runtime = runtime
        self._lock = threading.Lock()
        self._sessions: dict[Plan, Session] = {}
        self.judge = judge
        for plan in READY_PLANS:
            self._session(plan)
        # The whole graph once, and dropped again: a bundle that ONNX Runtime would refuse later must not get to serve.
        runtime.session(subgraph(bundle.model, [output.name for output in self.outputs]))

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._bundle.manifest

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's manifest, which holds that of every other file."""
        return self._bundle.digest

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Every output that can be asked for."""
        return self.manifest.outputs()

    def plan_of(self, names: list[str]) -> Plan:
        """The cheapest plan that computes the named outputs, all of which must exist."""
        plans = {output.name: output.plan for output in self.outputs}
        order = list(Plan)
        return max((plans[name] for name in names), key=order.index)

    def run(self, plan: Plan, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute the outputs of a plan for rows [batch, features]; blocks, and may be called from several threads."""
        return self._session(plan).run(x)

    def _session(self, plan: Plan) -> Session:
        session = self._sessions.get(plan)
        if session is None:
            with self._lock:
                session = self._sessions.get(plan)
                if session is None:
                    names = [output.name for output in plan_outputs(self.outputs, plan)]
                    session = self._sessions[plan] = self._runtime.session(subgraph(self._bundle.model, names))
        return session
