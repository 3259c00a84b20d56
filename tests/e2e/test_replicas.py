"""Two gateways, each with a Triton, behind one address, with a real Redis: what a validator sees when one pair dies."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from local.child_process import start_child
from local.ports import free_ports
from local.scraped import scraped
from local.stack import Keys, LocalGateway, make_keys
from local.triton import PROJECT, LocalTriton
from local.validator import check_response, signed_headers
from tests.support.installed import installed
from tests.support.quick_models import write_quick_models
from tests.support.redis_server import RedisServer
from tests.support.videos import make_video

FRAMES = 201
RETRIED = {502, 503}


@dataclass
class Pair:
    gateway: LocalGateway
    triton: LocalTriton

    def outcomes(self) -> dict[str, int]:
        """Challenges by outcome, since this gateway was started."""
        counted = scraped(self.gateway.metrics_url, "touchline_challenges_total")
        return {sample.labels["outcome"]: int(sample.value) for sample in counted}

    def is_refusing(self) -> bool:
        return not (self.gateway.health() or {})["ready"]

    def in_progress(self) -> int:
        (sample,) = scraped(self.gateway.metrics_url, "touchline_challenges_in_progress")
        return int(sample.value)


@dataclass
class Miner:
    """What stands behind the one address."""

    url: str
    keys: Keys
    redis: RedisServer
    pairs: tuple[Pair, Pair]


@pytest.fixture(scope="module")
def miner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Miner]:
    directory = tmp_path_factory.mktemp("replicas")
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(directory / "redis.log"))
        models = write_quick_models(directory / "models", delay_s=0.01)
        keys = make_keys(directory / "keys")
        pairs = []
        for name in ("a", "b"):
            triton = stack.enter_context(LocalTriton(models, log=directory / f"triton-{name}.log"))
            settings = {
                **keys.environment(),
                "TRITON_URLS": triton.grpc_url,
                "NONCE_REDIS_URL": redis.url,
                "DEVICE": "cpu",
                "IMG_SIZE": "160",
                "MAX_CONCURRENT_CHALLENGES": "4",
            }
            gateway = LocalGateway(settings, log=directory / f"gateway-{name}.log")
            stack.callback(gateway.stop)
            gateway.start()
            pairs.append(Pair(gateway, triton))
        for pair in pairs:
            pair.triton.wait_ready()
            pair.gateway.wait_ready()
        url = stack.enter_context(_balancer(directory, [pair.gateway.port for pair in pairs]))
        yield Miner(url, keys, redis, (pairs[0], pairs[1]))


@pytest.fixture(scope="module")
def video(web: tuple[str, Path]) -> str:
    make_video(web[1] / "for-replicas.mp4", FRAMES)
    return f"{web[0]}/for-replicas.mp4"


def test_both_answer_through_the_one_address(miner: Miner, video: str) -> None:
    before = [pair.outcomes()["answered"] for pair in miner.pairs]
    for number in range(4):
        stock_challenge(miner, f"{video}?both={number}")
    after = [pair.outcomes()["answered"] for pair in miner.pairs]
    assert sum(after) == sum(before) + 4
    assert all(now > then for now, then in zip(after, before, strict=True))


def test_a_nonce_replayed_to_the_other_gateway_is_refused(miner: Miner, video: str) -> None:
    body = json.dumps({"challenge_id": "1", "type": "gsr", "video_url": video}).encode()
    headers = signed_headers(miner.keys.validator, miner.keys.miner.ss58_address, body)
    before = [pair.outcomes() for pair in miner.pairs]
    assert httpx.post(f"{miner.url}/soccer/challenge", content=body, headers=headers, timeout=60).status_code == 200
    urls = [miner.url, miner.url, *(pair.gateway.url for pair in miner.pairs)]
    for url in urls:
        refused = httpx.post(f"{url}/soccer/challenge", content=body, headers=headers, timeout=60)
        assert refused.status_code == 401
        assert "used before" in refused.json()["detail"]
    after = [pair.outcomes() for pair in miner.pairs]
    assert sum(now["answered"] - then["answered"] for now, then in zip(after, before, strict=True)) == 1
    # The other gateway never saw the nonce itself.
    assert all(now["unauthorized"] > then["unauthorized"] for now, then in zip(after, before, strict=True))


def test_no_challenge_is_lost_with_a_pair(miner: Miner, video: str) -> None:
    """Gateway and Triton of one pair are killed while both pairs work; who was cut off asks again and is answered."""
    dying, staying = miner.pairs
    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(stock_challenge, miner, f"{video}?pair={number}") for number in range(6)]
        _until(lambda: dying.in_progress() > 0 and staying.in_progress() > 0, "both pairs work")
        dying.gateway.kill()
        dying.triton.kill()
        attempts = [answer.result() for answer in asking]
    assert max(attempts) > 1, "nobody was cut off"
    # Without the pair, and with it again.
    assert stock_challenge(miner, f"{video}?without") == 1
    dying.triton.start()
    dying.gateway.start()
    dying.triton.wait_ready()
    dying.gateway.wait_ready()

    def takes_part() -> bool:
        stock_challenge(miner, f"{video}?again={time.monotonic()}")
        return dying.outcomes()["answered"] > 0

    _until(takes_part, "the pair takes part again")


def test_without_redis_nothing_is_answered_and_nobody_is_told_yes(miner: Miner, video: str) -> None:
    miner.redis.kill()
    try:
        for pair in miner.pairs:
            _until(pair.is_refusing, "the gateway knows")
            assert str(miner.redis.port) in str((pair.gateway.health() or {})["reason"])
        assert _post_as_stock(miner, f"{video}?refused").status_code == 503
    finally:
        miner.redis.start()
    stock_challenge(miner, f"{video}?redis")


def stock_challenge(miner: Miner, video_url: str) -> int:
    """Ask until answered, each time with a fresh nonce, and check the answer; how often it took."""
    deadline = time.monotonic() + 120
    for attempt in range(1, 1000):
        try:
            answer = _post_as_stock(miner, video_url)
        except httpx.TransportError:
            pass  # the connection was lost
        else:
            if answer.status_code not in RETRIED:
                assert answer.status_code == 200, answer.text
                response = check_response(answer.content, video_url)
                assert len(response["frames"]) == FRAMES
                return attempt
        assert time.monotonic() < deadline, "not answered in two minutes"
        time.sleep(0.2)
    raise AssertionError("asked a thousand times")


def _post_as_stock(miner: Miner, video_url: str) -> httpx.Response:
    """As the stock client: it signs json.dumps and posts compact JSON."""
    payload = {"challenge_id": video_url, "type": "gsr", "video_url": video_url, "of": str(uuid.uuid4())}
    signed = json.dumps(payload).encode()
    headers = signed_headers(miner.keys.validator, miner.keys.miner.ss58_address, signed)
    request = httpx.Request("POST", f"{miner.url}/soccer/challenge", json=payload, headers=headers)
    assert hashlib.sha256(request.content).digest() != hashlib.sha256(signed).digest()
    with httpx.Client(timeout=60) as client:
        return client.send(request)


def _until(true: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.02)


@contextmanager
def _balancer(directory: Path, gateway_ports: list[int]) -> Iterator[str]:
    """HAProxy with the project's own configuration, pointed at ports of this machine; its URL."""
    port, servers = free_ports(1)[0], iter(gateway_ports)
    text = (PROJECT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    text, binds = re.subn(r"bind :7999", f"bind 127.0.0.1:{port}", text)
    text, named = re.subn(r"(server \w) \S+", lambda found: f"{found[1]} 127.0.0.1:{next(servers)}", text)
    assert (binds, named) == (1, len(gateway_ports))
    config, log, url = directory / "haproxy.cfg", directory / "haproxy.log", f"http://127.0.0.1:{port}"
    config.write_text(text)
    process = start_child([installed("haproxy", "haproxy"), "-f", str(config)], os.environ, log)

    def up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        _until(up, "the balancer answers")
        yield url
    finally:
        process.terminate()
        process.wait()
