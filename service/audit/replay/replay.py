"""Computes records anew, whichever models they name, and counts what it comes to.

Records are gathered by bundle and plan, and computed many at a time.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import bundle
from model.errors import BundleError
from model.manifest import NAME_PATTERN
from model.outputs import Plan
from service.audit.replay.compare import ROWS, Finding, Replayed, Result
from service.audit.replay.inputs import KnownInputs
from service.audit.replay.recorded import Document
from service.errors import StartError, shown
from service.runtime import Runtime

NAMED = 100
"""Records that differ, or are within rounding, of which everything is told."""


@dataclass
class Tally:
    """What the records come to."""

    records: int = 0
    """All that were looked at."""
    predictions: int = 0
    results: Counter[Result] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    """Predictions that could not be computed anew, by the reason."""
    executions: Counter[str] = field(default_factory=Counter)
    """What those that could be were computed on at first."""
    excess: float = 0.0
    """The greatest distance from an exact value, in rounding bounds."""
    digests: int = 0
    """Records within rounding whose digest of a gradient, a Jacobian or flips was not reproduced."""
    different: list[tuple[str, Finding]] = field(default_factory=list)
    """By their ids, the first NAMED."""

    @property
    def replayed(self) -> int:
        """How many were computed anew."""
        return self.results.total()

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "records": self.records,
            "predictions": self.predictions,
            "replayed": self.replayed,
            "exact": self.results[Result.EXACT],
            "within_rounding_bound": self.results[Result.ROUNDED],
            "different": self.results[Result.DIFFERENT],
            "greatest_excess": self.excess,
            "digests_not_reproduced": self.digests,
            "not_replayed": dict(self.skipped),
            "recorded_on": dict(self.executions),
            "differences": [
                {"id": record, "differences": [str(difference) for difference in finding.differences]}
                for record, finding in self.different
            ],
        }


def described(*, provider: str, runtime: str, threads: int, **_: Any) -> str:
    """What something was computed on, in a few words."""
    return f"{provider}, {runtime}, {threads} thread{'' if threads == 1 else 's'}"


class Replay:
    """Takes records, and compares them with what is computed here."""

    def __init__(self, repository: Path, runtime: Runtime, inputs: KnownInputs) -> None:
        """Take the bundles' folder, what to compute on, and where inputs come from."""
        self._repository = repository
        self._runtime = runtime
        self._inputs = inputs
        self._models: dict[tuple[str, int, str], Replayed | str] = {}
        self._waiting: dict[tuple[str, Plan], list[tuple[str, Document, NDArray[np.float32]]]] = defaultdict(list)
        self.tally = Tally()

    def add(self, record: str, document: Document) -> None:
        """Take a record; all but predictions are only counted. Raises InvalidInputError for a bad file of inputs."""
        self.tally.records += 1
        if document["kind"] != "prediction":
            return
        self.tally.predictions += 1
        if document["execution"]["tf32"]:
            self.tally.skipped["it was computed with TF32"] += 1
            return
        model = self._model(document)
        if isinstance(model, str):
            self.tally.skipped[model] += 1
            return
        x = self._inputs.find(model.digest, model.manifest, document)
        if isinstance(x, str):
            self.tally.skipped[x] += 1
            return
        key = (model.digest, Plan(document["plan"]))
        self._waiting[key].append((record, document, x))
        if len(self._waiting[key]) == ROWS:
            self._compare(model, key)

    def finish(self) -> Tally:
        """Compare what waits, and tell what all comes to."""
        for key in list(self._waiting):
            model = next(one for one in self._models.values() if isinstance(one, Replayed) and one.digest == key[0])
            self._compare(model, key)
        return self.tally

    def _compare(self, model: Replayed, key: tuple[str, Plan]) -> None:
        waiting = self._waiting.pop(key, [])
        if not waiting:
            return
        x = np.stack([row for _, _, row in waiting])
        findings = model.compare(key[1], [document for _, document, _ in waiting], x)
        for (record, document, _), finding in zip(waiting, findings, strict=True):
            self.tally.results[finding.result] += 1
            self.tally.excess = max(self.tally.excess, finding.excess)
            self.tally.digests += bool(finding.digests)
            self.tally.executions[described(**document["execution"])] += 1
            if finding.result is Result.DIFFERENT and len(self.tally.different) < NAMED:
                self.tally.different.append((record, finding))

    def _model(self, document: Document) -> Replayed | str:
        """The model that a record names, or why it cannot be had."""
        key = (document["model"], document["version"], document["digest"])
        if key not in self._models:
            self._models[key] = self._open(*key)
        return self._models[key]

    def _open(self, name: str, version: int, digest: str) -> Replayed | str:
        if not re.fullmatch(NAME_PATTERN, name):
            return f"expected a plain name of a model, got {shown(name)!r}"
        path = self._repository / name / str(version)
        try:
            read = bundle.read(path.absolute())
            if read.digest != digest:
                return f"{path}: expected a bundle of digest {digest}, got {read.digest}"
            return Replayed(read, self._runtime)
        except (BundleError, StartError) as error:
            return str(error)
