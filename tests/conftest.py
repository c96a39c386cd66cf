"""What every test runs under: checked shapes and types in `model`, one thread for torch, a root logger of its own."""

import logging
from collections.abc import Iterator

import jaxtyping
import pytest

SHAPED = ("dreg", "export", "heads", "network", "polynomial", "sensitivity")
"""The modules of `model` whose annotations hold shapes. The others are checked by pydantic, which beartype (that knows
no `typing.Self` outside of classes of its own) would trip over."""

# Before anything imports `model`. The numeric tower lets an int stand for a float, as mypy and the callers do.
jaxtyping.install_import_hook(
    [f"model.{module}" for module in SHAPED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

import torch  # noqa: E402  (the hook comes first)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Leave the root logger as it was: a command that sets it up writes to a stream which ends with its test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(level)
