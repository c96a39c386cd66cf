"""The repository: every bundle of a folder, loaded; a bundle that is refused never keeps the others from serving."""

import logging
from dataclasses import dataclass
from pathlib import Path

from model import bundle
from service.errors import StartError, UnknownModelError, shown
from service.runtime import Runtime
from service.sensitivity import Judge
from service.served import ServedModel
from service.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """A bundle that is not served, and why."""

    name: str
    version: str
    reason: str


class Repository:
    """The models that are served, by name and version."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        """Raises StartError where the repository is no folder; nothing is loaded yet."""
        if not settings.repository.is_dir():
            raise StartError(f"repository: expected a folder of bundles, got {settings.repository}, which is none")
        self._settings = settings
        self._runtime = runtime
        self._models: dict[str, dict[int, ServedModel]] = {}
        self.refused: tuple[Refused, ...] = ()

    def load(self) -> None:
        """Load every version of every model of the folder; blocks."""
        refused: list[Refused] = []

        def refuse(name: str, version: str, error: Exception) -> None:
            refused.append(Refused(name, version, str(error)))
            log.warning("refused %s version %s: %s", name, version or "(any)", error)

        for folder in sorted(self._settings.repository.iterdir()):
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            try:
                versions = bundle.versions(self._settings.repository, folder.name)
            except OSError as error:  # lost+found, for one, which only root may read
                refuse(folder.name, "", error)
                continue
            for version in versions:
                try:
                    model = self._read(folder / str(version))
                except Exception as error:  # noqa: BLE001  (whatever one bundle does, the others are served)
                    refuse(folder.name, str(version), error)
                else:
                    self._models.setdefault(folder.name, {})[version] = model
                    log.info("serving %s version %d on %s", folder.name, version, self._runtime.execution.provider)
        self.refused = tuple(refused)
        if not self._models:
            log.warning("no <model>/<version>/ to serve in %s: not ready", self._settings.repository)

    def _read(self, path: Path) -> ServedModel:
        read = bundle.read(path)
        judge = Judge(read.manifest, self._settings.elevated_percentile, self._settings.critical_percentile)
        return ServedModel(read, self._runtime, judge)

    @property
    def ready(self) -> bool:
        """Whether there is a model to serve."""
        return bool(self._models)

    def names(self) -> list[str]:
        """The models that are served, in alphabetical order."""
        return sorted(self._models)

    def versions(self, name: str) -> dict[int, ServedModel]:
        """Every served version of a model, lowest first; raises UnknownModelError where there is none."""
        if name in self._models:
            return self._models[name]
        served = ", ".join(repr(known) for known in self.names()) or "none"
        raise UnknownModelError(
            f"model: expected one of those served ({served}), got {shown(name)!r}" + self._why(name)
        )

    def _why(self, name: str, version: str | None = None) -> str:
        """The reason for which a model, or one version of it, was refused, for a message; nothing if it was not."""
        for refused in self.refused:
            if refused.name == name and version in {None, refused.version}:
                return f"; version {refused.version} was refused: {refused.reason}"
        return ""

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """A version of a model, the highest one where none is named.

        Raises:
            UnknownModelError: it is not served. The message names what is.
        """
        versions = self.versions(name)
        if version is None:
            return versions[max(versions)]
        for number, model in versions.items():
            if str(number) == version:
                return model
        served = ", ".join(map(str, versions))
        raise UnknownModelError(
            f"version of model {name!r}: expected one of those served ({served}), got {shown(version)!r}"
            + self._why(name, version)
        )
