"""A pitch network that looks at a smaller picture than the shared input sees the same keypoints in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import Tensor, nn

from demo.views import random_view
from export.command import ExportOptions, export_models
from export.errors import ExportError, WeightsError
from export.graph import to_onnx, with_preprocessing
from export.rescale import Rescaled, scaling
from tests.export.networks import checkpoint, frames, run_onnxruntime, written
from touchline.contract import KEYPOINT_COUNT, KEYPOINTS, LETTERBOX_GREY, Letterbox

pytestmark = pytest.mark.export

BUNDLED = Path(__file__).parents[2] / "weights" / "pitch.onnx"
SMALL = (384, 640)


class Centroids(nn.Module):
    """A core whose answer is known: the centre of what is not grey in each of 4 x 8 cells, with confidence 1."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        height, width = size[0] // 4, size[1] // 8
        self.cells = (4, height, 8, width)
        rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        corner = torch.tensor([(x * width, y * height) for y in range(4) for x in range(8)], dtype=torch.float32)
        self.register_buffer("rows", rows[:, None].expand(height, width).reshape(-1, 1))
        self.register_buffer("columns", columns[None].expand(height, width).reshape(-1, 1))
        self.register_buffer("corner", corner)

    def forward(self, images: Tensor) -> Tensor:
        mass = (images[:, 0] - LETTERBOX_GREY / 255).abs().reshape(-1, *self.cells)
        mass = mass.permute(0, 1, 3, 2, 4).reshape(-1, KEYPOINT_COUNT, self.cells[1] * self.cells[3])
        mass = mass / mass.sum(2, keepdim=True).clamp(min=1e-6)
        x, y = torch.matmul(mass, self.columns), torch.matmul(mass, self.rows)
        return torch.cat([torch.cat([x, y], 2) + self.corner, x * 0 + 1], 2)


