"""`chainzrule-audit replay`: computes records anew from the bundles that they name."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from service.audit.commands import DONE, FOUND, UNDECIDED
from service.audit.commands.options import FilterFlags, SourceFlags, settings_with
from service.audit.schemas import Format
from service.audit.terminal import Progress, plain
from service.settings import Device

if TYPE_CHECKING:
    from service.audit.records import Records
    from service.audit.replay.replay import Replay, Tally
    from service.trail.queries import Filter

DIFFERENCES_SHOWN = 5  # of a record


class ReplayRecords(SourceFlags, FilterFlags):
    """Compute records anew, and compare: bit by bit, else within what rounding explains.

    Inputs come from the records themselves (a service with --inputs full), or from a file whose rows are found by their
    keyed digests. Exit code: 0 all that could be computed anew agree, 1 some differ, 2 it could not be done, 3 none
    could be computed anew.
    """

    export: Path | None = Field(None, description="NDJSON export to take the records from, instead of a trail")
    repository: Path | None = Field(
        None, description="folder of bundles; by default $CHAINZRULE_REPOSITORY, else ./bundles"
    )
    inputs: Path | None = Field(None, description="rows as .csv, .ndjson, .json or .parquet, with or without .gz")
    format: Format | None = Field(None, description="of that file; by default its suffix tells")
    hmac_key: Path | None = Field(None, description="key of the digests of inputs; by default hmac.key of the trail")
    limit: int | None = Field(None, ge=1, description="how many records at most; by default all")
    device: Device | None = Field(None, description="what to compute on; by default $CHAINZRULE_DEVICE")
    threads: int | None = Field(None, ge=0, description="of one computation; 0: all processors")
    as_json: bool = Field(False, alias="json", description="tell the result as JSON, for machines")

    @model_validator(mode="after")
    def _export_alone(self) -> Self:
        if self.export is not None and (self.url or self.trail_url):
            raise ValueError("expected --export or another source of records, got both")
        return self

    def execute(self) -> int:
        """Compute, compare, tell."""
        from service.audit.local import make_runtime
        from service.audit.replay.inputs import KnownInputs, key_file
        from service.audit.replay.replay import Replay, described
        from service.audit.table import opened
        from service.errors import InvalidInputError
        from service.trail.keys import read_hmac_key

        settings = settings_with(trail=self.trail, repository=self.repository, device=self.device, threads=self.threads)
        records, wanted = self._records(), self.filter()
        runtime = make_runtime(settings)
        if self.inputs is None:
            tally = self._replay(Replay(settings.repository, runtime, KnownInputs(None, None)), records, wanted)
        else:
            path = key_file(settings.trail, self.hmac_key)
            if path is None:
                raise InvalidInputError("--hmac-key: expected the key of the digests of inputs, got none")
            key = read_hmac_key(path)
            with opened(self.inputs, self.format) as data:
                tally = self._replay(Replay(settings.repository, runtime, KnownInputs(data, key)), records, wanted)
        here = described(**asdict(runtime.execution))
        if self.as_json:
            print(json.dumps({**tally.to_json(), "replayed_on": here}, indent=2, ensure_ascii=False))
        else:
            print(summary(tally, here))
        return FOUND if tally.different else DONE if tally.replayed else UNDECIDED

    def _records(self) -> "Records":
        if self.export is None:
            return self.records()
        from service.audit.records import ExportRecords

        return ExportRecords(self.export)

    def _replay(self, replay: "Replay", records: "Records", wanted: "Filter") -> "Tally":
        with Progress() as progress:
            for text in records.newest(wanted, self.limit):
                stored = json.loads(text)
                replay.add(stored["id"], stored["document"])
                progress.show(f"{replay.tally.records:,} records, {replay.tally.replayed:,} computed anew")
            return replay.finish()


def summary(tally: "Tally", here: str) -> str:
    """What it comes to, in some lines."""
    from service.audit.replay.compare import Result
    from service.audit.replay.rounding import FACTOR

    exact, rounded, different = (tally.results[result] for result in Result)
    lines = [
        f"{tally.records:,} records, {tally.predictions:,} predictions, {tally.replayed:,} computed anew on {here}",
        *(f"  {count:,} were computed on {execution}" for execution, count in tally.executions.most_common()),
        f"exact, bit by bit          {exact:,}",
        f"within the rounding bound  {rounded:,}",
        f"different                  {different:,}",
    ]
    if rounded:
        lines.append(
            f"The rounding bound is {FACTOR} standard deviations; the farthest is {tally.excess:.2g} of it away."
        )
    if tally.digests:
        lines.append(
            f"{tally.digests:,} digests of a gradient, a Jacobian or flips were not reproduced: these have no bound."
        )
    lines += [f"not computed anew: {count:,}, since {plain(reason)}" for reason, count in tally.skipped.most_common()]
    for record, finding in tally.different:
        lines += [f"DIFFERENT {record}: {plain(str(one))}" for one in finding.differences[:DIFFERENCES_SHOWN]]
    return "\n".join(lines)
