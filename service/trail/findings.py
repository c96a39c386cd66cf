"""What a verification finds: the chains that it went through, and everything that is not as it should be."""

from dataclasses import dataclass, field
from enum import StrEnum

from service.trail.chain import RecordId

MOST_PROBLEMS = 100
"""That are told one by one; all are counted."""


class Defect(StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    """A record is not there: removed, or cut off the end."""
    HASH = "hash"
    """A record's hash does not follow from its document and the record before it."""
    POSITION = "position"
    """A record stands where there can be none, or another than its document says."""
    DOCUMENT = "document"
    """A document cannot be read."""
    COLUMN = "column"
    """A column says something else than the document of its record."""
    TIME = "time"
    """A record is older than the one before it."""
    CHECKPOINT = "checkpoint"
    """A signed checkpoint states another hash than the record has."""
    HEAD = "head"
    """Another writer, when it began, saw another hash than the record has."""
    SIGNATURE = "signature"
    """A checkpoint or tombstone is not signed by a key that is trusted, or cannot be read."""
    TOMBSTONE = "tombstone"
    """Records were removed in another way than the tombstones say."""
    SEGMENT = "segment"
    """The sums over a run of records are not those of the records."""
    WRITER = "writer"
    """A writer is not the one that its first record says."""


class Trust(StrEnum):
    """Where the public keys come from."""

    GIVEN = "given"
    """From outside: who rewrites the trail cannot sign in their name."""
    TRAIL = "trail"
    """From the trail itself: who can rewrite all of it can put in a key of their own."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be."""

    record: RecordId
    """Where: the record itself, or the first one that is concerned."""
    defect: Defect
    expected: str
    found: str

    @property
    def rank(self) -> tuple[bool, RecordId]:
        """Lowest record first; sums, which begin before the record that spoils them, after everything else."""
        return self.defect is Defect.SEGMENT, self.record

    def __str__(self) -> str:
        return f"record {self.record}: {self.defect.value}: expected {self.expected}, got {self.found}"


@dataclass(frozen=True)
class Span:
    """The part of a chain that was gone through."""

    writer: int
    first: int
    last: int
    """Less than `first` where there is no record."""
    hash: str
    """Of the last record, in hexadecimal digits: to be kept, and compared next time."""


@dataclass(frozen=True)
class Verification:
    """The result."""

    ok: bool
    trust: Trust
    chains: list[Span]
    records: int
    checkpoints: int
    """That were compared with a record's hash."""
    removed_checkpoints: int
    """Whose record has been removed for its age: only their signature was checked."""
    segments: int
    """Runs of records whose sums were compared with the records."""
    first: Problem | None
    """The one of the lowest record, by writer and position."""
    problems: list[Problem]
    """The first hundred."""
    problem_count: int
    next: RecordId | None
    """From where to go on, where it ended before the end; None where all was gone through."""
    seconds: float


@dataclass
class Findings:
    """Collects them."""

    trust: Trust
    chains: list[Span] = field(default_factory=list)
    records: int = 0
    checkpoints: int = 0
    removed_checkpoints: int = 0
    segments: int = 0
    first: Problem | None = None
    problems: list[Problem] = field(default_factory=list)
    count: int = 0
    concerned: list[tuple[int, int]] = field(default_factory=list)
    """The positions of what was found in the records that are looked at now, from one to another."""

    def add(self, record: RecordId, defect: Defect, expected: str, found: str) -> None:
        """Take in a problem."""
        problem = Problem(record, defect, expected, found)
        self.count += 1
        self.concerned.append((record.position, record.position))
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)
        if self.first is None or problem.rank < self.first.rank:
            self.first = problem

    def verification(self, seconds: float, following: RecordId | None) -> Verification:
        """The result."""
        return Verification(
            ok=self.count == 0,
            trust=self.trust,
            chains=self.chains,
            records=self.records,
            checkpoints=self.checkpoints,
            removed_checkpoints=self.removed_checkpoints,
            segments=self.segments,
            first=self.first,
            problems=sorted(self.problems, key=lambda problem: problem.rank),
            problem_count=self.count,
            next=following,
            seconds=seconds,
        )
