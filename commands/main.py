"""The command line: `touchline --help`. `touchline X` is commands/X.py, which is read when X is asked for."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from commands.terminal import CommandError, tell
from touchline import __version__

COMMANDS: Final = {
    "serve": "Run the gateway.",
    "doctor": "Say what is missing or wrong on this host, and what to do about it.",
    "settings": "List the settings: value, where it comes from, meaning.",
    "register": "Register the hotkey with the subnet and announce this miner's address.",
    "triton": "Run the local CPU Triton in the foreground.",
    "keys": "Make throwaway keys to try serve and challenge without a wallet.",
    "challenge": "Be a validator: sign a challenge, send it, check the answer and save it.",
    "score": "What a validator's public rules would give a saved answer, line by line.",
    "replay": "Answer kept challenges again under other settings or weights, and say what is worse.",
    "render": "Make the pictures of an answer: an annotated video and a contact sheet.",
    "export": "Turn YOLO weights into models that Triton serves.",
    "watch": "Watch cameras or video files: start Triton and the gateway for them, and say where to look.",
    "package": "Pack weights for the subnet's public track, or check such a package rule by rule.",
    "demo": "Answer a synthetic match on this machine and draw the answer.",
}
BENCH: Final = {
    "engine": "Throughput and latency of served models by batch size, ranked.",
    "challenge": "Stage times of a challenge; with --sweep, which settings suit the video.",
}
_LIBRARIES_ONLY_THERE: Final = {
    "package": "in a checkout: make .venv-export/.ready and .venv-export/bin/python -m commands.main package",
    "export": "the exporter's image has it (docker compose run --rm export), in a checkout: make .venv-export/.ready "
    "and .venv-export/bin/python -m commands.main export",
}
_THERE: Final = "the gateway's image has it (docker compose run --rm gateway), in a checkout: make .venv/.ready"


class Later(TyperCommand):
    """A command whose module is imported when it is run or asked for its options, so that --help is quick."""

    def __init__(self, name: str, module: str, help_line: str) -> None:
        super().__init__(name, help=help_line)
        self._module = module

    def load(self) -> Any:
        """The command itself, of Click's type. Raises ModuleNotFoundError where its packages are not installed."""
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        module = import_module(self._module)
        alone.command(self.name, cls=getattr(module, "COMMAND_CLASS", None))(module.command)
        return typer.main.get_command(alone)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.load().make_context(info_name, args, parent=parent, **extra)


class Commands(TyperGroup):
    """`touchline` itself."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, line in COMMANDS.items():
            self.add_command(Later(name, f"commands.{name}", line))


class Bench(TyperGroup):
    """`touchline bench`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, line in BENCH.items():
            self.add_command(Later(name, f"commands.bench_{name}", line))


app = typer.Typer(
    name="touchline",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
bench = typer.Typer(cls=Bench, help="Measure an engine or a challenge.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.callback()
def _bench() -> None:
    """Measure an engine or a challenge."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"touchline {__version__}")
        raise typer.Exit


@app.callback()
def _touchline(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Where something fails unexpectedly, show where, for a bug report.")
    ] = False,
) -> None:
    """A Score Vision (Bittensor subnet 44) miner served by NVIDIA Triton."""


def run(arguments: Sequence[str]) -> int:
    """Run a command and give its exit status: 0, 1 for what it says is wrong, 2 for a wrong command line."""
    try:
        return int(typer.main.get_command(app).main(list(arguments), prog_name="touchline", standalone_mode=False) or 0)
    except CommandError as error:
        tell(str(error))
    except typer.TyperException as error:
        # No message: help was asked for by giving no command, and has been printed.
        if message := error.format_message():
            context = getattr(error, "ctx", None)
            tell(f"{message.rstrip('.')}; see `{context.command_path if context else 'touchline'} --help`")
        return 2
    except typer.Abort:
        tell("stopped")
    except ModuleNotFoundError as error:
        command = next((word for word in arguments if not word.startswith("-")), "")
        package = (error.name or "a package").partition(".")[0]
        where = _LIBRARIES_ONLY_THERE.get(command, _THERE)
        tell(f"`touchline {command}` needs {package}, which is not installed here; {where}")
    except BrokenPipeError:
        # Whoever read the output has gone, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        tell(f"{about}{error.strerror or error}; check that it exists, its owner and the space left")
        _trace(arguments)
    except Exception as error:
        said = " ".join(str(error).split())
        tell(
            f"unexpected {type(error).__name__}: {said}; this is a fault of Touchline's: please report it with what "
            f"`touchline --traceback {' '.join(arguments[:1])} ...` prints"
        )
        _trace(arguments)
    return 1


def _trace(arguments: Sequence[str]) -> None:
    if "--traceback" in arguments:
        traceback.print_exc()


def main() -> None:
    """Entry point of the console script."""
    # A plain kill runs the same clean-up as Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
