"""The statistics extension: counts and times of each model version, read from the metrics of all worker processes."""

from collections.abc import Callable

from service.metrics import Samples
from service.oip.schemas import Duration, InferenceStatistics, ModelStatistics, Statistics

NANOSECONDS = 1e9
MILLISECONDS = 1e3


def statistics(samples: Samples, versions: list[tuple[str, str]]) -> Statistics:
    """What some versions of models have done.

    Args:
        samples: of every metric.
        versions: name and version of each.
    """
    return Statistics(model_stats=[_of_version(samples, name, version) for name, version in versions])


def _of_version(samples: Samples, name: str, version: str) -> ModelStatistics:
    def total(metric: str, where: Callable[[dict[str, str]], bool] = lambda _: True) -> float:
        return sum(
            value
            for sample, labels, value in samples
            if sample == f"chainzrule_{metric}"
            and (labels.get("model"), labels.get("version")) == (name, version)
            and where(labels)
        )

    def duration(metric: str) -> Duration:
        return Duration(count=int(total(f"{metric}_count")), ns=int(total(f"{metric}_sum") * NANOSECONDS))

    return ModelStatistics(
        name=name,
        version=version,
        last_inference=int(total("last_inference_timestamp_seconds") * MILLISECONDS),
        inference_count=int(total("rows_total")),
        execution_count=int(total("inference_seconds_count")),
        inference_stats=InferenceStatistics(
            success=duration("request_seconds"),
            fail=Duration(
                count=int(total("requests_total", lambda labels: labels["status"] != "200")),
                ns=int(total("failed_seconds_total") * NANOSECONDS),
            ),
            queue=duration("queue_seconds"),
            compute_input=duration("decode_seconds"),
            compute_infer=duration("inference_seconds"),
            compute_output=duration("encode_seconds"),
        ),
    )
