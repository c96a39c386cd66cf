"""`chainzrule-serve`: the service, on the command line."""

import os
import re
import signal
import socket
import sys
import tempfile
from typing import Any

import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from service import logs
from service.app import create_app, settle
from service.errors import ServiceError, StartError
from service.protocol import BoundedProtocol
from service.settings import WORKER_FOLDER, Settings

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; exits with 2 and one message a problem where the settings are at fault."""
    try:
        settings = CliApp.run(Settings, cli_args=sys.argv[1:] if arguments is None else arguments)
        logs.install(settings)
        _check_port(settings)
        app = create_app(settings, settle)
    except ValidationError as error:
        for problem in error.errors():
            setting = ".".join(map(str, problem["loc"]))
            got = re.sub(r"://[^@/\s]*@", "://…@", repr(problem["input"]))  # a user's name and password
            message = f"{setting}: {problem['msg']}, got {got}" if setting else problem["msg"]
            print(f"chainzrule-serve: {message}", file=sys.stderr)
        sys.exit(2)
    except (ServiceError, SettingsError) as error:
        print(f"chainzrule-serve: {error}", file=sys.stderr)
        sys.exit(2)
    # uvicorn drains on SIGTERM and then raises it again, to end as by a signal: an asked-for end is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": BoundedProtocol,
        "log_config": None,
        "proxy_headers": False,  # anyone could say who calls: caller_header names the header of a proxy that is trusted
        "access_log": False,  # requests are logged by service.front
        "timeout_graceful_shutdown": max(1, round(settings.drain_seconds)),
    }
    if settings.workers == 1:
        BoundedProtocol.bound(settings.max_connections, settings.request_seconds)
        uvicorn.run(app, **options)
        return
    del app  # it was made to find out what is wrong; the workers make their own
    with tempfile.TemporaryDirectory(prefix="chainzrule-") as folder:
        settings.export()
        os.environ[WORKER_FOLDER] = os.environ[METRICS_FOLDER] = folder
        uvicorn.run("service.app:create_worker", factory=True, workers=settings.workers, **options)


def _check_port(settings: Settings) -> None:
    """Find a taken port before bundles are loaded; raises StartError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family):
            pass
    except OSError as error:
        where = f"{settings.host} port {settings.port}"
        raise StartError(f"expected to listen on {where}, got: {error.strerror}; --port names another") from error


if __name__ == "__main__":
    main()
