"""What the console costs a challenge: the same challenges with it and without it, on models that answer at once."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    NO_LIMITS,
    alternate,
    cpu_seconds,
    demo_clip,
    fresh,
    median,
    parser,
    report,
    scratch,
    served_size,
    spread,
    take_cores,
)
from benchmarks.quick_engine import write_quick_engine
from demo.match import Match
from local.ports import free_ports
from local.stack import LocalGateway, local_stack
from local.triton import DEFAULT_REPOSITORY
from local.validator import send_challenge, served_file


def main() -> None:
    arguments_of = parser(__doc__, runs=15)
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments_of.add_argument("--engine", choices=("quick", "bundled"), default="quick", help="who infers")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        quick = arguments.engine == "quick"
        repository = write_quick_engine(directory / "models", served_size()) if quick else DEFAULT_REPOSITORY
        # Two gateways on one Triton, asked in turn.
        settings = {**NO_LIMITS, "ANSWER_CACHE_S": "0"}
        servers = stack.enter_context(local_stack(repository=repository, settings=settings))
        settings |= {**servers.keys.environment(), "TRITON_URLS": servers.triton.grpc_url}
        watched = LocalGateway(settings | {"CONSOLE_PORT": str(free_ports(1)[0])}, log=directory / "gateway.log")
        stack.callback(watched.stop)
        watched.start()
        watched.wait_ready()
        url = stack.enter_context(served_file(video))

        def challenge(gateway: LocalGateway) -> dict[str, float]:
            before = cpu_seconds(gateway.pid or 0)
            outcome = send_challenge(gateway.url, servers.keys.validator, servers.keys.miner.ss58_address, fresh(url))
            return {"elapsed_s": outcome.elapsed_s, "cpu_s": cpu_seconds(gateway.pid or 0) - before}

        results = alternate(
            arguments.runs, {"off": lambda: challenge(servers.gateway), "on": lambda: challenge(watched)}, console
        )
    numbers = summary(results["off"], results["on"])
    table = Table("console", "seconds", "CPU seconds", title="What the console costs", title_justify="left")
    for name, runs in results.items():
        table.add_row(name, spread([one["elapsed_s"] for one in runs], 3), spread([one["cpu_s"] for one in runs]))
    table.add_section()
    table.add_row(
        "difference",
        f"{1000 * numbers['elapsed_s']:+.0f} ms, {numbers['elapsed_share']:+.1%}",
        f"{1000 * numbers['cpu_s']:+.0f} ms",
    )
    notes = [
        f"Medians of {arguments.runs} challenges each, in turn, least and most in brackets. The difference is the "
        "median of the differences of neighbours. Seconds are the validator's, CPU the gateway's process.",
    ]
    report(console, table, notes, numbers, arguments)


def summary(off: list[dict[str, float]], on: list[dict[str, float]]) -> dict[str, Any]:
    """Median differences of challenges that followed each other."""
    pairs = list(zip(off, on, strict=True))
    elapsed = median([with_it["elapsed_s"] - without["elapsed_s"] for without, with_it in pairs])
    return {
        "elapsed_s": elapsed,
        "elapsed_share": elapsed / median([without["elapsed_s"] for without in off]),
        "cpu_s": median([with_it["cpu_s"] - without["cpu_s"] for without, with_it in pairs]),
        "runs": {"off": off, "on": on},
    }


if __name__ == "__main__":
    main()
