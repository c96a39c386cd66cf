"""This model beside others, trained and tested on the same rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from model.manifest import Distribution, Interval, Manifest
from training.report.charts.whiskers import Dot, whiskers
from training.report.words import OWN_NAME, label, metric, number, primary


@dataclass(frozen=True)
class Model:
    """One line of the table."""

    name: str
    own: bool
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    gradient_norm: Distribution | None
    parameters: int | None
    seconds: float | None


@dataclass(frozen=True)
class ComparisonSection:
    """All models, this one first."""

    models: tuple[Model, ...]
    names: tuple[str, ...]
    """Of the metrics."""
    primary: str
    plot: Markup | None
    steepness: Markup | None
    """p99 of the gradient norm; None where no other model has one."""
    intervals: bool
    """Whether there are any."""


def comparison(manifest: Manifest) -> ComparisonSection:
    """Put the models side by side."""
    own = manifest.evaluation
    seconds = manifest.provenance.training_seconds
    models = [Model(OWN_NAME, True, own.metrics, own.intervals, own.gradient_norm, own.parameters, seconds)]
    models += [
        Model(one.name, False, one.metrics, one.intervals, one.gradient_norm, one.parameters, one.training_seconds)
        for one in manifest.comparisons
    ]
    names = tuple(dict.fromkeys(name for model in models for name in model.metrics))
    first = primary(manifest)
    dots = [
        Dot(
            model.name, model.metrics[first], model.intervals.get(first), model.own, metric(model.metrics[first], first)
        )
        for model in models
        if first in model.metrics
    ]
    return ComparisonSection(
        models=tuple(models),
        names=names,
        primary=first,
        plot=whiskers(_in_percent(dots), "accuracy, %") if first == "accuracy" else _other(dots, first),
        steepness=_steepness(models),
        intervals=any(model.intervals for model in models),
    )


def _in_percent(dots: list[Dot]) -> list[Dot]:
    return [
        Dot(
            dot.name,
            100 * dot.value,
            None if dot.interval is None else (100 * dot.interval[0], 100 * dot.interval[1]),
            dot.own,
            dot.text,
        )
        for dot in dots
    ]


def _steepness(models: list[Model]) -> Markup | None:
    dots = [
        Dot(model.name, model.gradient_norm.p99, None, model.own, number(model.gradient_norm.p99))
        for model in models
        if model.gradient_norm is not None
    ]
    return whiskers(dots, "gradient norm, p99", from_zero=True) if len(dots) > 1 else None


def _other(dots: list[Dot], name: str) -> Markup | None:
    return whiskers(dots, label(name)) if dots else None
