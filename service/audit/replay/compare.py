"""Are these the numbers that the model computes for these rows? Record by record, to the bit or within rounding.

A record holds what the graph computed, and what was made of that: label, percentile, verdict and so on. The first is
computed anew and compared; the second must follow from the first as the record has it, exactly.

**Bits.** ONNX Runtime computes a row of a prediction the same in every batch, but for the sensitivity it multiplies
matrices by kernels of several rows, and which one a row gets depends on its place in the batch; a record does not know
the place. So a row whose numbers differ from those of a full batch is computed at other places too (`PLACES`): it is
exact where one of them gives every number of the record, bit by bit.

**Rounding.** What is not exact, as on another processor, provider or version of the runtime, must lie within the
rounding bound of the exact value (`service.audit.replay.rounding`). A digest of a gradient, a Jacobian or flips cannot
be compared so: it is reproduced, or said not to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle
from model.outputs import Plan, Task
from service.audit.replay import recorded
from service.audit.replay.recorded import Document
from service.audit.replay.rounding import Bounded, Rounding
from service.runtime import Runtime
from service.sensitivity import VERDICTS, Judge, overflowed, verdicts
from service.served import ServedModel

ROWS = 256
"""Computed together at first."""
PLACES = (1, 2, 3, 5, 6, 7, 12)
"""Sizes of batches that a row is computed at every place of, where it is not exact in the first one."""
BOUNDED_ROWS = 16
"""Analysed together: each is evaluated dozens of times."""

Values = dict[str, NDArray[np.float32]]


class Result(StrEnum):
    """What a replay comes to."""

    EXACT = "exact"
    """Every number is the same, bit by bit."""
    ROUNDED = "within the rounding bound"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the record says."""

    field: str
    recorded: Any
    expected: Any
    bound: float | None = None
    """How far rounding explains; None where nothing can be rounded."""

    def __str__(self) -> str:
        within = "" if self.bound is None else f" within {self.bound:.2g}"
        return f"{self.field}: expected {self.expected!r}{within}, got {self.recorded!r}"


@dataclass(frozen=True)
class Finding:
    """What the replay of one record comes to."""

    result: Result
    excess: float = 0.0
    """The greatest distance from an exact value, in rounding bounds; 0 where every bit is the same."""
    digests: tuple[str, ...] = ()
    """Outputs of which the record has a digest only, that was not reproduced though the numbers are explained."""
    differences: tuple[Difference, ...] = field(default=())


