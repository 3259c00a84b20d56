from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import supervision as sv

from tests.support.pictures import read_picture
from tests.touchline.made_scene import HEIGHT, STANDS_CM, WIDTH, answer_to, camera, grass_video, keypoints, truths
from touchline.answer import FrameAnswer, parse_answer
from touchline.contract import BALL
from touchline.drawing import CLASS_COLOURS, PAPER, FrameView, _label, draw_answer, draw_objects
from touchline.homography import project
from touchline.pitch import LENGTH_CM, WIDTH_CM
from touchline.pitch_map import Trail, draw_map
from touchline.render import PANEL_WIDTH, PICTURE_WIDTH, RenderError, read_response, render_contact_sheet, render_video

FRAMES = 12
GRASS = (60, 140, 60)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grass_video(tmp_path_factory.mktemp("clip") / "match.mp4", FRAMES)


@pytest.fixture
def answer() -> dict[str, Any]:
    return answer_to(truths(FRAMES))


def view_of(answer: dict[str, Any], number: int = 0) -> FrameView:
    return FrameView.of(parse_answer(answer)[number])


def near(picture: np.ndarray, colour: sv.Color, tolerance: int = 40) -> np.ndarray:
    """bool [h, w]: pixels of about that colour."""
    return np.asarray(np.abs(picture.astype(int) - colour.as_bgr()).max(axis=2) < tolerance)


