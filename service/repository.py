"""The repository: which bundles of a folder are served, and how they come and go while serving.

What serves is replaced in one assignment, after the new version has been read, checked and warmed: a request finds the
old version or the new one, and keeps the one that it found until it is answered. A version that cannot be loaded leaves
what served before as it was; why, is told in the index.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from model import bundle
from service.errors import LoadError, StartError, UnknownModelError, shown
from service.readiness import Check, Status
from service.runtime import Runtime
from service.sensitivity import Judge
from service.served import ServedModel
from service.settings import Settings

log = logging.getLogger(__name__)

Fingerprint = tuple[tuple[int, int, int], ...]


class State(StrEnum):
    """Of a version; the words are those of the model repository extension."""

    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class Entry:
    """A version of a model that is served, or could be."""

    name: str
    version: str
    state: State
    reason: str = ""
    """Why it is not served, or why it could not be loaded anew."""


@dataclass(frozen=True)
class Refused:
    """A version that could not be loaded."""

    reason: str
    fingerprint: Fingerprint
    """Of its files when that was tried: it is tried again once they change."""


class Watcher(Protocol):
    """Is told of each version that was loaded (with its digest), refused (None, not well) or retired (None, well)."""

    def __call__(self, model: str, version: int, digest: str | None, *, well: bool) -> None:
        """Take note."""


def unwatched(model: str, version: int, digest: str | None, *, well: bool) -> None:
    """Take no note."""


class Repository:
    """The models that are served, by name and version. Loading blocks; looking up does not."""

    def __init__(self, settings: Settings, runtime: Runtime, watch: Watcher = unwatched) -> None:
        """Look at nothing yet.

        Args:
            settings: where the bundles are, and which versions are wanted.
            runtime: makes the sessions.
            watch: is told of what comes and goes.

        Raises:
            StartError: the repository is no folder.
        """
        if not settings.repository.is_dir():
            raise StartError(f"repository: expected a folder of bundles, got {settings.repository}, which is none")
        self._settings = settings
        self._folder = settings.repository
        self._runtime = runtime
        self._watch = watch
        self._lock = threading.RLock()
        self._served: dict[str, dict[int, ServedModel]] = {}
        self._fingerprints: dict[tuple[str, int], Fingerprint] = {}
        self._refused: dict[tuple[str, str], Refused] = {}
        self._unloaded: frozenset[str] = frozenset()

    # Looking up

    @property
    def ready(self) -> bool:
        """Whether there is a model to serve."""
        return bool(self._served)

    def check(self) -> Check:
        """What readiness says of it: without a model to serve there is nothing to answer with."""
        return Check(Status.PASS if self.ready else Status.FAIL, {"served": len(self.served())})

    def names(self) -> list[str]:
        """The models that are served, in alphabetical order."""
        return sorted(self._served)

    def served(self) -> list[ServedModel]:
        """Every version of every model that is served, by name and version."""
        served = self._served
        return [model for name in sorted(served) for model in served[name].values()]

    def versions(self, name: str) -> dict[int, ServedModel]:
        """Every served version of a model, lowest first; raises UnknownModelError where there is none."""
        versions = self._served.get(name)
        if versions:
            return versions
        served = ", ".join(repr(known) for known in self.names()) or "none"
        raise UnknownModelError(
            f"model: expected one of those served ({served}), got {shown(name)!r}" + self._why(name)
        )

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

    def _why(self, name: str, version: str | None = None) -> str:
        """Why a model, or one version of it, is not served, for a message; nothing where that is not known."""
        if name in self._unloaded:
            return "; it was unloaded"
        for (refused, number), refusal in list(self._refused.items()):
            if refused == name and version in {None, number}:
                return f"; version {number} was refused: {refusal.reason}"
        return ""

    def index(self) -> list[Entry]:
        """Every version that serves, was refused, or lies in the folder without being wanted; reads the folder."""
        served = self._served
        entries = [
            Entry(name, str(version), State.READY, self._reason(name, version))
            for name, versions in served.items()
            for version in versions
        ]
        listed = {(entry.name, entry.version) for entry in entries}
        entries += [
            Entry(name, version, State.UNAVAILABLE, refusal.reason)
            for (name, version), refusal in list(self._refused.items())
            if (name, version) not in listed
        ]
        listed |= set(self._refused)
        for name in self._names_on_disk() or ():
            try:
                on_disk = bundle.versions(self._folder, name)
            except OSError:
                continue
            reason = "unloaded" if name in self._unloaded else "not loaded, or not among the versions that are wanted"
            entries += [
                Entry(name, str(version), State.UNAVAILABLE, reason)
                for version in on_disk
                if (name, str(version)) not in listed
            ]
        return sorted(entries, key=lambda entry: (entry.name, entry.version.rjust(20, "0")))

    def _reason(self, name: str, version: int) -> str:
        refusal = self._refused.get((name, str(version)))
        return f"loading it anew failed, the version before still serves: {refusal.reason}" if refusal else ""

    def refused(self) -> list[Entry]:
        """The versions that could not be loaded, and why."""
        return [entry for entry in self.index() if (entry.name, entry.version) in self._refused]

    # Loading and unloading

    def refresh(self) -> None:
        """Make what is served follow the folder, but for models that were unloaded; only what changed is read."""
        with self._lock:
            on_disk = self._names_on_disk()
            if on_disk is None:
                return  # what serves goes on serving
            for name in sorted({*on_disk, *self._served, *(name for name, _ in self._refused)}):
                if name not in self._unloaded:
                    self._follow(name, anew=False)
            for name, wanted in self._settings.pins().items():
                if name not in self._served and name not in self._unloaded:
                    log.warning("model %s is pinned to %s, and no such version of it can be served", name, wanted)
            for name, reaction in self._settings.reactions().items():
                if name not in self._served and name not in self._unloaded:
                    log.warning("model %s is to %s what is critical, and is not served", name, reaction)
            known = {name for model in self.served() for name in model.features.names}
            for name in sorted(self._settings.redacted() - known):
                log.warning(
                    "no model that is served has a feature %r, which redact names: nothing is left out by it", name
                )
            if not self._served:
                log.warning("no <model>/<version>/ to serve in the repository: not ready")

    def load(self, name: str) -> None:
        """Load the wanted versions of a model, or load them anew.

        Raises:
            UnknownModelError: the repository has no version of it that is wanted.
            LoadError: a version could not be loaded. Every other one was, and what served before still does.
        """
        with self._lock:
            on_disk = self._names_on_disk()
            if on_disk is None:
                raise LoadError("the repository cannot be read now")
            if name not in on_disk:
                if name in self._served or any(name == refused for refused, _ in self._refused):
                    self._follow(name, anew=False)  # it is gone from the folder now
                raise UnknownModelError(f"model: expected a folder of the repository, got {shown(name)!r}")
            self._unloaded -= {name}
            self._follow(name, anew=True)
            refused = [
                f"version {version}: {refusal.reason}" if version else refusal.reason
                for (refused, version), refusal in self._refused.items()
                if refused == name
            ]
            if refused:
                raise LoadError(f"model {name!r} could not be loaded: {'; '.join(refused)}")
            if name not in self._served:
                wanted = self._settings.policy(name)
                raise UnknownModelError(f"model {name!r}: expected a version that is wanted ({wanted}), got none")

    def unload(self, name: str) -> None:
        """Serve a model no more, until it is loaded; requests that found it are answered.

        Raises:
            UnknownModelError: it is not served.
        """
        with self._lock:
            known = name in self._served or any(name == refused for refused, _ in self._refused)
            if known or name in (self._names_on_disk() or ()):
                self._unloaded |= {name}  # also where it does not serve yet: it must not begin to
            self.versions(name)
            self._replace(name, {})

    def unloaded(self) -> frozenset[str]:
        """The models that were unloaded."""
        return self._unloaded

    def keep_unloaded(self, names: frozenset[str]) -> None:
        """Do not load these, as another process was told."""
        self._unloaded = names

    def _names_on_disk(self) -> list[str] | None:
        """The folders of the repository; None where it cannot be read."""
        try:
            folders = sorted(self._folder.iterdir())
        except OSError as error:
            log.warning("cannot read the repository: %s", error.strerror)
            return None
        return [folder.name for folder in folders if folder.is_dir() and not folder.name.startswith(".")]

    def _follow(self, name: str, *, anew: bool) -> None:
        """Make the served versions of one model those that are wanted and can be loaded."""
        try:
            on_disk = bundle.versions(self._folder, name)
        except OSError as error:  # lost+found, for one, which only root may read
            self._refuse(name, "", Refused(str(error), ()))
            return
        served = self._served.get(name, {})
        kept: dict[int, ServedModel] = {}
        wanted, enough = self._wanted(name, on_disk)
        tried: set[str] = set()
        for version in wanted:
            if len(kept) == enough:
                break
            tried.add(str(version))
            model = self._version(name, version, served.get(version), anew=anew)
            if model is not None:
                kept[version] = model
        for refused, number in list(self._refused):
            if refused == name and number not in tried:
                del self._refused[refused, number]
        self._replace(name, dict(sorted(kept.items())))

    def _wanted(self, name: str, on_disk: list[int]) -> tuple[list[int], int]:
        """The versions to try, highest first, and how many of them are enough."""
        policy = self._settings.policy(name)
        highest_first = sorted(on_disk, reverse=True)
        if policy == "all":
            return highest_first, len(highest_first)
        if policy.startswith("latest"):
            return highest_first, int(policy.partition(":")[2] or 1)
        chosen = {int(version) for version in policy.split("+")}
        return [version for version in highest_first if version in chosen], len(chosen)

    def _version(self, name: str, version: int, serving: ServedModel | None, *, anew: bool) -> ServedModel | None:
        """The version as it is on disk, or as it serves where that cannot be loaded; None where there is neither."""
        key = (name, str(version))
        fingerprint = _fingerprint(self._folder / name / str(version))
        refusal = self._refused.get(key)
        if not anew:
            if refusal is not None and refusal.fingerprint == fingerprint:
                return serving
            if serving is not None and self._fingerprints.get((name, version)) == fingerprint:
                return serving
        try:
            read = bundle.read(self._folder / name / str(version))
            if serving is not None and read.digest == serving.digest:
                model = serving
            else:
                judge = Judge(read.manifest, self._settings.elevated_percentile, self._settings.critical_percentile)
                reaction = self._settings.reaction(name)
                model = ServedModel(read, self._runtime, judge, self._settings.max_batch_rows, reaction)
        except Exception as error:  # noqa: BLE001  (whatever one bundle does, the others are served)
            self._refuse(name, str(version), Refused(str(error), fingerprint))
            return serving
        self._refused.pop(key, None)
        self._fingerprints[name, version] = fingerprint
        if model is not serving:
            log.info(
                "serving %s version %d on %s",
                name,
                version,
                self._runtime.execution.provider,
                extra={"model": name, "version": version, "digest": model.digest},
            )
            self._watch(name, version, model.digest, well=True)
        return model

    def _refuse(self, name: str, version: str, refusal: Refused) -> None:
        if self._refused.get((name, version)) != refusal:
            log.warning(
                "refused %s version %s: %s",
                name,
                version or "(any)",
                refusal.reason,
                extra={"model": name, "version": version},
            )
            if version:
                self._watch(name, int(version), None, well=False)
        self._refused[name, version] = refusal

    def _replace(self, name: str, versions: dict[int, ServedModel]) -> None:
        """Serve these versions of a model from now on."""
        before = self._served.get(name, {})
        others = {other: served for other, served in self._served.items() if other != name}
        self._served = {**others, name: versions} if versions else others
        for version in before.keys() - versions.keys():
            self._fingerprints.pop((name, version), None)
            log.info("no longer serving %s version %d", name, version, extra={"model": name, "version": version})
            self._watch(name, version, None, well=True)


def _fingerprint(path: Path) -> Fingerprint:
    """What changes when a bundle does: of the folder and each file in it inode, size and time of the last change."""

    def stats() -> Iterator[tuple[int, int, int]]:
        for part in (path, *sorted(path.iterdir())):
            stat = part.stat()
            yield stat.st_ino, stat.st_size, stat.st_mtime_ns

    try:
        return tuple(stats())
    except OSError:
        return ()
