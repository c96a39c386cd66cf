"""What a training step with DREG costs: time and peak memory beside a ReLU network and beside double backpropagation.

python benchmarks/dreg.py [--widths 64,256,1024 --depths 2,4,8 --batch 256 --features 64 --compile --device cpu]

Every step is a whole one: forward, loss, penalty, backward, AdamW. The candidates of one shape are timed in turn, the
ratios taken round by round. Candidates:

    relu         a ReLU network of the same widths, its loss alone
    none         the CR network, its loss alone
    local        the CR network with DREG, form by form (`model.dreg`); `accumulated` only where the Jacobian is small
    projected
    accumulated
    double       the CR network with the squared norm of the true logit's input gradient as the penalty, by autograd
                 through autograd (Drucker and Le Cun 1992)

Peak memory is the greatest sum of live tensor bytes in a step, beyond those that are there before it (weights, moments,
data); on CUDA the allocator's own figure.
"""

import argparse
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import interleaved, machine, quartiles
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model import dreg
from model.encoding import Encoding, Standardisation
from model.heads import ClassificationHead
from model.network import CRNetwork
from training.plain import PlainNetwork

CLASSES = 10
WEIGHT = 0.1
JACOBIAN_AT_MOST = 2**22
"""Numbers in the Jacobians that `accumulated` carries forward, all rows together, of one layer: 16 MiB."""


class Relu(nn.Module):
    """The loss of a ReLU network."""

    def __init__(self, network: PlainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Without any penalty."""
        return self.network.head.loss(self.network(x), y)


class Chain(nn.Module):
    """The loss of a CR network with a penalty."""

    def __init__(self, network: CRNetwork, form: str) -> None:
        super().__init__()
        self.network, self.form = network, form

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """As `training.fitting` computes it."""
        trace = self.network.trace(x)
        loss = self.network.head.loss(trace.scores, y)
        return loss if self.form == "none" else loss + WEIGHT * dreg.FORMS[self.form](self.network, trace)  # type: ignore[index]


class DoubleBackpropagation(nn.Module):
    """The loss of a CR network with the input gradient's squared norm, which autograd differentiates once more."""

    def __init__(self, network: CRNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The penalty of Drucker and Le Cun, of the true class's logit."""
        h = encoded = self.network.encoding(x).detach().requires_grad_()
        for layer in self.network.polynomial_layers():
            _, h, _ = layer(h)
        scores = self.network.output(h)
        (gradient,) = torch.autograd.grad(scores.gather(1, y[:, None]).sum(), encoded, create_graph=True)
        penalty: Tensor = WEIGHT * gradient.square().sum(dim=1).mean()
        return self.network.head.loss(scores, y) + penalty


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the tensors that live at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operator: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        """Run an operator, and count the storages that it made."""
        before = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)}
        result = operator(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage(), before)
        return result

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key = storage.data_ptr()
        if not key or key in before or key in self._known:
            return
        self._known.add(key)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak(step: Callable[[], object], device: str) -> int:
    """Bytes beyond those before a step."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return int(torch.cuda.max_memory_allocated()) - before
    counted = Peak()
    with counted:
        step()
    return counted.most


def stepper(loss: nn.Module, x: Tensor, y: Tensor, device: str, *, fused: bool = False) -> Callable[[], object]:
    """One training step of a loss."""
    optimiser = torch.optim.AdamW(loss.parameters(), lr=1e-4, fused=True)
    computed: Callable[[Tensor, Tensor], Tensor] = torch.compile(loss) if fused else loss

    def step() -> None:
        optimiser.zero_grad()
        computed(x, y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def candidates(arguments: argparse.Namespace, width: int, depth: int) -> dict[str, Callable[[], object]]:
    """A step of each, at one shape; and the forward pass of the CR network alone."""
    torch.manual_seed(0)
    torch.compiler.reset()  # else the shapes before count as recompilations, of which there may be few
    device, features, batch = arguments.device, arguments.features, arguments.batch
    hidden = (width,) * depth
    x = torch.randn(batch, features, device=device)
    y = torch.randint(CLASSES, (batch,), device=device)

    def chain() -> CRNetwork:
        standardisation = Standardisation([0.0] * features, [1.0] * features)
        return CRNetwork(standardisation, hidden, ClassificationHead(CLASSES)).to(device)

    encoding = Encoding(Standardisation([0.0] * features, [1.0] * features))
    plain = PlainNetwork(encoding, hidden, ClassificationHead(CLASSES)).to(device)
    forms = ["none", "local", "projected"]
    if batch * width * features <= JACOBIAN_AT_MOST:
        forms.append("accumulated")
    found = {"relu": stepper(Relu(plain), x, y, device)}
    for form in forms:
        found[form] = stepper(Chain(chain(), form), x, y, device)
    found["double"] = stepper(DoubleBackpropagation(chain()), x, y, device)
    if arguments.compile:
        found["relu, compiled"] = stepper(Relu(plain), x, y, device, fused=True)
        found["local, compiled"] = stepper(Chain(chain(), "local"), x, y, device, fused=True)
    found["forward"] = partial(_forward, chain(), x, device)
    return found


def _forward(network: CRNetwork, x: Tensor, device: str) -> None:
    with torch.no_grad():
        network(x)
    if device == "cuda":
        torch.cuda.synchronize()


def shape(
    arguments: argparse.Namespace, width: int, depth: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
    """Seconds a step of each candidate at one shape, by round, and its peak memory in bytes."""
    found = candidates(arguments, width, depth)
    times = interleaved(found, rounds=arguments.rounds, seconds=arguments.seconds)
    plain = [name for name in found if "compiled" not in name or arguments.device == "cuda"]
    return times, {name: peak(found[name], arguments.device) for name in plain}


def main() -> None:
    """Print two tables: time and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole = partial(str.split, sep=",")
    parser.add_argument("--widths", type=whole, default=["64", "256", "1024", "2048"])
    parser.add_argument("--depths", type=whole, default=["2", "4", "8"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.05, help="of a turn")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}, torch {torch.__version__} on {arguments.device}, one thread; {datetime.now(UTC):%Y-%m-%d}")
    print(
        f"{arguments.features} features, batches of {arguments.batch}; medians of {arguments.rounds} rounds (quartiles)"
    )
    memory_lines, columns = [], ["none", "local", "projected", "accumulated", "double"]
    if arguments.compile:
        columns += ["relu, compiled", "local, compiled"]
    print(f"\n| shape | ReLU step, ms | {' | '.join(f'{name} ÷ ReLU' for name in columns)} | local ÷ forward |")
    print("|---" * (len(columns) + 3) + "|")
    for width in map(int, arguments.widths):
        for depth in map(int, arguments.depths):
            times, bytes_ = shape(arguments, width, depth)
            relu = times["relu"]
            ratios = [quartiles(times[name] / relu) if name in times else "–" for name in columns]
            against_forward = quartiles(times["local"] / times["forward"])
            print(
                f"| {depth} × {width} | {quartiles(relu, 1e3)} | {' | '.join(ratios)} | {against_forward} |", flush=True
            )
            shares = [f"{bytes_[name] / bytes_['relu']:.2f}" if name in bytes_ else "–" for name in columns]
            memory_lines.append(f"| {depth} × {width} | {bytes_['relu'] / 2**20:.2f} | {' | '.join(shares)} |")
    print(f"\n| peak memory | ReLU step, MiB | {' | '.join(f'{name} ÷ ReLU' for name in columns)} |")
    print("|---" * (len(columns) + 2) + "|")
    print("\n".join(memory_lines))


if __name__ == "__main__":
    main()
