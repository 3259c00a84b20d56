"""The demo clip: what a broadcaster would send, written whole, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from demo import clip
from demo.clip import ClipPaths, load_actions, load_truth, make_clip
from demo.match import Match


def boxes_of(path: Path) -> list[str]:
    """Names of the top-level boxes of an MP4 file, in file order."""
    data, at, names = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
    return names


def test_the_clip_is_what_a_validator_sends(demo_clip: ClipPaths) -> None:
    with av.open(str(demo_clip.video)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (1280, 720)
        assert stream.average_rate == 25
        assert stream.codec_context.pix_fmt == "yuv420p"
        frames, keys = 0, []
        for frame in container.decode(stream):
            if frame.key_frame:
                keys.append(frames)
            frames += 1
    assert frames == 750
    assert np.diff(keys).max() <= 50
    names = boxes_of(demo_clip.video)
    assert names.index("moov") < names.index("mdat")
    assert 4e6 < demo_clip.video.stat().st_size < 25e6


def test_the_files_hold_the_frames_and_their_truth(demo_clip: ClipPaths) -> None:
    truths = load_truth(demo_clip.truth)
    assert [truth.frame_number for truth in truths] == list(range(750))
    match = Match()
    with av.open(str(demo_clip.video)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in (0, 123):
                image, truth = match.frame(number)
                decoded = frame.to_ndarray(format="rgb24").astype(int)
                assert np.abs(decoded - image).mean() < 6
                for name in ("boxes", "classes", "ids", "keypoints", "homography"):
                    np.testing.assert_array_equal(getattr(truths[number], name), getattr(truth, name))
            if number > 123:
                break


def test_what_happens_lies_beside_the_clip(demo_clip: ClipPaths) -> None:
    assert tuple(load_actions(demo_clip.actions)) == Match().play.actions


def test_a_livelier_match_is_another_clip(tmp_path: Path) -> None:
    calm = make_clip(tmp_path, small(), workers=1)
    before = calm.video.read_bytes()
    make_clip(tmp_path, small(lively=True), workers=1)
    make_clip(tmp_path, small(), workers=1)
    assert calm.video.read_bytes() == before
    assert clip._key(small()) != clip._key(small(lively=True))


def small(**changes: Any) -> Match:
    given: dict[str, Any] = {"seed": 3, "frames": 4, "width": 320, "height": 180, **changes}
    return Match(**given)


def test_a_clip_is_made_once(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    first = make_clip(tmp_path, small(), lambda done, total: steps.append((done, total)), 1)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    written = first.video.read_bytes()
    mark = first.video.stat().st_mtime_ns
    make_clip(tmp_path, small(), lambda done, total: steps.append((done, total)), 1)
    assert first.video.stat().st_mtime_ns == mark
    assert steps[4:] == [(4, 4)]
    make_clip(tmp_path, small(seed=4), workers=1)
    assert first.video.read_bytes() != written
    make_clip(tmp_path, small(), workers=1)
    assert first.video.read_bytes() == written


def test_an_older_version_is_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_clip(tmp_path, small(), workers=1)
    mark = paths.video.stat().st_mtime_ns
    monkeypatch.setattr(clip, "VERSION", clip.VERSION + 1)
    make_clip(tmp_path, small(), workers=1)
    assert paths.video.stat().st_mtime_ns != mark


def test_workers_render_the_same_frames(tmp_path: Path) -> None:
    alone = make_clip(tmp_path / "one", small(frames=12), workers=1)
    together = make_clip(tmp_path / "two", small(frames=12), workers=2)
    assert alone.video.read_bytes() == together.video.read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_clip_that_was_given_up_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_clip(tmp_path, small(), stop, workers)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_truth_is_made_anew(tmp_path: Path) -> None:
    paths = make_clip(tmp_path, small(), workers=1)
    paths.truth.write_bytes(b"PK damaged")
    make_clip(tmp_path, small(), workers=1)
    assert len(load_truth(paths.truth)) == 4
