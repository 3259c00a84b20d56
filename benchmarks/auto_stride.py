"""What CHALLENGE_BUDGET_S=auto plans, and what it expects of that, against fixed strides: the planner's own arithmetic.

No engine runs: --player-ms and --pitch-ms are a frame of each model alone, --gateway-ms the gateway's own work a source
frame, spread over its cores. The defaults are those of two cores of an AMD EPYC (Zen 3: AVX2, no VNNI) beside Triton.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.common import report
from gateway.pace import GATEWAY_CPU_S, Aim, Experience, Left, ModelCosts, Pace, score
from gateway.settings import Settings

STRIDES = (2, 4, 6, 10, 15, 25)


@dataclass(frozen=True, slots=True)
class Expected:
    stride: int
    seconds: float
    people_found: float

    @property
    def score(self) -> float:
        return score(self.people_found, self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--player-ms", type=float, default=48.6)
    parser.add_argument("--pitch-ms", type=float, default=23.0)
    parser.add_argument("--gateway-ms", type=float, default=1000 * GATEWAY_CPU_S / 2)
    parser.add_argument("--frames", type=int, default=750, help="of a clip of 25 frames a second")
    parser.add_argument("--faster", type=float, nargs="*", default=[1, 4, 20], help="times as fast as that")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    table = Table("", *(f"engine {faster:g} times as fast" for faster in arguments.faster))
    columns = {
        faster: expectations(
            ModelCosts(arguments.player_ms / faster / 1000, arguments.pitch_ms / faster / 1000),
            arguments.gateway_ms / 1000,
            arguments.frames,
        )
        for faster in arguments.faster
    }
    for way in ("auto", *(f"stride {stride}" for stride in STRIDES)):
        cells = [columns[faster][way] for faster in arguments.faster]
        table.add_row(
            way,
            *(f"{one.score:.3f}: {one.people_found:.1%} in {one.seconds:.1f} s, stride {one.stride}" for one in cells),
        )
    numbers = {
        f"{faster:g} times as fast": {
            way: (one.stride, one.seconds, one.people_found, one.score) for way, one in of.items()
        }
        for faster, of in columns.items()
    }
    report(Console(), table, ["Expected score: people found in seconds, at a stride."], numbers, arguments)


def expectations(
    costs: ModelCosts, gateway_s: float, frames: int, strides: Sequence[int] = STRIDES
) -> dict[str, Expected]:
    """What the planner expects of `auto` and of fixed strides, of a clip with the defaults of a CPU."""
    auto = Aim.of(Settings(_env_file=None, device="cpu"))
    left = Left(0.0, frames)

    def expected(aim: Aim) -> Expected:
        pace = Pace(aim, costs, Experience(gateway_s), 25.0)
        pace.start(left)
        return Expected(pace.stride, pace.seconds(pace.stride, left), pace.quality(pace.stride, left))

    fixed = {
        f"stride {stride}": expected(replace(auto, frame_stride=stride, budget_s=1e6, by_score=False))
        for stride in strides
    }
    return {"auto": expected(auto), **fixed}


if __name__ == "__main__":
    main()