@pytest.mark.parametrize(
    ("size", "scaled", "pieces"), [(1024, 640, 128), (442, 368, 2), (640, 640, 640), (320, 640, 1)]
)
def test_scaling_by_pieces_is_bilinear_scaling_of_the_whole(size: int, scaled: int, pieces: int) -> None:
    line = torch.rand(1, 1, size, generator=torch.Generator().manual_seed(0))
    weights = scaling(size, scaled)
    assert weights.shape == (scaled // pieces, size // pieces)
    got = (line.reshape(pieces, 1, -1) @ weights.T).reshape(1, 1, -1)
    whole = nn.functional.interpolate(line, scaled, mode="linear", align_corners=False)
    torch.testing.assert_close(got, whole, rtol=0, atol=1e-4)


def letterboxed(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], Letterbox]:
    box = Letterbox(image.shape[1], image.shape[0], size[1], size[0])
    (left, top), (width, height) = box.offset, box.content_size
    frame = np.full((1, *size, 3), LETTERBOX_GREY, np.uint8)
    frame[0, top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return frame, box


@pytest.mark.parametrize("size", [(544, 960), (736, 1280), (448, 768), (768, 1280), (384, 640), (640, 640)])
def test_the_geometry(size: tuple[int, int], tmp_path: Path) -> None:
    """Spots of one source picture lie at the same source pixels, through the core's own letterbox or a larger one."""
    source = np.full((720, 1280, 3), LETTERBOX_GREY, np.uint8)
    rng = np.random.default_rng(2)
    for y in range(4):
        for x in range(8):
            middle = (np.array([x * 160 + 80, y * 192 + 96 - 24]) + rng.uniform(-25, 25, 2)).round().astype(int)
            cv2.circle(source, tuple(map(int, middle)), 14, (255, 255, 255), -1)
    small, small_box = letterboxed(source, SMALL)
    large, large_box = letterboxed(source, size)
    to_onnx(with_preprocessing(Centroids(SMALL)), tmp_path / "core.onnx", SMALL, KEYPOINTS)
    to_onnx(with_preprocessing(Rescaled(Centroids(SMALL), size, SMALL)), tmp_path / "large.onnx", size, KEYPOINTS)
    core = run_onnxruntime(tmp_path / "core.onnx", small)[0]
    rescaled = run_onnxruntime(tmp_path / "large.onnx", np.concatenate([large, large]))
    np.testing.assert_array_equal(rescaled[0], rescaled[1])
    apart = np.abs(small_box.to_source(core[:, :2]) - large_box.to_source(rescaled[0, :, :2])) * large_box.gain
    print(f"{size}: {apart.max():.2f} px")
    assert apart.max() < 0.75
    assert (rescaled[0, :, 2] == 1).all()


def test_the_bundled_network_sees_the_same_keypoints_in_a_frame_scaled_up() -> None:
    """What the core would be shown of a frame twice as large, and what the bundled network sees in that."""
    dims = onnx.load(BUNDLED, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    core_size = (dims[1].dim_value, dims[2].dim_value)
    size = (core_size[0] * 2, core_size[1] * 2)
    shown: list[Tensor] = []

    class Shown(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            shown.append(images)
            return torch.zeros(len(images), KEYPOINT_COUNT, 3)

    rng = np.random.default_rng(4)
    small = np.stack([random_view(rng, core_size)[0] for _ in range(6)])
    large = np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR) for frame in small])
    with_preprocessing(Rescaled(Shown(), size, core_size))(torch.from_numpy(large))
    again = (shown[0].permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    before, after = (run_onnxruntime(BUNDLED, images) for images in (small, again))
    both = (before[..., 2] > 0.5) & (after[..., 2] > 0.5)
    moved = 2 * (after - before)[both][:, :2]
    print(f"{both.sum()} keypoints: median {np.median(np.abs(moved), axis=0)} px, bias {np.median(moved, axis=0)} px")
    assert both.sum() > 40
    # Scaling up and down again blurs, which a few faint keypoints feel; all of them would feel a wrong place.
    assert (np.median(np.abs(moved), axis=0) < 1.5).all()
    assert (np.abs(np.median(moved, axis=0)) < 0.5).all()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint("yolo11n-pose", tmp_path_factory.mktemp("weights") / "pitch.pt")


def pitch(source: Path, out: Path, size: tuple[int, int], pitch_size: tuple[int, int] | None) -> Path:
    options = ExportOptions("onnx", out, size, precision="fp32", confidence=0.01, pitch_size=pitch_size)
    done = written("pitch", source, options)
    assert done.size == size
    return done.file


def test_a_pose_network_of_its_own_size(weights: Path, tmp_path: Path) -> None:
    """Frames that scale without a remainder show the network the very same pixels."""
    alone = run_onnxruntime(pitch(weights, tmp_path / "small", (192, 320), None), frames(2, size=(192, 320)))
    doubled = frames(2, size=(192, 320)).repeat(2, axis=1).repeat(2, axis=2)
    behind = run_onnxruntime(pitch(weights, tmp_path / "large", (384, 640), (192, 320)), doubled)
    assert alone[..., 2].any()
    np.testing.assert_allclose(behind[..., :2], 2 * alone[..., :2], atol=1.5)
    np.testing.assert_allclose(behind[..., 2], alone[..., 2], atol=0.01)


def test_without_a_size_of_its_own_nothing_changes(weights: Path, tmp_path: Path) -> None:
    plain = pitch(weights, tmp_path / "a", (192, 320), None).read_bytes()
    assert pitch(weights, tmp_path / "b", (192, 320), (192, 320)).read_bytes() == plain


def test_a_size_that_cannot_be(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--pitch-imgsz 380x640: height and width must be multiples of 32"):
        ExportOptions("onnx", tmp_path, pitch_size=(380, 640))
    with pytest.raises(ExportError, match="--pitch-imgsz: there are no weights for the pitch"):
        export_models({"player": weights}, ExportOptions("onnx", tmp_path, pitch_size=SMALL))
    with pytest.raises(WeightsError, match=r"pitch\.onnx: the size .* is fixed in it\. Give the \.pt"):
        pitch(BUNDLED, tmp_path, (576, 1024), SMALL)
