"""What a verification is held against from outside, and what is said of the keys that were trusted."""

from collections.abc import Sequence
from pathlib import Path

from service.errors import InvalidInputError
from service.trail.anchors import read_published
from service.trail.checkpoint import Signed
from service.trail.keys import PublicKey

TRUST = {
    "given": "Signatures were checked with public keys from outside of the trail.",
    "trail": "Signatures were checked with the keys that the trail itself names: whoever could rewrite all of it could "
    "put in keys of their own. Give --public-key, and --checkpoints that were kept elsewhere, to rule that out.",
}


def keys_of(paths: Sequence[Path]) -> list[PublicKey] | None:
    """The public keys of some PEM files; None where there is none. Raises InvalidInputError."""
    keys = []
    for path in paths:
        try:
            keys.append(PublicKey.of_pem(path.read_bytes()))
        except OSError as error:
            raise InvalidInputError(f"{path}: cannot read it: {error.strerror or error}") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error}") from error
    return keys or None


def published_of(path: Path | None) -> list[Signed]:
    """The checkpoints of a file, one a line as they were published; raises InvalidInputError."""
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            return read_published(file)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot read it: {error.strerror or error}") from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}, {error}") from error
