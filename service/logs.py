"""Logs: one event a line, as text or as JSON, with request ids and never with what a request says.

Errors name what came to their caller; the log has the kind of the error only. The path of a request is logged in
part, escaped, without its query.
"""

import logging
from typing import Any

import orjson
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

from service.errors import shown
from service.settings import Settings

requests = logging.getLogger("service.requests")
ORDINARY = frozenset({*RESERVED_ATTRS, "color_message"})  # the latter is uvicorn's
QUIET = "/v2/health/"  # asked every few seconds by whatever watches the service


class TextFormatter(logging.Formatter):
    """A line for a person, with the fields of the event behind it."""

    def __init__(self) -> None:
        """Time, level, logger, message."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Write the line; values are escaped as JSON has it, so that none begins a line of its own."""
        fields = {name: value for name, value in vars(record).items() if name not in ORDINARY}
        text = "".join(f" {name}={orjson.dumps(value, default=str).decode()}" for name, value in fields.items())
        return escaped(super().format(record) + text)


def escaped(line: str) -> str:
    """What a terminal or a reader of lines would not show as it is, as an escape sequence."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def install(settings: Settings) -> None:
    """Send the logs of this process to standard error."""
    formatter: logging.Formatter = TextFormatter()
    if settings.log_format == "json":
        formatter = OrjsonFormatter(
            "%(levelname)s %(name)s %(process)d %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "process": "pid", "message": "event"},
            timestamp="time",
            reserved_attrs=sorted(ORDINARY),
        )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


def request(scope: Any, request_id: str, status: int, seconds: float) -> None:
    """Log a request that has been answered."""
    if scope["path"].startswith(QUIET):
        return
    requests.log(
        logging.INFO if status < 500 else logging.WARNING,
        "request",
        extra={
            "request_id": request_id,
            "method": scope["method"],
            "path": shown(scope["path"]),
            "status": int(status),
            "milliseconds": round(seconds * 1e3, 3),
        },
    )
