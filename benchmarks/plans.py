"""What a sensitivity costs beside its prediction, and beside torch autograd: in process, one thread, ratios in one run.

python benchmarks/plans.py [--inputs 784 --hidden 256,128 --classes 10]
"""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import torch
from measure import interleaved, machine, quartiles
from numpy.typing import NDArray

from model.encoding import Standardisation
from model.export import export
from model.graph import subgraph
from model.heads import ClassificationHead
from model.network import CRNetwork
from model.onnx_runtime import onnxruntime
from model.outputs import INPUT, Plan, Task, graph_outputs, plan_outputs

BATCHES = (1, 32, 128)


def sessions(network: CRNetwork, inputs: int, classes: int) -> dict[Plan, onnxruntime.InferenceSession]:
    """A session a plan, cut as the service cuts them."""
    model = export(network, [-1.0] * inputs, [1.0] * inputs)
    outputs = graph_outputs(
        Task.CLASSIFICATION, features=inputs, targets=classes, hidden_layers=len(network.polynomial_layers())
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return {
        plan: onnxruntime.InferenceSession(
            subgraph(model, [output.name for output in plan_outputs(outputs, plan)]).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        for plan in Plan
        if plan not in (Plan.FLIPS, Plan.WHOLE)  # of numbers alone there are no flips
    }


def runner(session: onnxruntime.InferenceSession, x: NDArray[np.float32]) -> Callable[[], object]:
    """A call that runs a session."""
    return lambda: session.run(None, {INPUT: x})


def autograd(
    network: CRNetwork, x: NDArray[np.float32]
) -> Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """What a request costs with torch: a forward pass and the gradients of the top logit and of the margin.

    Returns:
        A call that computes the probabilities, the norm of the top logit's gradient and that of the margin's.
    """

    def call() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        standardised = network.standardisation(torch.from_numpy(x)).detach().requires_grad_()
        h = standardised
        for layer in network.polynomial_layers():
            _, h, _ = layer(h)
        logits = network.output(h)
        best, runner_up = logits.topk(2, dim=-1).values.unbind(dim=-1)
        (top,) = torch.autograd.grad(best.sum(), standardised, retain_graph=True)
        (margin,) = torch.autograd.grad((best - runner_up).sum(), standardised)
        return logits.softmax(dim=-1), top.norm(dim=1), margin.norm(dim=1)

    return call


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=784)
    parser.add_argument("--hidden", default="256,128")
    parser.add_argument("--classes", type=int, default=10)
    arguments = parser.parse_args()
    hidden = [int(units) for units in arguments.hidden.split(",")]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    standardisation = Standardisation([0.0] * arguments.inputs, [1.0] * arguments.inputs)
    network = CRNetwork(standardisation, hidden, ClassificationHead(arguments.classes))
    plans = sessions(network, arguments.inputs, arguments.classes)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {machine()}")
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, one thread each")
    shape = "-".join(map(str, (arguments.inputs, *hidden, arguments.classes)))
    print(f"{shape}; median (quartiles) of 25 rounds\n")
    print(f"{'rows':>4}  {'candidate':<16}{'µs a call':>26}{'÷ predict':>22}{'÷ sensitivity':>22}")
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        x = rng.normal(size=(batch, arguments.inputs)).astype(np.float32)
        candidates = {str(plan): runner(session, x) for plan, session in plans.items()}
        times = interleaved({**candidates, "torch autograd": autograd(network, x)})
        for name, values in times.items():
            ratios = [quartiles(values / times[str(base)]) for base in (Plan.PREDICT, Plan.SENSITIVITY)]
            print(f"{batch:>4}  {name:<16}{quartiles(values, 1e6, 1):>26}{ratios[0]:>22}{ratios[1]:>22}")
        print()


if __name__ == "__main__":
    main()