class Replayed:
    """One version of a model, to compute its records with."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        """Make the sessions; raises StartError."""
        self._bundle = bundle
        self.manifest = bundle.manifest
        self.digest = bundle.digest
        self._model = ServedModel(bundle, runtime, Judge(bundle.manifest, 0, 100), ROWS)
        self._roundings: dict[tuple[str, ...], Rounding] = {}

    def compare(self, plan: Plan, documents: Sequence[Document], x: NDArray[np.float32]) -> list[Finding]:
        """Compare records of one plan, at most ROWS, with what is computed for their inputs [records, features]."""
        known = recorded.outputs(documents)
        computed = self._model.compute(plan, x).outputs
        wanted = [recorded.digests(document) for document in documents]
        exact = _same(known, computed) & _same_digests(wanted, computed)
        for row in np.flatnonzero(~exact).tolist():
            exact[row] = self._elsewhere(plan, x[row], _rows(known, [row]), wanted[row])
        found = self._consistency(plan, documents, known, x)
        excess = np.zeros(len(documents))
        inexact = np.flatnonzero(~exact)
        for start in range(0, len(inexact), BOUNDED_ROWS):
            rows = inexact[start : start + BOUNDED_ROWS].tolist()
            bounds = self._rounding(tuple(known)).bound(x[rows])
            for k, row in enumerate(rows):
                excess[row], differences = _beyond(_rows(known, [row]), bounds, k)
                found[row] = differences + found[row]
        digests = [() if same else tuple(names) for same, names in zip(exact.tolist(), wanted, strict=True)]
        return [
            Finding(
                Result.DIFFERENT if differences else Result.EXACT if same else Result.ROUNDED,
                float(excess[row]),
                digests[row],
                tuple(differences),
            )
            for row, (same, differences) in enumerate(zip(exact.tolist(), found, strict=True))
        ]

    def _elsewhere(self, plan: Plan, x: NDArray[np.float32], known: Values, wanted: dict[str, str]) -> bool:
        """Whether a row [features] comes out as it was recorded at some place of a batch."""
        for size in PLACES:
            computed = self._model.compute(plan, np.tile(x, (size, 1))).outputs
            places = np.flatnonzero(_same(known, computed)).tolist()
            if any(_same_digests([wanted], _rows(computed, [place])).all() for place in places):
                return True
        return False

    def _rounding(self, names: tuple[str, ...]) -> Rounding:
        if names not in self._roundings:
            self._roundings[names] = Rounding(self._bundle.model, names)
        return self._roundings[names]

    def _consistency(
        self, plan: Plan, documents: Sequence[Document], known: Values, x: NDArray[np.float32]
    ) -> list[list[Difference]]:
        """Of each record, what does not follow from its own numbers."""
        found: list[list[Difference]] = [[] for _ in documents]
        expected = {output.name for output in self._model.of_plan(plan).outputs}
        told = set(known) | set(recorded.digests(documents[0]))
        if told != expected:
            for differences in found:
                differences.append(Difference("outputs", sorted(told), sorted(expected)))
            return found
        finite = ~overflowed(known)
        for row, differences in enumerate(found):
            if not finite[row]:
                _demand(differences, "verdict", documents[row]["verdict"], None)
                continue
            _demand(differences, "output/label", documents[row]["output"].get("label"), self._label(known, row))
        if "gradient_norm" in known:
            self._judge(documents, known, x, finite, found)
        return found

    def _label(self, known: Values, row: int) -> str | None:
        if self.manifest.task is Task.REGRESSION:
            return None
        ranked = "logits" if self.manifest.task is Task.CLASSIFICATION else "probabilities"
        return self.manifest.target.classes[int(known[ranked][row].argmax())]

    def _judge(
        self,
        documents: Sequence[Document],
        known: Values,
        x: NDArray[np.float32],
        finite: NDArray[np.bool_],
        found: list[list[Difference]],
    ) -> None:
        """Hold what was made of the figures against what is made of them now."""
        judge = self._model.judge
        judged = judge.judge(x, known)
        distance = judged.first_order_distance
        for row in np.flatnonzero(finite).tolist():
            sensitivity, policy, differences = documents[row]["sensitivity"], documents[row]["policy"], found[row]
            _demand(differences, "sensitivity/percentile", _float32(sensitivity["percentile"]), judged.percentile[row])
            outside = bool(judged.out_of_range[row])
            _demand(differences, "sensitivity/out_of_range", sensitivity["out_of_range"], outside)
            if distance is not None:
                estimate = _float32(sensitivity["first_order_distance_estimate"])
                _demand(differences, "sensitivity/first_order_distance_estimate", estimate, distance[row])
            thresholds = {
                f"{name}_above": judge.norm_at(policy[f"{name}_percentile"]) for name in ("elevated", "critical")
            }
            for name, norm in thresholds.items():
                _demand(differences, f"policy/{name}", policy[name], norm)
            place = verdicts(
                known["gradient_norm"][[row]],
                judged.out_of_range[[row]],
                thresholds["elevated_above"],
                thresholds["critical_above"],
            )[0]
            _demand(differences, "verdict", documents[row]["verdict"], VERDICTS[place].value)


def _rows(outputs: Values, rows: list[int]) -> Values:
    return {name: array[rows] for name, array in outputs.items()}


def _same(known: Values, computed: Values) -> NDArray[np.bool_]:
    """Which rows have the same numbers, [rows]; none is a number that is not finite, whichever it is."""
    rows = len(next(iter(computed.values())))
    same = np.ones(rows, np.bool_)
    for name, expected in known.items():
        if name not in computed or computed[name].shape[1:] != expected.shape[1:]:
            return np.zeros(rows, np.bool_)
        equal = (expected == computed[name]) | (np.isnan(expected) & ~np.isfinite(computed[name]))
        same &= equal.reshape(rows, -1).all(axis=1)
    return same


def _same_digests(wanted: Sequence[dict[str, str]], computed: Values) -> NDArray[np.bool_]:
    """Which rows have the outputs whose SHA-256 is known, [rows]."""
    return np.array(
        [
            all(
                name in computed and sha256(computed[name][row].astype("<f4").tobytes()).hexdigest() == digest
                for name, digest in digests.items()
            )
            for row, digests in enumerate(wanted)
        ]
    )


def _beyond(known: Values, bounds: dict[str, Bounded], row: int) -> tuple[float, list[Difference]]:
    """How far one record's numbers [1, …] are off, at most, in the bounds of a row, and what these do not explain."""
    greatest, differences = 0.0, []
    for name, values in known.items():
        bounded = Bounded(bounds[name].exact[row], bounds[name].bound[row])
        if values.shape[1:] != bounded.exact.shape:
            differences.append(Difference(name, f"{values[0].size} numbers", f"{bounded.exact.size} numbers"))
            continue
        excess = bounded.excess(values[0].astype(np.float64))
        greatest = max(greatest, float(excess.max()))
        for place in np.argwhere(excess > 1).tolist():
            at = tuple(place)
            field_name = "/".join([name, *map(str, place)])
            differences.append(
                Difference(field_name, _plain(values[0][at]), _plain(bounded.exact[at]), float(bounded.bound[at]))
            )
    return greatest, differences


def _demand(differences: list[Difference], name: str, got: Any, expected: Any) -> None:
    """Note what is not exactly as expected; float32 has the last word on numbers."""
    if isinstance(expected, float | np.floating):
        expected = np.float32(expected) if np.isfinite(expected) else None
        got = None if got is None else np.float32(got)
    if got != expected:
        differences.append(Difference(name, _plain(got), _plain(expected)))


def _float32(value: float | None) -> np.float32 | None:
    return None if value is None else np.float32(value)


def _plain(value: Any) -> Any:
    """A number as JSON would have it."""
    return float(str(value)) if isinstance(value, np.floating) and np.isfinite(value) else value
