"""`chainzrule-audit`: the auditor's tools, on the command line. Flags and exit codes; each verb is in `commands`."""

import os
import re
import sys
from argparse import Action, ArgumentParser
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    CliSubCommand,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from model.errors import ModelError
from service.audit.commands import INTERRUPTED, WRONG
from service.audit.commands.checkpoint import ShowCheckpoints
from service.audit.commands.evidence import CollectEvidence
from service.audit.commands.export import Export
from service.audit.commands.options import Command
from service.audit.commands.records import ShowRecords
from service.audit.commands.replay import ReplayRecords
from service.audit.commands.run import Run
from service.audit.commands.summary import Summary
from service.audit.commands.verify import Verify
from service.errors import ServiceError

NAME = "chainzrule-audit"


class Audit(BaseSettings):
    """Audit a ChainzRule model and the trail of its service: query, verify, export, compute anew, collect evidence."""

    model_config = SettingsConfigDict(
        cli_prog_name=NAME,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    run: CliSubCommand[Run] = Field(description="audit a data set against a bundle or a running service")
    records: CliSubCommand[ShowRecords] = Field(description="show records of the trail, or one in full")
    summary: CliSubCommand[Summary] = Field(description="sum up what was predicted in a time")
    verify: CliSubCommand[Verify] = Field(description="verify a trail, or an export of it")
    export: CliSubCommand[Export] = Field(description="write records into a file")
    replay: CliSubCommand[ReplayRecords] = Field(description="compute records anew from the bundles that they name")
    checkpoint: CliSubCommand[ShowCheckpoints] = Field(
        description="show the signed ends of the chains, or the public keys"
    )
    evidence: CliSubCommand[CollectEvidence] = Field(
        description="collect everything into a folder, with a page for auditors"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (pydantic-settings passes it by name)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing from the environment here: flags, and what `service.settings` names."""
        return (init_settings,)


def main(arguments: list[str] | None = None) -> None:
    """Run a verb and exit with its code; with 2 and one message a problem where it could not be done as asked."""
    try:
        audit = CliApp.run(
            Audit,
            cli_args=sys.argv[1:] if arguments is None else arguments,
            cli_settings_source=CliSettingsSource(Audit, add_argument_method=_add_argument),
        )
        command = get_subcommand(audit, is_required=True, cli_exit_on_error=False)
    except SettingsError as error:
        _refuse(f"{error} (see {NAME} --help)")
    except ValidationError as error:
        _refuse(*_problems(error))
    if not isinstance(command, Command):
        raise TypeError(f"expected a command, got {type(command).__name__}")
    try:
        code = command.execute()
        sys.stdout.flush()
    except ValidationError as error:  # of the service's settings, which the environment may have
        _refuse(*(f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one['input']!r}" for one in error.errors()))
    except ModuleNotFoundError as error:
        _refuse(f"{error}; install it with: pip install 'chainzrule[report]'")
    except (ServiceError, ModelError) as error:
        _refuse(str(error))
    except BrokenPipeError:  # as of `| head`: nobody wants the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python flushes to when it ends
        sys.exit(WRONG)
    except KeyboardInterrupt:
        print(f"{NAME}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(code)


def _add_argument(parser: ArgumentParser, *names: str, **settings: Any) -> Action:
    """Put a flag; its help gives no default where there is none to speak of."""
    if "help" in settings:
        settings["help"] = re.sub(r" \(default: (None|\(\))\)$", "", str(settings["help"]))
    return parser.add_argument(*names, **settings)


def _refuse(*messages: str) -> None:
    for message in messages:
        print(f"{NAME}: {message}", file=sys.stderr)
    sys.exit(WRONG)


def _problems(error: ValidationError) -> list[str]:
    """One message a flag, the first of each."""
    problems = {str(problem["loc"][1:2]): problem for problem in reversed(error.errors())}
    found = []
    for problem in reversed(problems.values()):
        message = problem["msg"].removeprefix("Value error, ")
        if len(problem["loc"]) > 1:
            flag = "--" + str(problem["loc"][1]).replace("_", "-")
            found.append(f"{flag}: {message}, got {problem['input']!r}")
        else:
            found.append(message)
    return found


if __name__ == "__main__":
    main()
