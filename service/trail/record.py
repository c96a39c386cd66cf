"""Records: what the trail keeps of a predicted row, of a failed request, and of what befalls the trail itself.

A record is one canonical JSON document (RFC 8785). All have `kind`, `schema`, `writer`, `position` and `time`;

- `prediction`: one row of a request that was computed. `input` is what is kept of it (`service.trail.inputs`), `output`
  what the graph computed of it, whether the caller got it or not (`decision`, see `service.trail.entry`); what can be
  large (gradients, Jacobians, predictions with other categories) as the SHA-256 of its float32 values (little-endian).
  `sensitivity` is null where the plan does not compute it; numbers that are not finite are null;
- `failure`: a request that got an error: its status and the name of its problem, never its message, which may hold
  data;
- events: `start` of a writer, with the last hash of every other chain that it saw; `audit` of a data set; `removal` of
  old records; `gap`, where requests were refused because nothing could be written.

Documents of predictions are put together from bytes, a batch at a time: to encode each for itself would take longer
than its prediction.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from model.outputs import FLIPS, Task
from service import json
from service.computed import Computed, Rows
from service.features import Features
from service.runtime import Execution
from service.trail.canonical import dumps, rows_of_numbers
from service.trail.inputs import Inputs, Kept
from service.trail.tables import NO_LEVEL, Outcome, levels

SCHEMA = 1
DIGESTED = (FLIPS, "gradient", "jacobian")
SCALARS = {
    Task.CLASSIFICATION: "predicted class's logit",
    Task.ORDINAL: "expected level",
    Task.REGRESSION: "predicted value",
}
"""Which scalar's gradient the sensitivity is of."""
NORM = "l2"
UNIT = "per training standard deviation"
_PREDICTED = ("expected_level", "logits", "probabilities", "value")
_FIGURES = {
    "features_out_of_range_share": "out_of_range",
    "gradient_norm": "gradient_norm",
    "hidden_out_of_range_share": "hidden_out_of_range",
    "layer_derivatives": "layer_derivatives",
    "margin": "margin",
    "margin_gradient_norm": "margin_gradient_norm",
}
"""Figures of a record, and the graph's outputs that they are."""


class Written(NamedTuple):
    """What is written of one row."""

    input: bytes
    output: bytes
    sensitivity: bytes
    outcome: int
    """By the deployment's thresholds."""
    level: int
    norm: float | None
    """None where there is none, or it is not finite."""
    out_of_range: bool
    finite: bool
    """Whether the network did not overflow."""


