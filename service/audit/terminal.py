"""What a person reads: tables of plain text, and a line of progress where someone looks at it."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

BETWEEN = "  "
SECONDS = 0.1  # between two states of the line of progress


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows below the names of their columns, aligned; `right` lists the columns of numbers.

    Texts are shown as they are, but for control characters, which could make a terminal do things.
    """
    texts = [[plain(text) for text in row] for row in (columns, *rows)]
    widths = [max(len(row[k]) for row in texts) for k in range(len(columns))]
    lines = (
        BETWEEN.join(text.rjust(widths[k]) if k in right else text.ljust(widths[k]) for k, text in enumerate(row))
        for row in texts
    )
    return "\n".join(line.rstrip() for line in lines)


def plain(text: str) -> str:
    """A text without control characters."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def number(value: float | None) -> str:
    """Four digits that count; a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share in percent, by three digits that count, four near 100 %: what is not all is not called 100 %."""
    return "-" if share is None else f"{100 * share:.{4 if share > 0.99 else 3}g} %"


class Progress:
    """One line on the error stream that is written over again and again; nothing where that is no terminal."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._shown = 0
        self._last = 0.0
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._write("")

    def show(self, text: str) -> None:
        """Show how far things are."""
        now = time.monotonic()
        if now - self._last >= SECONDS:
            self._last = now
            self._write(text)

    def _write(self, text: str) -> None:
        if self._terminal:
            sys.stderr.write(f"\r{text.ljust(self._shown)}" + ("" if text else "\r"))
            sys.stderr.flush()
            self._shown = len(text)
