"""A gateway with its defaults, and a short clip, for the tests of what is asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from local.triton import LocalTriton
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.videos import make_video


@pytest_asyncio.fixture
async def gateway(quick_triton: LocalTriton, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as running:
        yield running


@pytest.fixture
def url(web: tuple[str, Path]) -> str:
    make_video(web[1] / "short.mp4", 5)
    return f"{web[0]}/short.mp4"