def test_video_has_every_frame_and_the_panel(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "pictures" / "annotated.mp4"
    calls = []
    render_video(clip, answer, out, lambda done, total: calls.append((done, total)))
    assert calls == [(number, FRAMES) for number in range(1, FRAMES + 1)]
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="bgr24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 25
    assert len(pictures) == FRAMES
    assert pictures[0].shape == (PICTURE_WIDTH * HEIGHT // WIDTH, PICTURE_WIDTH + PANEL_WIDTH, 3)
    # An untouched spot of the picture keeps its colour; the panel counts on from frame to frame.
    assert np.abs(pictures[0][700, 20].astype(int) - GRASS).max() < 8
    assert np.abs(pictures[0].astype(int) - pictures[1])[:80, PICTURE_WIDTH:].max() > 60
    assert [path.name for path in out.parent.iterdir()] == ["annotated.mp4"]


def test_index_stands_in_front_of_the_data(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "annotated.mp4"
    render_video(clip, answer, out)
    data = out.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_odd_and_narrow_videos_are_rendered(tmp_path: Path) -> None:
    tall = grass_video(tmp_path / "tall.mp4", 2, 300, 418)
    response = {"frames": [{"frame_number": 1, "keypoints": [[0, 0]] * 32, "objects": []}]}
    render_video(tall, response, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (1840, 1784)
    wide = grass_video(tmp_path / "wide.mp4", 2, 640, 100)
    render_video(wide, response, tmp_path / "out.mp4")
    render_contact_sheet(wide, response, tmp_path / "out.png")


def test_contact_sheet_shows_the_frames(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "contact_sheet.png"
    render_contact_sheet(clip, answer, out, count=4)
    sheet = read_picture(out)
    assert sheet.shape[1] > 2000
    # Four tiles: each has the ball's yellow label in its picture.
    yellow = near(sheet, CLASS_COLOURS[BALL]).astype(np.uint8)
    halves = [half for row in np.array_split(yellow[92:], 2) for half in np.array_split(row, 2, axis=1)]
    assert all(half.sum() > 200 for half in halves)
    assert [path.name for path in tmp_path.iterdir()] == ["contact_sheet.png"]


def test_contact_sheet_of_a_short_clip_shows_it_all(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    render_contact_sheet(clip, answer, tmp_path / "all.png", count=100)
    render_contact_sheet(clip, answer, tmp_path / "one.png", count=1)
    tall, small = (read_picture(tmp_path / name).shape for name in ("all.png", "one.png"))
    assert tall[0] > 5 * small[0] / 2
    with pytest.raises(ValueError, match="0 frames"):
        render_contact_sheet(clip, answer, tmp_path / "none.png", count=0)


def test_boxes_are_drawn_where_the_answer_has_them(answer: dict[str, Any]) -> None:
    picture = np.full((2 * HEIGHT, 2 * WIDTH, 3), GRASS, np.uint8)
    view = view_of(answer)
    draw_answer(picture, view, 2.0)
    for box, class_id in zip(view.answer.boxes, view.answer.classes, strict=True):
        left, _, right, bottom = (2 * box).round().astype(int)
        assert near(picture[bottom - 2 : bottom + 3, left : right + 1], CLASS_COLOURS[class_id]).any()


def test_pitch_lines_are_drawn_where_the_pitch_is(answer: dict[str, Any]) -> None:
    """The halfway line runs down the middle of this view, between keypoints 15 and 16, and is faint."""
    view = view_of(answer)
    points = view.answer.keypoints
    x, y = (2 * (points[14] + (points[15] - points[14]) * 0.3)).round().astype(int)
    answer["frames"][0]["objects"] = []
    with_lines, without = (np.full((2 * HEIGHT, 2 * WIDTH, 3), GRASS, np.uint8) for _ in range(2))
    draw_answer(with_lines, view_of(answer), 2.0)
    answer["frames"][0]["keypoints"] = [[0.0, 0.0]] * 32
    draw_answer(without, view_of(answer), 2.0)
    assert (without == GRASS).all()
    assert 40 < np.abs(with_lines[y, x - 1 : x + 2].astype(int) - GRASS).max() < 190


def test_map_shows_everyone_where_they_stand(answer: dict[str, Any]) -> None:
    view = view_of(answer)
    width = 600
    picture = draw_map(width, view, [], (WIDTH, HEIGHT))
    scale = width / (LENGTH_CM + 1000)
    assert picture.shape == (round((WIDTH_CM + 1000) * scale), width, 3)
    for stand, class_id in zip(STANDS_CM, view.answer.classes, strict=True):
        x, y = ((stand + 500) * scale).round().astype(int)
        assert near(picture[y : y + 1, x : x + 1], CLASS_COLOURS[class_id]).all()


def test_map_shows_the_way_of_the_last_second(answer: dict[str, Any]) -> None:
    view = view_of(answer)
    way = np.column_stack([np.linspace(2000, 3000, 25), np.full(25, 1800.0)])
    jump = np.array([(2000.0, 5500.0), (3000.0, 5500.0)])
    unknown = np.full((5, 2), np.nan)
    bare = draw_map(600, view, [], (WIDTH, HEIGHT))
    trailed = draw_map(600, view, [Trail(2, way), Trail(2, jump), Trail(2, unknown)], (WIDTH, HEIGHT))
    changed = np.argwhere((bare != trailed).any(axis=2)) * (LENGTH_CM + 1000) / 600 - 500
    assert np.abs(changed[:, 0] - 1800).max() < 60
    assert np.ptp(changed[:, 1]) == pytest.approx(1000, abs=80)


def test_map_brightens_what_the_camera_sees() -> None:
    """A low camera has its horizon in the picture; the ground behind it must not count as seen."""
    low = keypoints(camera(eye_cm=(6000.0, 12500.0, 900.0)))
    response = {"frames": [{"frame_number": 0, "keypoints": low.tolist(), "objects": []}]}
    view = view_of(response)
    assert view.homography is not None
    assert np.isnan(project(view.homography, np.array([(320.0, 0.0)]))).all()
    picture = draw_map(600, view, [], (WIDTH, HEIGHT))
    scale = 600 / (LENGTH_CM + 1000)
    green = [picture[tuple((np.array(at) * scale).round().astype(int))][1] for at in ((1500, 6300), (6800, 600))]
    assert green[0] > green[1] + 10


def test_map_without_a_pitch_shows_no_one(answer: dict[str, Any]) -> None:
    answer["frames"][0]["keypoints"] = [[0.0, 0.0]] * 32
    picture = draw_map(600, view_of(answer), [], (WIDTH, HEIGHT))
    assert not any(near(picture, colour).any() for colour in CLASS_COLOURS)


def test_map_stays_intact_for_absurd_answers(answer: dict[str, Any]) -> None:
    frame = answer["frames"][0]
    for entry in frame["objects"]:
        entry["bbox"] = [-1e7, -1e7, 1e7, 1e7]
    draw_answer(np.zeros((HEIGHT, WIDTH, 3), np.uint8), view_of(answer), 1.0)
    draw_map(600, view_of(answer), [], (WIDTH, HEIGHT))


def test_unanswered_frames_are_shown_as_such(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    del answer["frames"][3:6]
    render_video(clip, answer, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        pictures = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(pictures) == FRAMES
    boxed = [near(picture[:, :PICTURE_WIDTH], CLASS_COLOURS[2], 60).any() for picture in pictures]
    assert boxed == [number not in (3, 4, 5) for number in range(FRAMES)]


def test_the_video_must_be_the_challenges_own(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    longer = answer_to(truths(FRAMES + 1))
    with pytest.raises(RenderError, match=rf"answers frame {FRAMES}, but .*match.mp4 ends at frame {FRAMES - 1}"):
        render_video(clip, longer, tmp_path / "out.mp4")
    with pytest.raises(RenderError, match=rf"answers frame {FRAMES}"):
        render_contact_sheet(clip, longer, tmp_path / "out.png")
    for frame in answer["frames"]:
        for entry in frame["objects"]:
            entry["bbox"] = [value * 3 for value in entry["bbox"]]
    with pytest.raises(RenderError, match=r"lie outside the 640x360 picture of .*match.mp4"):
        render_contact_sheet(clip, answer, tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_bad_responses_are_named(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r'no "frames" list.*touchline challenge'):
        render_video(clip, {"detail": "busy"}, tmp_path / "out.mp4")
    with pytest.raises(RenderError, match="empty"):
        render_contact_sheet(clip, {"frames": []}, tmp_path / "out.png")


def test_responses_are_read_from_files(answer: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "response.json"
    path.write_text(json.dumps(answer))
    assert read_response(path) == answer
    path.write_text("<html>502 Bad Gateway")
    with pytest.raises(RenderError, match=r"response.json is not JSON"):
        read_response(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RenderError, match=r"response.json is not JSON"):
        read_response(path)
    path.write_text("[]")
    with pytest.raises(RenderError, match="holds a JSON list"):
        read_response(path)
    with pytest.raises(RenderError, match=r"cannot read the response .*gone.json: No such file"):
        read_response(tmp_path / "gone.json")


def test_bad_videos_are_named(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    for path in (text, empty, tmp_path / "gone.mp4"):
        with pytest.raises(RenderError, match=rf"cannot read the video .*{path.name}"):
            render_video(path, answer, tmp_path / "out" / "annotated.mp4")
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(RenderError, match=r"sound.mp4: the file has no video stream"):
        render_video(sound, answer, tmp_path / "out" / "annotated.mp4")
    assert not (tmp_path / "out").exists()


def test_errors_leave_the_old_picture_and_nothing_else(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "annotated.mp4"
    out.write_text("the old one")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_video(clip, answer, out, stop)
    assert out.read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["annotated.mp4"]


def test_a_truncated_video_leaves_nothing(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    data = clip.read_bytes()
    cut.write_bytes(data[: len(data) * 3 // 4])
    out = tmp_path / "out"
    with pytest.raises(RenderError, match=r"cut.mp4"):
        render_video(cut, answer, out / "annotated.mp4")
    assert not out.exists() or list(out.iterdir()) == []


def test_no_file_can_be_made_in_a_file(clip: Path, answer: dict[str, Any], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(OSError):
        render_contact_sheet(clip, answer, Path(blocked) / "sheet.png")


def test_labels_lie_where_the_annotator_lays_them_also_beyond_the_edges() -> None:
    rng = np.random.default_rng(7)
    places = rng.uniform(-0.1, 1.1, (40, 2)) * (2 * WIDTH, 2 * HEIGHT)
    boxes = np.concatenate([places, places + rng.uniform(1, 40, (40, 2))], axis=1)
    classes, ids = rng.integers(0, 4, 40), rng.integers(0, 2000, 40) * rng.integers(0, 2, 40)
    drawn, expected = (np.full((HEIGHT, WIDTH, 3), GRASS, np.uint8) for _ in range(2))
    draw_objects(drawn, FrameAnswer(0, np.zeros((32, 2)), boxes, classes, ids), 0.5)
    found = sv.Detections(xyxy=boxes * np.float32(0.5), class_id=classes)
    palette = sv.ColorPalette(list(CLASS_COLOURS))
    sv.BoxAnnotator(color=palette, thickness=2).annotate(expected, found)
    sv.LabelAnnotator(
        color=palette,
        text_color=PAPER,
        text_scale=0.4,
        text_padding=3,
        text_position=sv.Position.TOP_CENTER,
        border_radius=3,
    ).annotate(expected, found, labels=list(map(_label, classes.tolist(), ids.tolist())))
    assert (drawn == expected).all() and not (drawn == GRASS).all()
