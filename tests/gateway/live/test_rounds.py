"""Rounds of cameras: which models look at which frames, when, and when the next round is prepared."""

from __future__ import annotations

from itertools import combinations, count, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.inference.outputs import detections_from_rows, nobody, spread
from gateway.inference.slots import Slot
from gateway.live.camera import LOOK_S, pitch_due
from gateway.live.rounds import EARLY, Row, busy_for_s, in_order, models_for, places_of
from gateway.tracking.live import PITCH_S
from local.scraped import scraped
from local.triton import LocalTriton
from tests.support.live import Watching, watching
from tests.support.rtsp_camera import RtspCamera
from touchline.contract import BALL_MODEL, PITCH_MODEL, PLAYER_MODEL, Letterbox

MODELS = (PLAYER_MODEL, PITCH_MODEL, BALL_MODEL)


def looks(seconds: float, *, fps: float, inferred_fps: float, stride: int) -> list[float]:
    """When the pitch model looks at a camera of which so many frames a second come and are inferred."""
    at = [number / inferred_fps for number in range(int(seconds * inferred_fps))]
    found = [0]
    for index, now in enumerate(at):
        came = round((now - at[found[-1]]) * fps)
        if pitch_due(came, index - found[-1], now - at[found[-1]], stride):
            found.append(index)
    return [at[index] for index in found]


def test_the_pitch_model_looks_at_every_nth_frame_of_a_camera_that_is_fully_inferred() -> None:
    assert np.diff(looks(4, fps=25, inferred_fps=25, stride=10)) == pytest.approx(0.4)
    assert np.diff(looks(1, fps=25, inferred_fps=25, stride=1)) == pytest.approx(0.04)
    assert np.diff(looks(9, fps=25, inferred_fps=25, stride=60)) == pytest.approx(2.4), "as rarely as it was told to"


@pytest.mark.parametrize("inferred_fps", [1.5, 2.0, 4.0, 8.0, 12.5])
def test_a_slow_engine_looks_for_the_pitch_often_enough_and_at_a_third_of_its_frames_at_most(
    inferred_fps: float,
) -> None:
    apart = np.diff(looks(20, fps=25, inferred_fps=inferred_fps, stride=10))
    assert apart.max() <= PITCH_S, "a homography stands until the next one"
    assert round(apart.min() * inferred_fps) >= 3
    if inferred_fps >= 3:
        assert apart.max() <= LOOK_S + 1 / inferred_fps


def row(*models: str) -> Any:
    return Row(None, None, frozenset(models))  # type: ignore[arg-type]


def test_each_model_looks_at_the_frames_that_want_it_and_no_others() -> None:
    kinds = [chosen for size in range(len(MODELS) + 1) for chosen in combinations(MODELS, size)]
    for rows in product(kinds, repeat=3):
        ordered = in_order(row(*models) for models in rows)
        for model, places in places_of(ordered).items():
            wanted = [index for index, one in enumerate(ordered) if model in one.models]
            assert set(wanted) <= set(places)
            if model == PITCH_MODEL:
                assert wanted == list(range(len(wanted))), "from the first on"
            kept_apart = [ordered[index].models - {PITCH_MODEL} for index in places if index not in wanted]
            assert all(kept_apart), "one that no model but the pitch's looks at is never between"
    assert places_of([]) == {}


def test_the_ball_is_the_player_models_where_it_has_no_model_of_its_own() -> None:
    assert models_for(["ball"], pitch=False, has_ball_model=False) == {PLAYER_MODEL}
    assert models_for(["ball", "pitch"], pitch=True, has_ball_model=True) == {BALL_MODEL, PITCH_MODEL}
    assert models_for(["player", "pitch"], pitch=False, has_ball_model=True) == {PLAYER_MODEL}


def test_frames_that_a_model_did_not_look_at_show_it_nothing() -> None:
    rows = np.ones((2, 150, 6), np.float32)
    assert spread(rows, range(1, 3), 4)[:, 0, 0].tolist() == [0, 1, 1, 0]
    assert spread(rows, range(2), 2) is rows
    assert not len(detections_from_rows(nobody(1), Letterbox(1280, 720, 640, 384), min_score=0.1)[0])
    slot = Slot(np.zeros((4, 2, 3, 3), np.uint8), 100).part(range(1, 3))
    assert (slot.offset, slot.frames.shape) == (118, (2, 2, 3, 3))


def test_the_next_round_is_prepared_just_in_time_and_rather_too_early() -> None:
    assert busy_for_s(0.1, [(0.12, 0.1), (0.2, 0.2)], [0.01, 0.03]) == pytest.approx(0.1 * EARLY * 0.32 / 0.3 - 0.03)
    as_one_batch = [(0.2, 0.1), (0.0, 0.1)]
    assert busy_for_s(0.1, as_one_batch, []) == pytest.approx(0.1 * EARLY), "they ended at once"
    assert busy_for_s(0.02, [(0.1, 0.1)], [0.03]) == 0, "an engine that is quicker than preparing is not waited for"
    assert busy_for_s(0.1, [], []) == 0


async def test_a_model_that_no_camera_wants_is_not_asked(quick_triton: LocalTriton, tmp_path: Path) -> None:
    def frames_of(model: str) -> float:
        samples = scraped(quick_triton.metrics_url, "nv_inference_count")
        return sum(one.value for one in samples if one.labels["model"] == model)

    async def ten_more(live: Watching) -> None:
        before = (await live.camera("a"))["frames"]["inferred"]
        await live.until("a", lambda one: one["frames"]["inferred"] > before + 10)

    with RtspCamera() as camera:
        async with watching(tmp_path, quick_triton.grpc_url, pitch_stride=1) as live:
            await live.add("a", camera.url, models=["player"])
            await live.until("a", lambda one: one["state"] == "live")
            for wanted, asked, spared in ((["player"], "player", "pitch"), (["pitch"], "pitch", "player")):
                await live.ask("PATCH", "/a", json={"models": wanted})
                await ten_more(live)
                before = frames_of(asked), frames_of(spared)
                await ten_more(live)
                assert frames_of(asked) > before[0]
                assert frames_of(spared) == before[1]
            assert not len(live.view("a").tracks.detections)
            assert live.view("a").sequence in count(1)
