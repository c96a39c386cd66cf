"""Errors that the `training` package raises; each message names what was expected and what came."""


class TrainingError(Exception):
    """Base of every error of this package."""


class DataError(TrainingError):
    """A data set cannot be had, or cannot be trained on as it is."""


class DivergenceError(TrainingError):
    """The loss stopped being a finite number."""


class SettingsError(TrainingError, ValueError):
    """A setting is unknown, or out of its range."""
