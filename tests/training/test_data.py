"""Labels are repaired, views move pictures and labels together, maps decode to where the peak is."""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.data import (  # noqa: E402
    ABSENT,
    UNKNOWN,
    VISIBLE,
    PitchDataset,
    checked_sample,
    letterbox,
    line_maps,
    load_views,
)
from training.geometry import REAL_CM, STRIDE, project  # noqa: E402
from training.player_data import PlayerDataset, PlayerSample, collate, load_players, moved_boxes  # noqa: E402

pytestmark = pytest.mark.export

CAMERA = np.array([[0.06, 0.03, 20.0], [0.0, 0.05, 60.0], [0.0, 0.00008, 1.0]])
SIZE = (640, 360)


def marked_picture(points: np.ndarray, seen: np.ndarray) -> bytes:
    """A green picture with a white dot at each point."""
    image = np.full((360, 640, 3), (40, 120, 40), np.uint8)
    for x, y in points[seen]:
        cv2.circle(image, (round(x * 16 - 8), round(y * 16 - 8)), 40, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return bytes(cv2.imencode(".png", image)[1])


def labelled() -> tuple[np.ndarray, np.ndarray]:
    points = project(CAMERA, REAL_CM)
    return points, (points >= 0).all(1) & (points[:, 0] < SIZE[0]) & (points[:, 1] < SIZE[1])


def test_wrong_labels_are_moved_and_missing_ones_are_not_punished() -> None:
    points, visible = labelled()
    wrong, missing = np.flatnonzero(visible)[[2, 5]]
    given, shown = points.copy(), visible.copy()
    given[wrong] += (80, 40)
    shown[missing] = False
    sample = checked_sample("a", b"", given, shown, SIZE)
    assert np.allclose(sample.points[wrong], points[wrong], atol=1.0)
    assert sample.state[wrong] == VISIBLE
    assert sample.state[missing] == UNKNOWN
    assert (sample.state[~visible] == ABSENT).all()
    assert sample.lines is not None


def test_too_few_labels_are_taken_as_they_are() -> None:
    points, visible = labelled()
    shown = np.zeros(32, bool)
    shown[np.flatnonzero(visible)[:3]] = True
    sample = checked_sample("a", b"", points, shown, SIZE)
    assert sample.lines is None
    assert (sample.state == np.where(shown, VISIBLE, ABSENT)).all()


def test_views_move_the_keypoints_with_the_picture() -> None:
    points, visible = labelled()
    sample = checked_sample("a", marked_picture(points, visible), points, visible, SIZE)
    dataset = PitchDataset([sample], [], 12, 0.0, seed=3)
    found = total = 0
    for index in range(len(dataset)):
        item = dataset[index]
        again = dataset[index]
        assert torch.equal(item["image"], again["image"])
        image = item["image"].numpy().astype(np.float32).mean(0)
        assert item["image"].shape == (3, 384, 640)
        assert item["lines"].shape == (6, 384 // STRIDE, 640 // STRIDE)
        for (x, y), state in zip(item["points"].numpy(), item["state"].numpy(), strict=True):
            if state == VISIBLE and 12 < x < 628 and 26 < y < 358:
                around = image[int(y) - 12 : int(y) + 12, int(x) - 12 : int(x) + 12]
                total += 1
                found += bool(image[int(y), int(x)] >= np.median(around) + 8)
    assert total > 40
    # Pasted rectangles hide a few dots.
    assert found >= 0.85 * total


def test_line_maps_lie_under_the_lines() -> None:
    points, visible = labelled()
    sample = checked_sample("a", b"", points, visible, SIZE)
    assert sample.lines is not None
    maps = line_maps(sample.lines, (360, 640))
    middle = project(CAMERA, REAL_CM[[14, 15]].mean(0)[None])[0]
    column, row = (middle / STRIDE).astype(int)
    assert maps[2, row, column - 1 : column + 2].max() > 0.5
    assert maps[0, row, column] == 0


def test_synthetic_views_are_read(tmp_path: Path) -> None:
    points, visible = labelled()
    (tmp_path / "000000.jpg").write_bytes(marked_picture(points, visible))
    rows = np.column_stack([points, visible]).astype(np.float32)
    rows[~visible] = 0
    np.save(tmp_path / "keypoints.npy", rows[None])
    (sample,) = load_views(tmp_path)
    assert ((sample.state == VISIBLE) == visible).all()
    assert sample.lines is not None


def test_letterbox_is_the_contracts() -> None:
    result = letterbox(np.zeros((360, 640, 3), np.uint8))
    assert result.shape == (384, 640, 3)
    assert (result[:12] == 114).all()
    assert (result[12:372] == 0).all()


def test_player_labels_and_views(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / "train" / name).mkdir(parents=True)
    image = np.full((720, 1280, 3), (40, 120, 40), np.uint8)
    image[300:340, 600:620] = 255
    cv2.imwrite(str(tmp_path / "train/images/a.jpg"), image)
    text = f"2 {610 / 1280} {320 / 720} {20 / 1280} {40 / 720}\n0 0.25 0.5 {8 / 1280} {8 / 720}\n"
    (tmp_path / "train/labels/a.txt").write_text(text)
    (sample,) = load_players(tmp_path, "train")
    assert sample.boxes[0] == pytest.approx([2, 600, 300, 620, 340])
    dataset = PlayerDataset([sample], [], 8, 0.0, seed=5, size=(544, 960))
    batch = collate([dataset[i] for i in range(8)])
    assert batch["img"].shape == (8, 3, 544, 960)
    people = torch.where(batch["cls"][:, 0] == 2)[0]
    assert len(people) >= 4
    for row in people.tolist():
        x, y = (batch["bboxes"][row, :2] * torch.tensor([960, 544])).int().tolist()
        picture = batch["img"][int(batch["batch_idx"][row])].float().mean(0)
        assert picture[y, x] > picture.median() + 20


def test_boxes_outside_a_view_are_dropped() -> None:
    boxes = np.array([[2, 10, 10, 30, 50], [2, 300, 100, 320, 140], [2, 95, 40, 105, 60]], np.float32)
    shift = np.array([[1.0, 0, -100], [0, 1, 0], [0, 0, 1]])
    moved = moved_boxes(boxes, shift, (200, 200))
    assert moved.tolist() == [[2, 0, 40, 5, 60]]


def test_a_sample_without_boxes_is_a_picture_all_the_same() -> None:
    picture = bytes(cv2.imencode(".jpg", np.zeros((90, 160, 3), np.uint8))[1])
    ball = PlayerSample("b", picture, np.array([[0, 40, 40, 48, 48]], np.float32))
    dataset = PlayerDataset([ball], [], 2, 0.0, seed=1, size=(96, 160))
    assert dataset[0]["boxes"].shape[1] == 5
