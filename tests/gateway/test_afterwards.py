"""What the gateway does with an answer that has left: kept on disk whole, within bounds, and scored."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.scorer import NotScored, Scorer
from local.ports import free_ports
from local.triton import LocalTriton
from tests.support.gateway import Traces, running_gateway
from tests.support.videos import make_video
from touchline.answer import parse_answer
from touchline.kept import NotKept, keep, kept_challenges

MB = 2**20


def put(folder: Path, name: str, *, size: int = 100, most: int = 3, most_mb: int = 1, **more: Any) -> Path | None:
    time.sleep(0.002)  # names begin with milliseconds
    return keep(
        folder,
        challenge_id=name,
        video=[b"v" * size],
        size=size,
        answer=[b"{}"],
        about={"seconds": 1.0},
        most=most,
        most_mb=most_mb,
        **more,
    )


def names(folder: Path) -> list[str]:
    return [kept.name.split("-", 3)[3] for kept in kept_challenges(folder)]


def test_the_oldest_make_room_for_the_last(tmp_path: Path) -> None:
    for name in "abcde":
        put(tmp_path, name)
    assert names(tmp_path) == ["c", "d", "e"]
    put(tmp_path, "large", size=MB - 110)
    assert names(tmp_path) == ["large"]
    assert len(list(tmp_path.iterdir())) == 1


def test_only_what_was_kept_is_removed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for file in ("video.mp4", "answer.json"):
        (mine / file).write_bytes(b"{}")
    for name in "ab":
        put(tmp_path, name, most=1)
    assert {kept.name.rpartition("-")[2] for kept in kept_challenges(tmp_path)} == {"b", "mine"}


def test_one_that_is_larger_than_all_may_be_leaves_the_others(tmp_path: Path) -> None:
    put(tmp_path, "a")
    with pytest.raises(NotKept, match="more than the 1 for all"):
        put(tmp_path, "b", size=2 * MB)
    assert names(tmp_path) == ["a"]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_fails_or_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    def torn() -> Iterator[bytes]:
        yield b"v"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        keep(tmp_path, challenge_id="a", video=torn(), size=2, answer=[b"{}"], about={}, most=3, most_mb=1)
    assert put(tmp_path, "b", go_on=lambda: False) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc", "", "a/b", "ä" * 300, "..", "x" * 5000])
def test_a_strangers_id_names_no_other_place(name: str, tmp_path: Path) -> None:
    place = put(tmp_path / "kept", name)
    assert place is not None
    assert place.parent == tmp_path / "kept"
    assert len(place.name) < 100


@pytest.mark.parametrize(("missing", "told"), [("nowhere", "is no folder"), (".", "holds no kept challenge")])
def test_nothing_kept_is_told(missing: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(NotKept, match=told):
        kept_challenges(tmp_path / missing)


async def until(true: Any, timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.05)


def video_of(web: tuple[str, Path]) -> str:
    file = web[1] / "afterwards.mp4"
    if not file.exists():
        make_video(file, 30)
    return f"{web[0]}/{file.name}"


async def test_a_challenge_is_kept_with_its_answer_and_scored(
    web: tuple[str, Path], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    url, folder, (port,) = video_of(web), tmp_path / "kept", free_ports(1)
    settings: dict[str, Any] = {
        "keep_challenges": 2,
        "keep_folder": folder,
        "score_challenges": True,
        "console_port": port,
    }
    async with running_gateway(tmp_path, quick_triton.grpc_url, **settings) as gateway:
        answered = await gateway.challenge(url)
        assert answered.status_code == 200
        # The same video again is the same answer: it is neither kept nor scored a second time.
        assert (await gateway.challenge(url)).status_code == 200
        await until(lambda: folder.is_dir() and any(folder.glob("2*")))
        (kept,) = kept_challenges(folder)
        assert kept.video.read_bytes() == (web[1] / "afterwards.mp4").read_bytes()
        assert json.loads(kept.answer.read_bytes())["frames"] == answered.json()["frames"]
        assert kept.about["challenge_id"] == answered.json()["challenge_id"]
        assert (kept.about["frames"], kept.about["inferred"]) == (30, 16)
        assert url not in json.dumps(dict(kept.about))
        metrics = ""
        async with asyncio.timeout(60):
            while 'touchline_score{part="total"}' not in metrics:
                metrics = await gateway.metrics()
                await asyncio.sleep(0.1)
        assert 'touchline_score{part="keypoints"} 0.0' in metrics
        total = float(metrics.split('touchline_score{part="total"} ')[1].split()[0])
        front = (await gateway.client.get(f"http://127.0.0.1:{port}/console")).text
        # Both requests had this answer; the second one was quicker.
        assert f'data-name="score">{100 * total:.0f}<' in front
        assert front.count('data-name="score">–') == 0
        page = re.findall(r'"(/console/challenges/[^"]+)"', front)[-1]
        assert "of 100 at best: keypoints 0," in (await gateway.client.get(f"http://127.0.0.1:{port}{page}")).text
        # When both are done the video is gone.
        await until(lambda: Traces.of(gateway).videos == 0)
    assert len(parse_answer(json.loads(kept.answer.read_bytes()))) == 30


async def test_what_is_under_way_is_given_up_when_the_gateway_ends(
    web: tuple[str, Path], quick_triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scorer that does not come to an end.
    monkeypatch.setattr("gateway.scorer.COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    async with running_gateway(tmp_path, quick_triton.grpc_url, score_challenges=True) as gateway:
        assert (await gateway.challenge(video_of(web))).status_code == 200
        await until(lambda: "time.sleep(600)" in children())
    assert "time.sleep(600)" not in children()
    assert not any(thread.name == "afterwards" for thread in threading.enumerate())


def children() -> str:
    """Command lines of this process's children."""
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True, check=False
    )
    return listed.stdout


def test_an_answer_that_cannot_be_scored_says_why(tmp_path: Path) -> None:
    with (tmp_path / "no.mp4").open("w+b") as file, pytest.raises(NotScored, match="cannot read the video"):
        Scorer().score(file.fileno(), [b'{"frames": []}'])


async def test_a_folder_that_cannot_be_written_costs_no_challenge(
    web: tuple[str, Path], quick_triton: LocalTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    async with running_gateway(
        tmp_path, quick_triton.grpc_url, keep_challenges=1, keep_folder=tmp_path / "file" / "kept"
    ) as gateway:
        assert (await gateway.challenge(video_of(web))).status_code == 200
        await until(lambda: "KEEP_FOLDER names another" in caplog.text)
        assert (await gateway.challenge(video_of(web) + "?again")).status_code == 200
