"""What `touchline` reads first: the rest takes half a second to read, and Ctrl-C ends that without a traceback."""

from __future__ import annotations

import os


def main() -> None:
    """`commands.main`, read and run."""
    try:
        from commands.main import main as run  # noqa: PLC0415  (what is read here is what may be interrupted)
    except KeyboardInterrupt:
        os._exit(130)
    run()


if __name__ == "__main__":
    main()