class Form:
    """The form of a model's records: everything that is the same in all of them, and how the rest is written."""

    def __init__(self, manifest: Manifest, digest: str, execution: Execution, kept: Kept) -> None:
        """Take what is the same in every record of one version of a model."""
        self._manifest = manifest
        self.inputs = Inputs(kept, Features.of(manifest))
        self.digest = digest
        self.model = dumps(manifest.name)
        self.execution = dumps(
            {
                "provider": execution.provider,
                "runtime": execution.runtime,
                "tf32": execution.tf32,
                "threads": execution.threads,
            }
        )
        self._labels = [dumps(label) for label in manifest.target.classes]
        self._constants = tuple(
            (name, dumps(text)) for name, text in (("norm", NORM), ("scalar", SCALARS[manifest.task]), ("unit", UNIT))
        )

    @cached_property
    def template(self) -> bytes:
        """A prediction's document, with a place for everything that differs."""
        return (
            b'{"api":"%b","caller":%b,"decision":"%b","digest":"'
            + self.digest.encode()
            + b'","execution":'
            + _plain(self.execution)
            + b',"input":%b,"kind":"prediction","latency_us":%d,"model":'
            + _plain(self.model)
            + b',"output":%b,"plan":"%b","policy":%b,"position":%d,"request_id":"%b","row":%d,"rows":%d,"schema":'
            + str(SCHEMA).encode()
            + b',"sensitivity":%b,"status":%d,"time":"%b","verdict":%b,"version":'
            + str(self._manifest.version).encode()
            + b',"writer":%d}'
        )

    def rows(self, rows: Rows) -> list[Written]:
        """What is written of each row of a request.

        It is made of the whole batch, and kept with it: other requests have rows in it too.
        """
        written: list[Written] = []
        for computed, start, stop in rows.pieces:
            if computed.record is None:
                computed.record = self._written(computed)
            written += computed.record[start:stop]
        return written

    def _written(self, computed: Computed) -> list[Written]:
        rows = len(computed.x)
        outcomes = [int(Outcome.UNJUDGED)] * rows
        steps, norms, outside = [NO_LEVEL] * rows, [None] * rows, [False] * rows
        if "gradient_norm" in computed.outputs:
            outcomes = computed.judgement.verdict.tolist()
            outside = computed.judgement.out_of_range.tolist()
            steps = levels(computed.outputs["gradient_norm"]).tolist()
            norms = json.loads(json.dumps(computed.outputs["gradient_norm"]))  # the numbers that the documents have
        written = []
        for row, (kept, (output, sensitivity)) in enumerate(
            zip(self.inputs.texts(computed.x), self.outputs(computed), strict=True)
        ):
            if computed.overflowed is None or not computed.overflowed[row]:
                judged = outcomes[row], steps[row], norms[row], outside[row]
                written.append(Written(kept, output, sensitivity, *judged, finite=True))
            else:
                judged = int(Outcome.UNJUDGED), NO_LEVEL, None, outside[row]
                written.append(Written(kept, output, sensitivity, *judged, finite=False))
        return written

    def outputs(self, computed: Computed) -> list[tuple[bytes, bytes]]:
        """Of each row of a batch its output and its sensitivity, as canonical JSON."""
        figures = _figures(computed)
        texts = _texts({name: computed.outputs[name] for name in _PREDICTED if name in computed.outputs} | figures)
        for name in DIGESTED:
            if name in computed.outputs:
                rows = computed.outputs[name].astype("<f4", copy=False)
                texts[f"{name}_sha256"] = [b'"%b"' % sha256(row.tobytes()).hexdigest().encode() for row in rows]
        if self._labels:
            ranked = "logits" if self._manifest.task is Task.CLASSIFICATION else "probabilities"
            texts["label"] = [self._labels[place] for place in computed.outputs[ranked].argmax(axis=1).tolist()]
        outputs = _objects({name: column for name, column in texts.items() if name not in figures})
        if not figures:
            return [(output, b"null") for output in outputs]
        judged = {name: texts[name] for name in figures}
        judged["out_of_range"] = [_TRUTHS[outside] for outside in computed.judgement.out_of_range.tolist()]
        return list(zip(outputs, _objects(judged, self._constants), strict=True))


def _figures(computed: Computed) -> dict[str, NDArray[np.float32]]:
    """The figures of the sensitivity by name; none where the plan does not compute it."""
    if "gradient_norm" not in computed.outputs:
        return {}
    judgement = computed.judgement
    figures = {name: computed.outputs[output] for name, output in _FIGURES.items() if output in computed.outputs}
    if judgement.first_order_distance is not None:
        figures["first_order_distance_estimate"] = judgement.first_order_distance
    figures["percentile"] = judgement.percentile.astype(np.float32)
    return figures


def _texts(values: dict[str, NDArray[np.float32]]) -> dict[str, Sequence[bytes]]:
    """Each output as one text a row: a number, or a list of numbers."""
    texts: dict[str, Sequence[bytes]] = {
        name: [b"[%b]" % row for row in rows_of_numbers(array)] for name, array in values.items() if array.ndim > 1
    }
    single = [name for name, array in values.items() if array.ndim == 1]
    if single:
        rows = rows_of_numbers(np.stack([values[name] for name in single], axis=1))
        texts |= zip(single, zip(*(row.split(b",") for row in rows), strict=True), strict=True)
    return texts


def _objects(columns: dict[str, Sequence[bytes]], constants: tuple[tuple[str, bytes], ...] = ()) -> list[bytes]:
    """A JSON object for each row, of columns of texts, and of what is the same in all."""
    names = sorted(columns)
    template = _template(tuple(names), constants)
    return [template % row for row in zip(*(columns[name] for name in names), strict=True)]


@lru_cache
def _template(names: tuple[str, ...], constants: tuple[tuple[str, bytes], ...]) -> bytes:
    entries = {name: b'"%b":%%b' % name.encode() for name in names}
    entries |= {name: b'"%b":%b' % (name.encode(), _plain(text)) for name, text in constants}
    return b"{" + b",".join(entries[name] for name in sorted(entries)) + b"}"


def _plain(text: bytes) -> bytes:
    """A text within a template that stands for itself."""
    return text.replace(b"%", b"%%")


_TRUTHS = {False: b"false", True: b"true"}
