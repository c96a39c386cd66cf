"""`chainzrule-train`: from data to a bundle, on the command line."""

import sys

from model.errors import ModelError
from training.commands.parser import PROGRAM, parse
from training.commands.settings import Command, FitCommand, FoldsCommand, TuneCommand
from training.config import STATE_FILE, FitConfig
from training.errors import SettingsError, TrainingError


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exits with 2 and one message a problem where the input is at fault, with 130 on Ctrl-C."""
    command = None
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        _run(command)
    except ModuleNotFoundError as error:
        print(f"{PROGRAM}: {error}; install it with: pip install 'chainzrule[train]'", file=sys.stderr)
        sys.exit(1)
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"{PROGRAM}: {line}", file=sys.stderr)
        sys.exit(2)
    except (TrainingError, ModelError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted, no bundle was written{_kept(command)}", file=sys.stderr)
        sys.exit(130)


def _kept(command: Command | None) -> str:
    """Where an interrupted command left the state that it can go on from; nothing where there is none."""
    if command is None or command.checkpoints is None or not any(command.checkpoints.glob(f"*/{STATE_FILE}")):
        return ""
    return f"; {command.checkpoints} holds the state after the last whole epoch, --resume goes on from it"


def _run(command: Command) -> None:
    # Imported here, so that --help and a wrong flag need not wait for torch.
    match command:
        case FitCommand():
            from training.commands import fit

            fit.run(FitConfig.model_validate({name: getattr(command, name) for name in FitConfig.model_fields}))
        case TuneCommand():
            from training.commands import tune

            tune.run(command)
        case FoldsCommand():
            from training.commands import folds

            folds.run(command)


if __name__ == "__main__":
    main()
