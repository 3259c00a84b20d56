"""Models whose description makes Triton leave requests in the queue of an idle instance."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from gateway.inference.triton import Triton, queue_policy
from local.triton import LocalTriton
from tests.support.quick_models import write_quick_models


@pytest.mark.parametrize(
    ("batching", "named"),
    [
        ("", ""),
        ("preferred_batch_size: [ 8, 16 ] max_queue_delay_microseconds: 2000", ""),
        ("priority_levels: 2 default_priority_level: 2", "priority_levels"),
        ("default_queue_policy { allow_timeout_override: true }", "default_queue_policy"),
        (
            "priority_levels: 2 default_priority_level: 2 default_queue_policy { max_queue_size: 64 }",
            "priority_levels and default_queue_policy",
        ),
    ],
)
def test_what_keeps_triton_from_taking_requests_in(batching: str, named: str) -> None:
    assert queue_policy(text_format.Parse(f"dynamic_batching {{ {batching} }}", pb.ModelConfig())) == named


async def test_a_served_model_that_has_it_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    repository = write_quick_models(tmp_path / "repository")
    config = repository / "player" / "config.pbtxt"
    config.write_text(
        config.read_text().replace(
            "dynamic_batching { }", "dynamic_batching { priority_levels: 2 default_priority_level: 2 }"
        )
    )
    with LocalTriton(repository=repository) as triton, caplog.at_level(logging.WARNING):
        triton.wait_ready()
        async with Triton(triton.grpc_url, shared_memory="off", timeout_s=30) as client:
            await client.discover()
    (warning,) = [one.getMessage() for one in caplog.records if one.name == "gateway.inference.triton"]
    assert "model player" in warning and "priority_levels" in warning and "config.pbtxt" in warning
