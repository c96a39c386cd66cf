"""torch.compile, with one message where it cannot work."""

from typing import Any

import torch
from torch import nn

from training.device import DeviceError


class CompiledStep(nn.Module):
    """A module that torch.compile fuses at its first call."""

    def __init__(self, module: nn.Module) -> None:
        """Wrap a module."""
        super().__init__()
        self.module = module
        module.compile()

    def forward(self, *arguments: Any) -> Any:
        """What the module answers; DeviceError where it cannot be compiled."""
        try:
            return self.module(*arguments)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().splitlines()
            raise DeviceError(
                "--compile: expected that torch.compile works here, which needs a C++ compiler (on a GPU, Triton), "
                f"got: {reason[0] if reason else type(error).__name__}"
            ) from error


def compiled(step: nn.Module) -> nn.Module:
    """A module of the same parameters that is compiled at its first call.

    What was compiled before is forgotten: torch compiles a function for eight networks only, and folds are more.
    """
    torch.compiler.reset()
    return CompiledStep(step)
