"""`chainzrule-audit export`: the trail, or a part of it, as a file."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from service.audit.commands import DONE
from service.audit.commands.options import FilterFlags, SourceFlags
from service.audit.files import check_writable, write_pieces
from service.audit.terminal import Progress

STANDARD_OUTPUT = Path("-")


class Export(SourceFlags, FilterFlags):
    """Export records: as NDJSON, one canonical JSON document a line, or as Parquet, for analysis.

    NDJSON without a filter, or with times only, has whole chains with what is signed of them: `verify --export` then
    verifies the file by itself. Exit code: 0, or 2 where it could not be done; then no file is left behind.
    """

    file: CliPositionalArg[Path] = Field(STANDARD_OUTPUT, description="file to write, - for the standard output")
    format: Literal["ndjson", "parquet"] | None = Field(
        None, description="by default parquet where the file is called so, else ndjson"
    )

    def execute(self) -> int:
        """Export."""
        if self.file == STANDARD_OUTPUT:
            for piece in self._pieces():
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return DONE
        check_writable(self.file)
        with Progress() as progress:
            size = write_pieces(self.file, self._watched(progress))
        print(f"{self.file}: {size:,} bytes")
        return DONE

    @property
    def _format(self) -> str:
        return self.format or ("parquet" if self.file.suffix.lower() == ".parquet" else "ndjson")

    def _pieces(self) -> Iterator[bytes]:
        wanted = self.filter()
        if self.url:
            from service.audit.remote import Remote, filter_parameters

            with Remote(self.url) as remote:
                yield from remote.stream("/v1/audit/export", format=self._format, **filter_parameters(wanted))
            return
        from service.trail.export import ndjson, records
        from service.trail.export_parquet import parquet

        database = self.database()
        yield from ndjson(database, wanted) if self._format == "ndjson" else parquet(records(database, wanted))

    def _watched(self, progress: Progress) -> Iterator[bytes]:
        size = 0
        for piece in self._pieces():
            size += len(piece)
            progress.show(f"{size / 1e6:,.1f} MB")
            yield piece
