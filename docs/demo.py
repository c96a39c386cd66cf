"""The whole way in one go: train on digits, serve, send a real request, show the answer; `make demo` runs it.

Uses nothing but the two commands and HTTP, as anyone would.
"""

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

REPOSITORY = Path("bundles")
BIN = Path(sys.executable).parent
START_WITHIN = 30.0  # seconds
Rows = NDArray[np.float64]
console = Console(highlight=False)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="go on serving until Ctrl-C")
    parser.add_argument("--port", type=int, default=8080)
    stay, port = vars(parser.parse_args()).values()
    check_port(port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the service is stopped too
    if not list(REPOSITORY.glob("digits/*/manifest.json")):
        console.rule("1. Train a network on 8 × 8 pixel digits, and a ReLU network beside it")
        run([str(BIN / "chainzrule-train"), "fit", "digits", "--repository", str(REPOSITORY)])
    else:
        console.rule(f"1. {REPOSITORY}/digits is there already: not trained again")
    console.rule("2. Serve it, without torch, on ONNX Runtime")
    with service(port) as url:
        images = load_digits()
        row = 7
        x = images.data[row]
        console.rule("3. A prediction with its sensitivity")
        show_image(images.images[row])
        answer = ask(url, {"instances": [x.tolist()], "top_features": 3})
        show_prediction(answer)
        console.rule("4. The same image ten times as bright: it says that it is out of range")
        show_prediction(ask(url, {"instances": [(10 * x).tolist()]}))
        console.rule("5. Audits: the last 200 images as they are, and blurred by noise")
        plain = images.data[-200:]
        noise = np.random.default_rng(0).normal(scale=4.0, size=(200, 64))
        labels = images.target[-200:].tolist()
        show_audits(
            {
                "as they are": audit(url, plain, labels),
                "with noise": audit(url, np.clip(plain + noise, 0, 16), labels),
            }
        )
        console.rule("6. The record of the first prediction, and the chain that it stands in")
        receipt = answer["audit"]
        show_record(url, f"{receipt['writer']}-{receipt['last']}", receipt["hash"])
        console.print(f"\nTry it yourself while it runs: {url}/docs\n" if stay else "")
        if stay:
            console.print("Serving until Ctrl-C …")
            while True:
                time.sleep(3600)


def run(command: list[str]) -> None:
    """Run a command, shown as one would type it."""
    console.print(f"$ {Path(command[0]).name} {' '.join(command[1:])}", style="bold")
    finished = subprocess.run(command, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def check_port(port: int) -> None:
    """Say at once that a port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(f"demo: port {port} is taken ({error}); name another: make demo PORT=8081")


@contextlib.contextmanager
def service(port: int) -> Iterator[str]:
    """The service as a process, from ready to stopped."""
    command = [str(BIN / "chainzrule-serve"), "--repository", str(REPOSITORY), "--port", str(port)]
    console.print(f"$ chainzrule-serve {' '.join(command[1:])}", style="bold")
    url = f"http://127.0.0.1:{port}"
    started = time.monotonic()
    process = subprocess.Popen([*command, "--log-level", "warning"])
    try:
        while True:
            if process.poll() is not None:
                sys.exit(f"demo: the service ended with status {process.returncode}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/v2/health/ready").status_code == httpx.codes.OK:
                    break
            if time.monotonic() - started > START_WITHIN:
                sys.exit(f"demo: the service was not ready within {START_WITHIN:.0f} s")
            time.sleep(0.05)
        served = httpx.get(f"{url}/v1/models").json()
        console.print(f"Ready after {time.monotonic() - started:.1f} s on {served['execution']['provider']}.")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Predict."""
    return checked(httpx.post(f"{url}/v1/models/digits/predict", json=body))


def audit(url: str, rows: Rows, labels: list[int]) -> dict[str, Any]:
    """Audit a data set."""
    body = {"instances": rows.tolist(), "labels": [str(label) for label in labels]}
    return checked(httpx.post(f"{url}/v1/models/digits/audit", json=body, timeout=60))


def checked(answer: httpx.Response) -> dict[str, Any]:
    """The document of a good answer; any other ends the demo."""
    if answer.is_error:
        sys.exit(f"demo: {answer.text}")
    document: dict[str, Any] = answer.json()
    return document


def show_image(image: Rows) -> None:
    """Show an image of grey levels 0 to 16 as text."""
    for row in image:
        console.print("    " + "".join(2 * " ░▒▓█"[round(level / 4)] for level in row))


def show_prediction(answer: dict[str, Any]) -> None:
    """Show one prediction, figure by figure."""
    prediction = answer["predictions"][0]
    sensitivity = prediction["sensitivity"]
    grid = Table(show_header=False, box=None, padding=(0, 2))
    grid.add_row("label", prediction["label"])
    grid.add_row("probability", f"{prediction['probability']:.4f}")
    grid.add_row(
        "gradient norm",
        f"{sensitivity['gradient_norm']:.3f} logits per training standard deviation, "
        f"percentile {sensitivity['percentile']:.0f} of the calibration set",
    )
    if sensitivity["first_order_distance_estimate"] is not None:
        grid.add_row(
            "distance to the boundary", f"{sensitivity['first_order_distance_estimate']:.2f} (an estimate, no bound)"
        )
    if sensitivity["out_of_range"]:
        share, names = sensitivity["features_out_of_range_share"], sensitivity["features_out_of_range"]
        grid.add_row("out of range", f"yes: {share:.0%} of the features" + (f", such as {names[0]}" if names else ""))
    for feature in sensitivity.get("top_features", []):
        grid.add_row("steepest in", f"{feature['feature']} ({feature['gradient']:+.3f})")
    colour = {"nominal": "green", "elevated": "yellow", "critical": "red"}[sensitivity["verdict"]]
    grid.add_row("verdict", f"[bold {colour}]{sensitivity['verdict']}[/]")
    console.print(grid)


def show_audits(reports: dict[str, dict[str, Any]]) -> None:
    """Show audits side by side, and the calibration set beside them."""
    grid = Table("", "calibration set", *reports)
    first = next(iter(reports.values()))
    for name, title in (("p50", "gradient norm p50"), ("p99", "p99"), ("tail_ratio", "tail ratio p99 / mean")):
        figures = [first["calibration"][name], *(report["gradient_norm"][name] for report in reports.values())]
        grid.add_row(title, *(f"{figure:.2f}" for figure in figures))
    critical = [report["verdicts"]["critical"] for report in reports.values()]
    shares = [critical[0]["expected_share"], *(verdict["share"] for verdict in critical)]
    grid.add_row("critical rows", *(f"{share:.1%}" for share in shares))
    grid.add_row("accuracy", "", *(f"{report['labels']['accuracy']:.1%}" for report in reports.values()))
    grid.add_row("verdict", "", *(f"[bold]{report['verdict']}[/]" for report in reports.values()))
    console.print(grid)
    for name, report in reports.items():
        for reason in report["reasons"]:
            console.print(f"{name}: {reason}")


def show_record(url: str, id_: str, chain: str) -> None:
    """Show a record of the trail, and whether the chain that it stands in verifies."""
    record = checked(httpx.get(f"{url}/v1/audit/records/{id_}"))
    document = record["document"]
    grid = Table(show_header=False, box=None, padding=(0, 2))
    grid.add_row("record", record["id"])
    for name in ("time", "request_id", "model", "version", "digest", "decision", "verdict"):
        grid.add_row(name, str(document[name]))
    grid.add_row("input", f"HMAC {document['input']['hmac'][:16]}… (the numbers themselves are not kept)")
    grid.add_row("hash", record["hash"] + (" as in the answer" if record["hash"] == chain else " NOT as in the answer"))
    console.print(grid)
    run([str(BIN / "chainzrule-audit"), "verify"])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
