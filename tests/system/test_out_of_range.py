"""Real images far outside the training range, through trained networks and the whole service."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from training.config import FitConfig
from training.data.load import load
from training.data.table import split
from training.pipeline import train

NETWORKS: dict[str, dict[str, Any]] = {
    "two": {"hidden": (32, 32)},
    "four": {"hidden": (32, 32, 32, 32)},
    "unbounded": {"hidden": (16, 16, 16, 16), "bound": None, "learning_rate": 5e-4},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The service with networks of two and four hidden layers, and one without a bound, trained on digits."""
    repository = tmp_path_factory.mktemp("repository")
    for name, settings in NETWORKS.items():
        config = FitConfig(
            dataset="digits", repository=repository, name=name, epochs=15, compare=(), report=False, **settings
        )
        train(config, load(config))
    with TestClient(create_app(Settings(repository=repository, trail=repository / ".trail", device="cpu"))) as client:
        yield client


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    """The test rows of digits, as the training split them off."""
    config = FitConfig(dataset="digits")
    table = load(config)
    parts = split(table, test_share=config.test_share, calibration_share=config.calibration_share, seed=config.seed)
    return table.x[parts.test]


def predict(client: TestClient, name: str, rows: NDArray[np.float32]) -> list[dict[str, Any]]:
    """The predictions of `/v1`."""
    answer = client.post(f"/v1/models/{name}/predict", json={"instances": rows.tolist()})
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def logits(client: TestClient, name: str, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logits of `/v2`, [rows, classes]."""
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    answer = client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor], "outputs": [{"name": "logits"}]})
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


@pytest.mark.parametrize("name", ["two", "four"])
@pytest.mark.parametrize("factor", [10, 1000])
def test_every_row_far_outside_is_flagged(
    client: TestClient, images: NDArray[np.float32], name: str, factor: int
) -> None:
    """Test images 10 and 1,000 times as bright: finite predictions, all of them out of range and critical."""
    sensitivities = [prediction["sensitivity"] for prediction in predict(client, name, factor * images)]
    assert len(images) == sum(sensitivity["out_of_range"] for sensitivity in sensitivities)
    assert {"critical"} == {sensitivity["verdict"] for sensitivity in sensitivities}
    assert all(np.isfinite(sensitivity["gradient_norm"]) for sensitivity in sensitivities)


@pytest.mark.parametrize("name", ["two", "four"])
def test_ordinary_rows_are_not_flagged(client: TestClient, images: NDArray[np.float32], name: str) -> None:
    """The same images as they are: at most a few in a hundred are out of range."""
    flagged = sum(prediction["sensitivity"]["out_of_range"] for prediction in predict(client, name, images))
    assert flagged <= 0.03 * len(images)


@pytest.mark.parametrize("name", ["two", "four"])
def test_outputs_grow_at_most_linearly(client: TestClient, images: NDArray[np.float32], name: str) -> None:
    """The slope from 10³ to 10⁴ times as bright is that from 10⁴ to 10⁵: any power above one would multiply it."""
    near, far, farther = (logits(client, name, factor * images) for factor in (1e3, 1e4, 1e5))
    slope = np.linalg.norm(far - near, axis=1) / 9e3
    next_slope = np.linalg.norm(farther - far, axis=1) / 9e4
    assert (next_slope <= 1.01 * slope).all()


def test_rows_that_overflow_an_unbounded_network_are_errors(client: TestClient, images: NDArray[np.float32]) -> None:
    """Without a bound the far rows have an error each, the ordinary ones their predictions, and nothing is null."""
    rows = np.concatenate([images[:5], 1e6 * images[:5]])
    predictions = predict(client, "unbounded", rows)
    assert 5 * [True] == ["sensitivity" in prediction for prediction in predictions[:5]]
    assert 5 * ["/problems/non-finite-output"] == [prediction["error"]["type"] for prediction in predictions[5:]]
    assert 5 * [["error"]] == [list(prediction) for prediction in predictions[5:]]
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    refused = client.post("/v2/models/unbounded/infer", json={"inputs": [tensor]})
    assert 422 == refused.status_code
    assert "NaN or infinity for row 5 and 4 more" in refused.json()["error"]
