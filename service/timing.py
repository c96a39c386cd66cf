"""How long the stages of a request took."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Timing:
    """Seconds that the stages of a request took, in their order."""

    receive: float = 0.0
    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    encode: float = 0.0
    record: float = 0.0

    def stages(self) -> dict[str, float]:
        """Seconds by the name of the stage."""
        return asdict(self)

    def header(self) -> bytes:
        """As the header Server-Timing has it (W3C, Server Timing), in milliseconds."""
        return b", ".join(f"{stage};dur={seconds * 1e3:.3f}".encode() for stage, seconds in self.stages().items())
