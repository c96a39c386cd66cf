"""How numbers are spelled in texts: codes with leading zeros, decimal commas, separators between thousands."""

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.data.cells import texts_to_numbers

DIGITS = r"^\s*[0-9]+\s*$"
PADDED = r"^\s*0[0-9]+\s*$"
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")
DECIMAL_COMMA = re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+")


class Codes:
    """Whether all texts of a column are digits and one begins with a zero ("01234"): codes, and no numbers."""

    def __init__(self) -> None:
        """Begin with no texts."""
        self._digits = True
        self._padded: str | None = None

    def survey(self, texts: pa.Array) -> None:
        """Take the texts of some rows, null where one is missing."""
        if not self._digits:
            return
        there = texts.drop_null()
        self._digits = pc.all(pc.match_substring_regex(there, DIGITS), min_count=0).as_py()
        if self._digits and self._padded is None:
            padded = there.filter(pc.match_substring_regex(there, PADDED))
            self._padded = padded[0].as_py() if len(padded) else None

    @property
    def shown(self) -> str | None:
        """The first that begins with a zero; None where the column holds no codes."""
        return self._padded if self._digits else None


def misspelled(texts: Iterable[str]) -> str | None:
    """A text that shows that a column's numbers have commas in them; None where most that is no number is other text.

    Args:
        texts: the different ones of a column.
    """
    different = pa.array(list(texts), pa.large_string())
    values, _ = texts_to_numbers(different)
    odd: list[str] = [text.strip() for text in different.filter(pa.array(np.isnan(values))).to_pylist()]
    commas = [text for text in odd if THOUSANDS.fullmatch(text) or DECIMAL_COMMA.fullmatch(text)]
    if not commas or len(commas) <= len(odd) / 2:
        return None
    # 1,234 may be meant either way: one 3,14 beside it tells.
    return next((text for text in commas if not THOUSANDS.fullmatch(text)), commas[0])


def comma_message(where: str, text: str, otherwise: str, row: int | None = None) -> str:
    """What is wrong with a number that has a comma.

    Args:
        where: begins the message.
        text: as `misspelled` gives it.
        otherwise: what else may be done than to write it with a point.
        row: of it, from 0, where that is known.
    """
    got = f"{text!r}" + ("" if row is None else f" in row {row + 1}")
    if THOUSANDS.fullmatch(text):
        expected, why, plain = "numbers without separators", "which has commas between thousands", text.replace(",", "")
    else:
        expected, why = "numbers with a decimal point", "which has a decimal comma"
        plain = text.replace(".", "").replace(",", ".")
    return f"{where}: expected {expected}, got {got}, {why}: write {plain}; or {otherwise}"
