"""The pitch network's maps decode to the peak; training lowers its loss; its file answers as the network does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")

from training.pitch_model import DecodedPitch, PitchNet, decode, initialise, load, save  # noqa: E402
from training.train_pitch import point_loss  # noqa: E402

pytestmark = pytest.mark.export


def gaussian(x: float, y: float, height: int = 96, width: int = 160) -> Any:
    """Log of a Gaussian at x, y in input pixels."""
    rows = (torch.arange(height) + 0.5) * 4
    columns = (torch.arange(width) + 0.5) * 4
    return -0.5 * (((columns - x) / 4) ** 2 + ((rows[:, None] - y) / 4) ** 2)


def test_decode_is_sub_pixel_and_knows_absence() -> None:
    points = torch.full((2, 32, 96, 160), -20.0)
    places = [(100.3, 57.7), (400.0, 200.0), (13.1, 370.2)]
    for index, (x, y) in enumerate(places):
        points[1, index] = gaussian(x, y) + 5
    keypoints = decode(points, torch.zeros(2, 32))
    for index, (x, y) in enumerate(places):
        assert keypoints[1, index, :2].tolist() == pytest.approx([x, y], abs=0.3)
        assert keypoints[1, index, 2] > 0.95
    assert (keypoints[0, :, 2] < 0.01).all()
    assert torch.isfinite(keypoints).all()


def test_confidence_is_the_probability_of_being_there() -> None:
    points = torch.full((1, 32, 96, 160), -30.0)
    points[0, 0] = torch.logaddexp(gaussian(100, 100), gaussian(500, 300) + np.log(0.5).item())
    keypoints = decode(points, torch.full((1, 32), -30.0))
    assert keypoints[0, 0, :2].tolist() == pytest.approx([100, 100], abs=0.5)
    assert float(keypoints[0, 0, 2]) == pytest.approx(2 / 3, abs=0.01)


def test_loss_prefers_the_truth_and_leaves_the_unknown_out() -> None:
    where = torch.full((1, 32, 2), 200.0)
    state = torch.zeros(1, 32, dtype=torch.int8)
    state[0, 0], state[0, 1] = 1, -1
    right = torch.full((1, 32, 96, 160), -20.0)
    right[0, 0] = gaussian(200, 200) + 8
    absent = torch.zeros(1, 32)
    absent[0, 0] = -10
    low = point_loss(right, absent, where, state)
    assert 0 <= float(low) < 0.01
    missed = right.clone()
    missed[0, 0] = -20
    invented = right.clone()
    invented[0, 5] = gaussian(50, 50) + 8
    ignored = right.clone()
    ignored[0, 1] = gaussian(50, 50) + 8
    assert point_loss(missed, absent, where, state) > low + 0.1
    assert point_loss(invented, absent, where, state) > low + 0.1
    assert float(point_loss(ignored, absent, where, state)) == pytest.approx(float(low))


def test_a_few_steps_learn_a_picture() -> None:
    torch.manual_seed(0)
    net = PitchNet(32).train()
    images = torch.rand(2, 3, 64, 96)
    where = torch.tensor([(30.0, 20.0), (70.0, 40.0)]).repeat(1, 16, 1).expand(2, -1, -1)
    state = torch.ones(2, 32, dtype=torch.int8)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        points, absent, _ = net(images)
        loss = point_loss(points, absent, where, state)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_saved_weights_answer_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = PitchNet(32).eval()
    save(net, tmp_path / "pitch.pt", note="x")
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        again = load(tmp_path / "pitch.pt")
        assert torch.allclose(again(images)[0], net(images)[0], atol=0.05)
        assert DecodedPitch(again)(images).shape == (1, 32, 3)
    fresh = PitchNet(32)
    assert initialise(fresh, tmp_path / "pitch.pt") == len(net.state_dict())
