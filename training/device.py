"""What a training runs on: one device, or several processes that share each batch.

Lightning Fabric does what takes care: process groups, DDP, low precision and its gradient scaling. It was chosen over
Hugging Face's accelerate because it takes the loop as it is, does not read a configuration from the user's home, and
brings one further package (`lightning-utilities`) where accelerate brings a client of a model hub. One device in 32
bits needs none of this and is plain torch: Fabric's wrappers cost a small network 2 to 3 % of its time there (64-64 on
64 features, batches of 64, one thread of a shared machine: 1.54 to 1.62 ms a step instead of 1.52 to 1.58), and its
import takes seconds.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from training.config import FitConfig
from training.errors import TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Value = TypeVar("Value")

PRECISIONS: dict[Literal["32", "bf16", "16"], Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}
"""Fabric's names."""


class DeviceError(TrainingError):
    """What the settings ask for cannot run on this machine."""


@dataclass(frozen=True)
class Place:
    """Where a training runs."""

    kind: Literal["cpu", "cuda"]
    processes: int
    precision: Literal["32", "bf16", "16"]


def find_place(config: FitConfig) -> Place:
    """What `device`, `devices` and `precision` come to on this machine.

    Raises:
        DeviceError: there is no such device, or not so many, or it does not compute in this precision.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.device == "cuda" and not gpus:
        build = "" if torch.version.cuda else ", and this torch was built without CUDA"
        raise DeviceError(f"--device cuda: expected a GPU that torch can use, got none{build}; use --device cpu")
    kind: Literal["cpu", "cuda"] = "cuda" if gpus and config.device != "cpu" else "cpu"
    if kind == "cuda" and config.devices > gpus:
        raise DeviceError(f"--devices: expected at most the {gpus} GPUs of this machine, got {config.devices}")
    if config.precision == "16" and kind == "cpu":
        raise DeviceError("--precision 16: expected a GPU, got the CPU; use bf16 or 32 there")
    if config.precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DeviceError("--precision bf16: expected a GPU that computes in bfloat16, got an older one; use 16 or 32")
    return Place(kind, config.devices, config.precision)


class Engine:
    """One process on one device in 32 bits."""

    rank = 0
    world = 1

    def __init__(self, device: torch.device) -> None:
        """Train on `device`."""
        self.device = device

    def prepare(self, step: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """What to call and to step instead of a module, already on the device, and its optimiser."""
        return step, optimiser

    def backward(self, total: Tensor) -> None:
        """Compute the gradients of a scalar."""
        total.backward()  # type: ignore[no-untyped-call]

    def clip(self, step: nn.Module, optimiser: torch.optim.Optimizer, at_most: float) -> Tensor:  # noqa: ARG002
        """Shorten the gradient to a norm; the norm that it had, a scalar."""
        return nn.utils.clip_grad_norm_(step.parameters(), at_most)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        return values

    def agree(self, value: Value) -> Value:
        """The value that the process of rank 0 has."""
        return value

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""


class FabricEngine(Engine):
    """Several processes, or matrix products in low precision, by Lightning Fabric."""

    def __init__(self, fabric: "Fabric") -> None:
        """Train with a launched `fabric`."""
        super().__init__(fabric.device)
        self._fabric = fabric
        self.rank, self.world = fabric.global_rank, fabric.world_size

    def prepare(self, step: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Wrap both."""
        for parameter in step.parameters():
            if self.world > 1 and not parameter.numel():
                parameter.requires_grad_(False)  # DDP would wait for its gradient
        module, wrapped = self._fabric.setup(step, optimiser)
        return module, wrapped

    def backward(self, total: Tensor) -> None:
        """Compute the gradients of a scalar, scaled where the precision asks for it, and share them."""
        self._fabric.backward(total)

    def clip(self, step: nn.Module, optimiser: torch.optim.Optimizer, at_most: float) -> Tensor:
        """Shorten the gradient to a norm; the norm that it had, a scalar."""
        norm = self._fabric.clip_gradients(step, optimiser, max_norm=at_most, error_if_nonfinite=False)
        if norm is None:
            raise TypeError("expected Fabric to return the norm of the gradient")
        return norm

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        reduced = self._fabric.all_reduce(values, reduce_op="mean")
        if not isinstance(reduced, Tensor):
            raise TypeError("expected Fabric to reduce a tensor to a tensor")
        return reduced

    def agree(self, value: Value) -> Value:
        """The value that the process of rank 0 has."""
        return self._fabric.broadcast(value)

    def state(self) -> dict[str, Any]:
        """The scale of the gradients in 16 bits; nothing in other precisions."""
        return self._fabric.strategy.precision.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._fabric.strategy.precision.load_state_dict(state)


def make_engine(place: Place) -> Engine:
    """The engine of this process; where there are several, it must be one that `training.processes` started."""
    if place.processes == 1 and place.precision == "32":
        return Engine(torch.device(place.kind))
    from lightning_fabric import Fabric  # seconds, which training in 32 bits on one device need not wait
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=place.kind,
        devices=place.processes,
        strategy=DDPStrategy() if place.processes > 1 else "auto",
        precision=PRECISIONS[place.precision],
    )
    fabric.launch()
    return FabricEngine(fabric)
