"""The command line: flags from the settings, by pydantic-settings and argparse; the file of --config beneath them."""

import json
import re
from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    CliSubCommand,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as ParsingError

from training.commands.settings import COMMANDS, HEADINGS, Command, FitCommand, FoldsCommand, TuneCommand
from training.config import FitConfig
from training.errors import SettingsError
from training.settings import did_you_mean, validated
from training.settings_file import TABLES, read_settings

PROGRAM = "chainzrule-train"


class Train(BaseSettings):
    """Train ChainzRule networks: models whose every prediction comes with its sensitivity."""

    model_config = SettingsConfigDict(
        cli_prog_name=PROGRAM,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    fit: CliSubCommand[FitCommand]
    tune: CliSubCommand[TuneCommand]
    folds: CliSubCommand[FoldsCommand]


def parse(arguments: Sequence[str]) -> Command:
    """The settings of the command that was asked for.

    Args:
        arguments: as on the command line, without the program's name.

    Raises:
        SettingsError: they are no command line, or a setting does not fit. Each line is one problem.
        SystemExit: help was asked for, and printed.
    """
    try:
        parsed = _source(arguments[0] if arguments else "")(args=list(arguments))()
    except ParsingError as error:
        raise SettingsError(_of_parsing(str(error))) from error
    name = next((name for name in COMMANDS if isinstance(parsed.get(name), dict)), None)
    if name is None:
        raise SettingsError(f"expected a command, one of {', '.join(COMMANDS)}, got none")
    model, flags = COMMANDS[name], parsed[name]
    path = flags.get("config")
    read = read_settings(Path(path), model) if path else {}
    merged = {**read, **flags}
    for table in TABLES:  # by column
        if table in read and table in flags:
            merged[table] = {**_mapping(read[table]), **_mapping(flags[table])}

    def label(field: str) -> str:
        if field in read and field not in flags:
            return f"{path}: {field}"
        return "DATASET" if field == "dataset" else "--" + field.replace("_", "-")

    command = validated(model, merged, label)
    if not isinstance(command, FitCommand | TuneCommand | FoldsCommand):
        raise TypeError(f"expected a command's settings, got {type(command).__name__}")
    return command


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _of_parsing(message: str) -> str:
    """What pydantic-settings says of a value, with the flag that it is of."""
    found = re.search(r"for \w+\.(\w+): (.*)", message, re.DOTALL)
    return f"--{found[1].replace('_', '-')}: {found[2]}" if found else message


def _source(command: str) -> CliSettingsSource[ArgumentParser]:
    """The parser, which hints at the flags of this command where one is unknown; of all, where it is no command."""
    groups: dict[str, dict[str, Any]] = {}  # argparse has no public name for the type of a group

    def add_argument(parser: ArgumentParser, *names: str, **settings: Any) -> Action:
        """Put a flag under its heading, with its default as a user would write it."""
        place = settings.get("dest", names[0])
        command, _, field = place.partition(".")
        described = COMMANDS[command].model_fields[field] if command in COMMANDS else None
        if described is None:
            return parser.add_argument(*names, **settings)
        settings["help"] = _help(described).replace("%", "%%")
        if "dest" not in settings:  # the data set, which the file may name
            return parser.add_argument(*names, **{**settings, "nargs": "?"})
        if "metavar" in settings:
            settings["metavar"] = _metavar(str(settings["metavar"]), field)
        if field in TABLES:
            settings["action"] = _Texts if field == "missing" else _Pairs
        if command not in groups:  # all of them at once, for --help keeps their order; it leaves out the empty ones
            groups[command] = {heading: parser.add_argument_group(heading) for heading in HEADINGS}
        heading = next((heading for heading, fields in HEADINGS.items() if field in fields), None)
        action: Action = (groups[command][heading] if heading else parser).add_argument(*names, **settings)
        return action

    def add_parser(subparsers: Any, name: str, **settings: Any) -> ArgumentParser:
        """A command whose usage is a line, and not its fifty flags."""
        usage = f"{PROGRAM} {name} [DATASET] [--config FILE] [flags]"
        parser: ArgumentParser = subparsers.add_parser(
            name, **{**settings, "usage": usage, "help": settings["description"]}
        )
        return parser

    return CliSettingsSource(
        Train,
        root_parser=_Parser(prog=PROGRAM, description=Train.__doc__, allow_abbrev=False, command=command),
        parse_args_method=ArgumentParser.parse_args,
        add_argument_method=add_argument,
        add_parser_method=add_parser,
    )


class _Parser(ArgumentParser):
    """One line for what is wrong, and an exit of the caller's own."""

    def __init__(self, *, command: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        self._command = command

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        hint = _hint(unknown[1], self._command) if unknown else ""
        raise SettingsError(f"{message.removeprefix('argument ')}{hint}")


def _hint(flag: str, command: str) -> str:
    """Where an unknown flag belongs, or how it may have been meant."""
    flags = {name: _flags(model) for name, model in COMMANDS.items()}
    others = [name for name in COMMANDS if flag in flags[name]]
    if others:
        return f" ({flag} is a flag of {' and '.join(f'`{name}`' for name in others)})"
    known = flags.get(command) or {each: name for of_one in flags.values() for each, name in of_one.items()}
    return did_you_mean(flag, known)


def _flags(model: type[FitConfig]) -> dict[str, str]:
    """The fields by their flags, switches by both of theirs."""
    flags = {}
    for name, field in model.model_fields.items():
        if name != "dataset":
            flags["--" + name.replace("_", "-")] = name
            if field.annotation is bool:
                flags["--no-" + name.replace("_", "-")] = name
    return flags


class _Pairs(Action):
    """`--units age=years`, as often as there are columns; or one JSON object."""

    def __call__(
        self,
        parser: ArgumentParser,  # noqa: ARG002  (argparse passes it)
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002  (argparse passes it)
    ) -> None:
        """Add a pair to those that came before."""
        text = str(values)
        given = getattr(namespace, self.dest, None)
        known: dict[str, Any] = json.loads(given[0]) if isinstance(given, list) else {}
        if text.startswith("{"):
            try:
                known.update(json.loads(text))
            except ValueError as error:
                raise ArgumentError(self, f"expected a JSON object, got {text!r}: {error}") from error
        else:
            column, equals, value = text.partition("=")
            if not column or not equals:
                raise ArgumentError(self, f"expected COLUMN=…, got {text!r}")
            self.put(known, column, value)
        setattr(namespace, self.dest, [json.dumps(known)])

    def put(self, known: dict[str, Any], column: str, value: str) -> None:
        """Keep what is said of a column."""
        known[column] = value


class _Texts(_Pairs):
    """`--missing insulin=0,?`: several texts, separated by commas."""

    def put(self, known: dict[str, Any], column: str, value: str) -> None:
        """Add to what is said of a column."""
        known[column] = [*known.get(column, []), *value.split(",")]


def _help(field: FieldInfo) -> str:
    """Description and default: no default where there is none to speak of, or the description gives it."""
    text = field.description or ""
    default = field.get_default()
    if field.is_required() or default is None or default is False or default == () or default == {}:
        return text
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    if isinstance(default, tuple):
        shown = ",".join(map(str, default))
    return f"{text} (default: {'yes' if default is True else shown})"


def _metavar(given: str, field: str) -> str:
    if field in TABLES:
        return "COLUMN=TEXT,..." if field == "missing" else "COLUMN=UNIT"
    found = re.fullmatch(r"tuple\[(.*)\]", given)
    return (found[1] if found else given).replace("str", "text").replace("Path", "path")
