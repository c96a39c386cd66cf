"""A bundle of the disk, ready to audit with: no server, no event loop."""

from dataclasses import dataclass
from pathlib import Path

from model import bundle
from service.cpus import available_cpus
from service.runtime import Execution, Runtime
from service.sensitivity import Judge
from service.served import ServedModel
from service.settings import Settings


@dataclass(frozen=True)
class Local:
    """A model, and what it runs on."""

    model: ServedModel
    execution: Execution


def make_runtime(settings: Settings) -> Runtime:
    """What the service would run on, with one process; raises StartError."""
    return Runtime(settings.device, settings.threads or available_cpus())


def open_bundle(path: Path, settings: Settings) -> Local:
    """Read a bundle and make its sessions, with the thresholds that a service of these settings would have.

    Raises:
        BundleError: it is none, or is not whole.
        StartError: the device is not there, or ONNX Runtime refuses the graph.
    """
    read = bundle.read(path.absolute())
    runtime = make_runtime(settings)
    judge = Judge(read.manifest, settings.elevated_percentile, settings.critical_percentile)
    return Local(ServedModel(read, runtime, judge, settings.max_batch_rows), runtime.execution)
