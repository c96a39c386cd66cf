"""Errors that the `model` package raises; each message names what was expected and what came."""


class ModelError(Exception):
    """Base of every error of this package."""


class ArchitectureError(ModelError, ValueError):
    """A network was asked for that cannot be built."""


class BundleError(ModelError):
    """A bundle on disk cannot be written, or cannot be trusted and is refused."""
