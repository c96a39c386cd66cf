"""Inputs that records keep no values of, found again in a file by their keyed digests (HMAC).

All rows of the file are held in memory, once for each model that records name: a row of 784 features takes 3 KB.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from service.audit.readers.data import Data, open_reader
from service.audit.replay.recorded import Document, digest_of_input, values
from service.features import Features
from service.trail.inputs import Inputs, Kept


class KnownInputs:
    """Gives the inputs of records: from the records themselves, else from a file."""

    def __init__(self, data: Data | None, key: bytes | None) -> None:
        """Take a file and the key of its digests; without them, what the records hold is all there is."""
        self._data = data
        self._key = key
        self._features: dict[str, Features] = {}
        self._rows: dict[str, dict[str, NDArray[np.float32]]] = {}

    def find(self, digest: str, manifest: Manifest, document: Document) -> NDArray[np.float32] | str:
        """The input of a record [features], or why there is none.

        Args:
            digest: of the bundle.
            manifest: of the bundle.
            document: of a prediction.

        Raises:
            MalformedBodyError: the file is not of its format.
            InvalidInputError: a row of it is not what the model takes.
        """
        if digest not in self._features:
            self._features[digest] = Features.of(manifest)
        features = self._features[digest]
        own = values(document, features)
        if own is not None:
            return own
        kept = (document["input"] or {}).get("values")
        if kept is not None and len(kept) != features.width:
            return "the input has another number of features"
        keyed = digest_of_input(document)
        if keyed is None:
            return "the record keeps nothing of the input"
        if self._data is None or self._key is None:
            why = "the input is a digest" if kept is None else "some values of the input are redacted"
            return f"{why}, and no --inputs are given"
        if digest not in self._rows:
            self._rows[digest] = self._read(manifest, features, self._data, self._key)
        found = self._rows[digest].get(keyed)
        return "no row of --inputs has the digest of the input" if found is None else found

    @staticmethod
    def _read(manifest: Manifest, features: Features, data: Data, key: bytes) -> dict[str, NDArray[np.float32]]:
        inputs = Inputs(Kept("hmac", key, frozenset()), features)
        return {
            inputs.digest(row): row
            for batch in open_reader(data, manifest, None)
            for row in np.ascontiguousarray(batch.x, "<f4")
        }


def key_file(folder: Path, given: Path | None) -> Path | None:
    """Where the key is: as given, else in the trail's folder, if it is there."""
    from service.trail.keys import HMAC_KEY

    if given is not None:
        return given
    return folder / HMAC_KEY if (folder / HMAC_KEY).is_file() else None
