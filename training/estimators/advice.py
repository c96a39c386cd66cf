"""Advice of code that the command and the estimators share, said to callers of Python.

What reads and trains names settings by their flags; an estimator has parameters, and a caller who chooses the columns.
"""

import re

QUOTED = r"""(?<!\w)(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""  # a cell or a name: said as it is
SHELL_WORD = r"""(?:'(?:'"'"'|[^'])*'|\S+?)(?=[,;]?(?:\s|$))"""  # a column, as `shlex.quote` spells it
PHRASES = (
    (rf" with --drop {SHELL_WORD}", " of X"),
    (rf"or read it as numbers with --numeric {SHELL_WORD}", "or turn it into numbers"),
    ("name that text by --missing", "write NaN for that text"),
    ("in --categorical", "in categorical=[…]"),
)
FLAG = r"--[a-z]+(?:-[a-z]+)*"
SPOKEN = re.compile("|".join([f"({QUOTED})", *(f"({phrase})" for phrase, _ in PHRASES), f"({FLAG})"]))


def in_python(message: str) -> str:
    """A message whose advice is about parameters and X instead of flags.

    Args:
        message: of an error of the packages `training` or `model`.
    """
    return SPOKEN.sub(_spoken, message)


def _spoken(found: re.Match[str]) -> str:
    group = found.lastindex or 1
    if group == 1:
        return found[0]
    if group - 2 < len(PHRASES):
        return PHRASES[group - 2][1]
    return found[0].removeprefix("--").replace("-", "_")
