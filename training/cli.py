"""`chainzrule-train`: from data to a bundle, on the command line."""

import sys

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSubCommand,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from model.errors import ModelError
from training.config import FitConfig
from training.errors import TrainingError


class Train(BaseSettings):
    """Train ChainzRule networks: models whose every prediction comes with its sensitivity."""

    model_config = SettingsConfigDict(
        cli_prog_name="chainzrule-train",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    fit: CliSubCommand[FitConfig]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (pydantic-settings passes it by name)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing from the environment here: flags, and what `training.config` names."""
        return (init_settings,)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exits with 2 and one message a problem where the input is at fault."""
    try:
        command = CliApp.run(Train, cli_args=sys.argv[1:] if arguments is None else arguments)
        config = get_subcommand(command, is_required=True, cli_exit_on_error=False)
    except SettingsError as error:
        print(f"chainzrule-train: {error} (see chainzrule-train --help)", file=sys.stderr)
        sys.exit(2)
    except ValidationError as error:
        problems = {str(problem["loc"][1]): problem for problem in reversed(error.errors())}  # the first of each flag
        for field, problem in reversed(problems.items()):
            flag = "--" + field.replace("_", "-")
            print(f"chainzrule-train: {flag}: {problem['msg']}, got {problem['input']!r}", file=sys.stderr)
        sys.exit(2)
    try:
        match config:
            case FitConfig():
                _fit(config)
    except ModuleNotFoundError as error:
        print(f"chainzrule-train: {error}; install it with: pip install 'chainzrule[train]'", file=sys.stderr)
        sys.exit(1)
    except (TrainingError, ModelError) as error:
        print(f"chainzrule-train: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("chainzrule-train: interrupted, no bundle was written", file=sys.stderr)
        sys.exit(130)


def _fit(config: FitConfig) -> None:
    # Here, so that --help and a wrong flag need not wait for torch.
    from rich.console import Console

    from training.data.load import load
    from training.pipeline import train
    from training.progress import TrainingProgress, notes, summary

    console = Console()
    table = load(config)
    console.out(
        f"{table.name}: {len(table.y):,} rows, {len(table.features)} features, {table.task} of {table.target!r}"
        + (f" into {len(table.classes)} classes" if table.classes else ""),
        highlight=False,
    )
    with TrainingProgress(console) as progress:
        result = train(config, table, progress.epoch)
    console.print(summary(result.manifest))
    for note in notes(config, result.manifest):
        console.out(f"Note: {note}", highlight=False)
    console.out(
        f"Bundle written to {result.path}\nServe it with: chainzrule-serve --repository {config.repository}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
