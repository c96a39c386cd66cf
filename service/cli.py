"""`chainzrule-serve`: the service, on the command line."""

import logging
import signal
import socket
import sys

import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp

from service.app import create_app
from service.errors import ServiceError, StartError
from service.settings import Settings


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; exits with 2 and one message a problem where the settings are at fault."""
    try:
        settings = CliApp.run(Settings, cli_args=sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        _check_port(settings)
        app = create_app(settings)
    except ValidationError as error:
        for problem in error.errors():
            setting = ".".join(map(str, problem["loc"]))
            message = f"{setting}: {problem['msg']}, got {problem['input']!r}" if setting else problem["msg"]
            print(f"chainzrule-serve: {message}", file=sys.stderr)
        sys.exit(2)
    except ServiceError as error:
        print(f"chainzrule-serve: {error}", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("uvicorn.access").addFilter(lambda record: "/v2/health/" not in record.getMessage())
    # uvicorn drains on SIGTERM and then raises it again, to end as by a signal: an asked-for end is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(app, host=settings.host, port=settings.port, log_config=None)


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
