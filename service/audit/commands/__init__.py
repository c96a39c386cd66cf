"""The verbs of `chainzrule-audit`, one file each: its flags, and what it does.

Each has an `execute` that returns the exit code. What takes long to import is imported there, so that `--help` and a
wrong flag are answered at once.
"""

DONE, FOUND, WRONG, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: as it should be; something was found (a shift, a broken chain, a record that differs); it could not be
done as asked; nothing can be said; stopped by hand."""
