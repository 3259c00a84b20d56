"""A whole challenge of the private track through the real server: a 30 s clip, signed, and how the answer scores.

    python -m benchmarks.private [--seed 300] [--pictures 250] [--runs 3] [--json FILE]

Without --seed it is the clip of `make demo`, with it a lively synthetic match, which is rendered first (minutes).
--pictures sends so many of its frames as JPEG instead of the video.
"""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import orjson
from bittensor_wallet import Keypair
from rich.console import Console
from rich.table import Table

from benchmarks.common import demo_clip, fresh, median, parser, report, spread, take_cores
from demo.clip import load_actions
from demo.match import Match
from local.stack import LocalStack, local_stack
from local.triton import DEFAULT_REPOSITORY
from local.validator import served_file
from touchline.actions import Action, score_actions
from touchline.video_read import open_video, video_stream


def main() -> None:
    made = parser(__doc__, runs=3)
    made.add_argument("--seed", type=int, help="of a lively match")
    made.add_argument("--pictures", type=int, default=0, help="frames sent as pictures; 0: the video")
    made.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, help="the models")
    arguments = made.parse_args()
    console = Console()
    if arguments.seed is None:
        clip = demo_clip(console)
    else:
        clip = demo_clip(console, Match(seed=arguments.seed, lively=True), Path(f"out/clips/lively_{arguments.seed}"))
    truth = load_actions(clip.actions)
    frames = as_pictures(clip.video, arguments.pictures) if arguments.pictures else None
    take_cores(arguments.cores)
    seconds, scores = [], []
    with (
        local_stack(repository=arguments.repository, settings={"PROTOCOLS": "private"}, logs=Path("out/logs")) as stack,
        served_file(clip.video.resolve()) as url,
    ):
        for run in range(arguments.runs + 1):
            begun = time.perf_counter()
            answered = ask(stack, {"video_url": None if frames else fresh(url), "frames": frames})
            if run:
                seconds.append(time.perf_counter() - begun)
                scores.append(score_actions(answered, truth).score)
    table = Table("asked with", "seconds, of 30", "actions", "true", "score")
    asked = f"{len(frames)} pictures" if frames else "the video"
    table.add_row(asked, spread(seconds), str(len(answered)), str(len(truth)), f"{median(scores):.2f}")
    numbers: dict[str, Any] = {"seconds": seconds, "scores": scores, "answered": len(answered), "true": len(truth)}
    report(console, table, ["From the request to the last byte of the answer."], numbers, arguments)


def as_pictures(video: Path, count: int) -> list[dict[str, Any]]:
    """So many frames of a video, evenly chosen, as a validator would write them."""
    with video.open("rb") as file, open_video(file) as container:
        stream = video_stream(container)
        wanted = set(np.linspace(0, stream.frames - 1, count).round().astype(int).tolist())
        return [
            {"frame_id": number, "url": None, "data": _jpeg(frame.to_ndarray(format="bgr24"))}
            for number, frame in enumerate(container.decode(stream))
            if number in wanted
        ]


def _jpeg(pixels: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".jpg", pixels)[1].tobytes()).decode()


def ask(stack: LocalStack, fields: dict[str, Any]) -> list[Action]:
    """What is said to have happened; asked as the subnet's validator asks."""
    body = orjson.dumps({"challenge_id": "benchmark", **fields})
    answer = httpx.post(
        f"{stack.gateway.url}/challenge", content=body, headers=headers_of(stack.keys.validator, body), timeout=60,
        trust_env=False,
    )  # fmt: skip
    answer.raise_for_status()
    items = answer.json()["prediction"]["items"]
    return [Action(item["frame"], item["action"], item["confidence"]) for item in items]


def headers_of(validator: Keypair, body: bytes) -> dict[str, str]:
    """The validator's form: <nonce><blake2b-256 of the body>."""
    nonce = str(time.time_ns())
    message = f"{nonce}{hashlib.blake2b(body, digest_size=32).hexdigest()}"
    return {
        "validator-hotkey": validator.ss58_address,
        "nonce": nonce,
        "signature": "0x" + validator.sign(message.encode()).hex(),
    }


if __name__ == "__main__":
    main()
