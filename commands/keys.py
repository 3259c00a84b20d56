"""`touchline keys`: throwaway keys of a miner and a validator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.terminal import CommandError, aside
from local.stack import make_keys


def command(
    directory: Annotated[Path, typer.Argument(help="Folder to write into, or of keys that were made before.")],
) -> None:
    """Make throwaway keys of a miner and a validator, to try `serve` and `challenge --keys` without a wallet."""
    try:
        made = make_keys(directory)
    except OSError as error:
        raise CommandError(f"keys cannot be kept in {directory}: {error.strerror}; name another folder") from error
    except (ValueError, KeyError) as error:
        raise CommandError(
            f"{directory} holds a key file that is not of `touchline keys`; name another folder"
        ) from error
    aside.print("Start the gateway with these settings:")
    for name, value in made.environment().items():
        print(f"export {name}={value}")
