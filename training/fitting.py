"""Training a network: on one device, or by several processes; with its log."""

from collections.abc import Callable

from model.network import CRNetwork
from training.config import FitConfig
from training.data.table import Split, Table
from training.device import find_place, make_engine
from training.epoch import Epoch
from training.logs import open_log
from training.loop import Training
from training.plain import PlainNetwork

__all__ = ["Epoch", "fit"]


def fit(
    network: CRNetwork | PlainNetwork,
    table: Table,
    parts: Split,
    config: FitConfig,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    *,
    name: str = "ChainzRule",
) -> list[Epoch]:
    """Train a network in place; repeatable for a seed on one machine, device and number of threads.

    With `config.patience` the network ends with the weights of its best epoch, else with those of the last. With
    `config.checkpoints` the state is kept after each epoch, and at the end too (`training.checkpoint.discard` removes
    it); with `config.resume` it goes on from there, to the same bits as without the interruption, and only the epochs
    that still ran are told of.

    Args:
        network: a CR network is trained with DREG as the settings say, any other by its loss alone.
        table: may be larger than the memory: no more than a batch of it is copied.
        parts: its training and validation rows.
        config: the settings. With `devices` above 1 this starts processes: the caller's main module must be safe to
            import (`if __name__ == "__main__"`).
        on_epoch: told of each epoch as it ends, in this process. What it raises ends the training.
        name: of the network: of its folder among the checkpoints, and of its curve in the log.

    Returns:
        Every epoch that was run, first to last, with those before an interruption.

    Raises:
        DivergenceError: a loss or a gradient is no longer finite.
        DeviceError: the machine has not what `device`, `devices`, `precision` or `compile` ask for.
        DataError: a checkpoint cannot be written, is damaged, is of other settings or data, or is there and not to be
            resumed; or class weights were asked for where there are no classes.
        LogError: the package of `config.log` is not installed.
    """
    place = find_place(config)
    with open_log(config, name) as log:

        def told(epoch: Epoch) -> None:
            log.write(epoch)
            on_epoch(epoch)

        if place.processes > 1:
            from training.processes import train_together  # which imports what starts processes

            return train_together(network, table, parts, config, told, name)
        return Training(network, table, parts, config, name, make_engine(place)).run(told)
