"""A fresh network for a table."""

import torch

from model.network import CRNetwork
from training.config import FitConfig
from training.data.table import Split, Table
from training.heads import make_head
from training.scaling import Scaling


def make_network(config: FitConfig, table: Table, parts: Split, scaling: Scaling) -> CRNetwork:
    """A CR network with weights from `config.seed`; sets torch's number of threads and its global random state.

    Args:
        config: the settings.
        table: says the features and the task.
        parts: whose training rows a regression head is scaled by.
        scaling: of the training rows.

    Raises:
        model.errors.ArchitectureError: the settings describe no network.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    return CRNetwork(
        scaling.encoding(table), config.hidden, make_head(table, parts), degree=config.degree, bound=config.bound
    )
