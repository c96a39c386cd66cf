"""The training loop of one process: epochs of steps, what is measured after each, and the state to go on from."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.network import CRNetwork
from training.checkpoint import Checkpoint, circumstances
from training.compiler import compiled
from training.config import FitConfig
from training.data.table import Split, Table
from training.device import Engine
from training.epoch import Epoch
from training.errors import DataError, DivergenceError
from training.optimiser import make_optimiser, set_rate
from training.plain import PlainNetwork
from training.schedule import TargetedWeight, WeightSchedule
from training.step import Batch, TrainingStep, class_weights
from training.watch import EarlyStopping, steepness, validate

GRADIENT_NORM_AT_MOST = 5.0
STEPS_UNSEEN = 50  # on a GPU: to look at a figure after each step would make it wait for the CPU


class Training:
    """A network on its way through the epochs, in place."""

    def __init__(
        self,
        network: CRNetwork | PlainNetwork,
        table: Table,
        parts: Split,
        config: FitConfig,
        name: str,
        engine: Engine,
    ) -> None:
        """Set out, or go on from a checkpoint where `config.resume` says so and there is one.

        Args:
            network: a CR network is trained with DREG as the settings say, any other by its loss alone.
            table: may be larger than the memory.
            parts: its training and validation rows.
            config: the settings.
            name: of the network, and of its folder among the checkpoints.
            engine: of this process.

        Raises:
            DataError: the checkpoint is of other settings or data, or none at all, or is there and not to be resumed;
                class weights are asked for without classes, or patience or a target without validation rows.
        """
        if not len(parts.validation) and (config.patience is not None or config.dreg_target is not None):
            raise DataError(
                f"{table.name}: expected validation rows, by which --patience and --dreg-target go, got none"
            )
        self._network, self._table, self._parts, self._config, self._engine = network, table, parts, config, engine
        self._count = config.epochs_for(len(parts.training))
        self._steps = math.ceil(len(parts.training) / config.batch_size)
        weight_at_end = config.weight_for(table.task, len(parts.training), len(table.columns))
        regularised = isinstance(network, CRNetwork) and max(config.dreg_start, weight_at_end) > 0
        schedule = WeightSchedule(config.dreg_schedule, config.dreg_start, weight_at_end, config.dreg_ramp)
        if not regularised:
            schedule = WeightSchedule("constant", 0.0, 0.0, config.dreg_ramp)
        self._weight = TargetedWeight(schedule, config.dreg_target, self._count * self._steps)
        self._stopping = EarlyStopping(config.patience)
        balance = class_weights(table, parts.training) if config.class_weight == "balanced" else None
        self._form = config.dreg if regularised else None
        step = TrainingStep(network, self._form, balance).to(engine.device)
        self._directions = step.directions = torch.Generator(engine.device)
        self._class_weight = step.class_weight
        self._optimiser = make_optimiser(network, config)
        self._order = torch.Generator().manual_seed(config.seed)
        self._epochs: list[Epoch] = []
        self._resumed_after: int | None = None
        self._checkpoint: Checkpoint | None = None
        if config.checkpoints is not None:
            found = circumstances(config, table, parts, engine.device.type)
            self._checkpoint = Checkpoint(config.checkpoints, name, found)
            if engine.rank == 0:
                self._checkpoint.hold(resume=config.resume)
            if config.resume:
                try:
                    self._load(self._checkpoint.read())
                except DataError:
                    self._checkpoint.release()
                    raise
        self._step, self._stepper = engine.prepare(compiled(step) if config.compile else step, self._optimiser)

    def run(self, on_epoch: Callable[[Epoch], None]) -> list[Epoch]:
        """Train to the end, or until `patience` runs out; leaves the network on the CPU, ready to predict.

        Raises:
            DivergenceError: a loss or a gradient is no longer finite.
            DataError: a checkpoint cannot be written.
        """
        try:
            while len(self._epochs) < self._count and not self._stopping.stopped:
                epoch = self._epoch(len(self._epochs) + 1)
                self._epochs.append(epoch)
                if self._engine.rank == 0:
                    if self._checkpoint is not None:
                        self._checkpoint.write(self._state())
                    on_epoch(epoch)
        finally:
            if self._checkpoint is not None:
                self._checkpoint.release()
        self._stopping.restore(self._network)
        self._network.to("cpu").eval()
        return self._epochs

    def _epoch(self, number: int) -> Epoch:
        """One pass over the training rows, and what it came to."""
        start = time.monotonic()
        self._network.train()
        # A seed of its own for each epoch and process: no state of it need be kept.
        draw = np.random.SeedSequence([self._config.seed, number, self._engine.rank]).generate_state(1)
        self._directions.manual_seed(int(draw[0]))
        sums = torch.zeros(3, device=self._engine.device)
        unseen: list[Tensor] = []
        rows = np.zeros(0, np.int64)
        done = (number - 1) * self._steps
        for step, rows in enumerate(self._batches()):
            set_rate(self._optimiser, (done + step + 0.5) / (self._count * self._steps))
            weight = self._weight.step()
            loss, penalty = self._step(self._batch(rows))
            self._optimiser.zero_grad()
            self._engine.backward(loss + weight * penalty)
            norm = self._engine.clip(self._step, self._stepper, GRADIENT_NORM_AT_MOST)
            self._stepper.step()
            figures = torch.stack((loss.detach(), penalty.detach(), norm))
            sums += figures
            unseen.append(figures)
            if self._engine.device.type == "cpu" or len(unseen) == STEPS_UNSEEN or step + 1 == self._steps:
                self._look(number, step + 1, unseen)
                unseen = []
        loss_mean, penalty_mean, _ = (self._engine.mean(sums) / self._steps).tolist()
        epoch = Epoch(number, self._count, loss_mean, penalty_mean, weight)
        return self._watched(epoch, rows, start)

    def _watched(self, epoch: Epoch, rows: NDArray[np.int64], start: float) -> Epoch:
        """An epoch with the figures that are taken after it; `rows` are those of its last step."""
        self._network.eval()
        measured = None
        if self._engine.rank == 0:
            rows_of_validation = self._parts.validation
            measured = validate(self._network, self._table, rows_of_validation, self._class_weight, self._engine.device)
        measured = self._engine.agree(measured)
        if measured is not None:
            self._weight.consider(epoch.number, measured.gradient_norm_p99)
            if self._weight.rests:
                self._stopping.consider(epoch.number, measured.loss, self._network)
        resumed_after, self._resumed_after = self._resumed_after, None
        return dataclasses.replace(
            epoch,
            layer_derivatives=steepness(self._network, self._rows(rows)[0]),
            validation_loss=None if measured is None else measured.loss,
            gradient_norm_p99=None if measured is None else measured.gradient_norm_p99,
            best=self._stopping.best,
            stopped=self._stopping.stopped,
            held_since=self._weight.held_since,
            target=None if self._form is None else self._config.dreg_target,
            resumed_after=resumed_after,
            seconds=time.monotonic() - start,
        )

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        """The training rows in a fresh order, a batch at a time."""
        order = torch.randperm(len(self._parts.training), generator=self._order).numpy()
        for start in range(0, len(order), self._config.batch_size):
            yield self._parts.training[order[start : start + self._config.batch_size]]

    def _rows(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Features and targets of some rows: no more than these is read of the table."""
        device = self._engine.device
        return torch.from_numpy(self._table.x[rows]).to(device), torch.from_numpy(self._table.y[rows]).to(device)

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        """This process's part of a batch; where there are fewer rows than processes, a row that counts nothing."""
        world = self._engine.world
        if world == 1:
            return Batch(*self._rows(rows))
        mine = np.array_split(rows, world)[self._engine.rank]
        x, y = self._rows(mine if len(mine) else rows[:1])
        shares = torch.tensor(world * len(mine) / len(rows), device=x.device)
        if self._class_weight is None:
            return Batch(x, y, shares, shares)
        weights = self._class_weight
        whole = weights[torch.from_numpy(self._table.y[rows]).to(x.device)].sum()
        return Batch(x, y, world * weights[y].sum() / whole * bool(len(mine)), shares)

    def _look(self, number: int, step: int, figures: list[Tensor]) -> None:
        """Stop where a figure of the last steps is not finite."""
        values = figures[0][None].tolist() if len(figures) == 1 else torch.stack(figures).tolist()
        for at, (loss, penalty, norm) in enumerate(values, step - len(values) + 1):
            # In 16 bits a gradient may overflow: its step is left out, and the next one scaled down.
            if math.isfinite(loss + penalty) and (math.isfinite(norm) or self._config.precision == "16"):
                continue
            kept = ""
            if self._checkpoint is not None and self._epochs:
                kept = f"; the state after epoch {number - 1} is kept in {self._checkpoint.path}"
            raise DivergenceError(
                f"training diverged in epoch {number}, step {at} of {self._steps} (loss {loss:g}, DREG {penalty:g}, "
                f"gradient norm {norm:g}); try a lower --learning-rate than {self._config.learning_rate:g}, a --bound, "
                f"or a lower --degree{kept}"
            )

    def _state(self) -> dict[str, Any]:
        """All that the epochs to come follow from."""
        return {
            "network": self._network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "order": self._order.get_state(),
            "weight": self._weight.state(),
            "stopping": self._stopping.state(),
            "engine": self._engine.state(),
            "epochs": [dataclasses.asdict(epoch) for epoch in self._epochs],
        }

    def _load(self, state: dict[str, Any] | None) -> None:
        """Go on from `_state()`, or from the start where there is none."""
        if state is None:
            self._resumed_after = 0
            return
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._order.set_state(state["order"])
        self._weight.load(state["weight"])
        self._stopping.load(state["stopping"])
        self._engine.load(state["engine"])
        self._epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self._resumed_after = len(self._epochs)
