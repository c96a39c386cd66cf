"""What a plan computed for a batch of rows, and one request's rows of it. Pure: arrays, no HTTP, no sessions."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.sensitivity import Judge, Judgement, overflowed, verdicts

FEATURES_AT_MOST = 10  # that are named of a row
Scalar = TypeVar("Scalar", bound=np.generic)


class Computed:
    """The outputs of a batch. What is made of them is made once for the batch, when it is first asked for."""

    def __init__(self, x: NDArray[np.float32], outputs: dict[str, NDArray[np.float32]], judge: Judge) -> None:
        """Take the rows [batch, features] and every output of a plan for them."""
        self.x = x
        self.outputs = outputs
        self.judge = judge
        self.record: Any = None
        """What the trail writes of the rows, once it has made it; the trail's own."""

    @cached_property
    def overflowed(self) -> NDArray[np.bool_] | None:
        """Which rows have NaN or infinity in any output; None where none has, which is quickly found out."""
        if all(math.isfinite(np.vdot(values, values)) for values in self.outputs.values()):
            return None
        rows = overflowed(self.outputs)
        return rows if rows.any() else None

    @cached_property
    def judgement(self) -> Judgement:
        """What is made of the sensitivities; only where the plan computes them."""
        return self.judge.judge(self.x, self.outputs)

    @cached_property
    def features_outside(self) -> list[list[int]]:
        """Of each row the first features outside the training range; only where the plan computes sensitivities."""
        outside: list[list[int]] = [[] for _ in self.x]
        rows = np.flatnonzero(self.outputs["out_of_range"])
        for row, flags in zip(rows.tolist(), self.judge.outside(self.x[rows]), strict=True):
            outside[row] = np.flatnonzero(flags)[:FEATURES_AT_MOST].tolist()
        return outside

    @classmethod
    def together(cls, batches: list["Computed"]) -> "Computed":
        """Several batches of one model as one, with the outputs that all of them have."""
        if len(batches) == 1:
            return batches[0]
        x = np.concatenate([batch.x for batch in batches])
        names = min((batch.outputs for batch in batches), key=len)
        outputs = {name: np.concatenate([batch.outputs[name] for batch in batches]) for name in names}
        return cls(x, outputs, batches[0].judge)


class Rows:
    """The rows of one request, in whatever batches they were computed."""

    def __init__(self, pieces: list[tuple[Computed, int, int]]) -> None:
        """Each piece: a batch, and where the rows begin and end in it."""
        self._pieces = pieces
        self._verdicts: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self._pieces)

    @property
    def judge(self) -> Judge:
        """By which they are judged, unless the request has thresholds of its own."""
        return self._pieces[0][0].judge

    @property
    def pieces(self) -> list[tuple[Computed, int, int]]:
        """Each batch, and where the rows begin and end in it."""
        return self._pieces

    def gather(self, of: Callable[[Computed], NDArray[Scalar]]) -> NDArray[Scalar]:
        """An array that each batch has with one element a row, for the rows of this request only."""
        if len(self._pieces) == 1:
            ((computed, start, stop),) = self._pieces
            return of(computed)[start:stop]
        return np.concatenate([of(computed)[start:stop] for computed, start, stop in self._pieces])

    def output(self, name: str) -> NDArray[np.float32]:
        """One output of the graph, [rows, …]."""
        if len(self._pieces) == 1:  # nearly always
            ((computed, start, stop),) = self._pieces
            return computed.outputs[name][start:stop]
        return self.gather(lambda computed: computed.outputs[name])

    @property
    def outputs(self) -> frozenset[str]:
        """The names of the outputs that were computed."""
        return frozenset(self._pieces[0][0].outputs)

    def features_outside(self) -> list[list[int]]:
        """Of each row the first features outside the training range."""
        return [
            features for computed, start, stop in self._pieces for features in computed.features_outside[start:stop]
        ]

    def overflowed(self) -> list[int]:
        """The rows that have NaN or infinity in any output."""
        for computed, _, _ in self._pieces:
            if computed.overflowed is not None:
                break
        else:
            return []
        flags = self.gather(
            lambda computed: np.zeros(len(computed.x), np.bool_) if computed.overflowed is None else computed.overflowed
        )
        rows: list[int] = np.flatnonzero(flags).tolist()
        return rows

    def judged(self, of: Callable[[Judgement], NDArray[Scalar]]) -> NDArray[Scalar]:
        """One figure of the judgement; only where the plan computes sensitivities."""
        return self.gather(lambda computed: of(computed.judgement))

    def rejudge(self, elevated: float, critical: float) -> None:
        """Let other gradient norms be those above which a row of this request is elevated or critical.

        The batch's own judgement stays as it is; what does not hang on the thresholds is taken from it.
        """
        norms, out_of_range = self.output("gradient_norm"), self.judged(lambda judgement: judgement.out_of_range)
        self._verdicts = verdicts(norms, out_of_range, elevated, critical)

    def verdicts(self) -> NDArray[np.int8]:
        """Of each row its place in VERDICTS, by the thresholds of this request."""
        if self._verdicts is not None:
            return self._verdicts
        return self.judged(lambda judgement: judgement.verdict)
