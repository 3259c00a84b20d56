"""Suppression inside the graph keeps exactly the boxes that plain greedy suppression keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytestmark = pytest.mark.export

IOU, CONFIDENCE = 0.5, 0.1
COUNT = 512
"""As many rows as suppression by rounds looks at by default."""


def greedy(rows: npt.NDArray[np.float32], iou: float = IOU) -> list[int]:
    """Indices of the kept rows [K, 6]: the definition, in plain loops."""
    kept: list[int] = []
    for index in np.argsort(-rows[:, 4], kind="stable"):
        if rows[index, 4] <= CONFIDENCE:
            break
        if all(rows[other, 5] != rows[index, 5] or overlap(rows[other], rows[index]) <= iou for other in kept):
            kept.append(int(index))
    return sorted(kept)


def overlap(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(float(width), 0.0) * max(float(height), 0.0)
    return common / float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def crowd(seed: int, count: int = COUNT) -> npt.NDArray[np.float32]:
    """Random rows [count, 6], best first, around so few places that everything overlaps."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, (640, 384), (int(rng.integers(3, 60)), 2))
    centre = places[rng.integers(0, len(places), count)] + rng.normal(0, rng.uniform(2, 25), (count, 2))
    half = rng.uniform(4, 40, (count, 2))
    score = np.sort(rng.uniform(0.02, 1, count))[::-1]
    label = rng.integers(0, 4, count)
    return np.column_stack([centre - half, centre + half, score, label]).astype(np.float32)


def chain(length: int, count: int = COUNT) -> npt.NDArray[np.float32]:
    """A row of boxes, each overlapping only its neighbours by more than IOU: every second one stays."""
    rows = np.zeros((count, 6), np.float32)
    left = np.arange(length, dtype=np.float32) * 3
    rows[:length] = np.stack([left, 0 * left, left + 10, 0 * left + 10, np.linspace(0.9, 0.2, length), 0 * left], 1)
    return rows


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ONNX files from rows [N, COUNT, 8] (box, four class scores) to the kept rows, with either suppression."""
    import torch

    from export.graph import Detections, Thresholds, traced

    folder = tmp_path_factory.mktemp("suppression")
    files = {}
    for kind in ("operator", "rounds"):
        module = Detections(
            (0, 1, 2, 3), Thresholds(CONFIDENCE, IOU, max_detections=COUNT, suppression=kind, candidates=COUNT)
        )
        files[kind] = folder / f"{kind}.onnx"
        files[kind].write_bytes(traced(module, (COUNT, 8), torch.float32, "rows", "kept").SerializeToString())
    return files


@pytest.fixture(scope="module")
def crowds() -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
    """A hundred crowds, and what of each plain greedy suppression keeps."""
    rows = np.stack([crowd(seed) for seed in range(100)])
    return rows, [frame[greedy(frame)] for frame in rows]


def answers(file: Path, engine: str, rows: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """Kept rows of each frame of rows [N, K, 6], whose class becomes a one-hot score first."""
    from tests.export.networks import ENGINES

    shuffled = rows[:, np.random.default_rng(0).permutation(rows.shape[1])]
    one_hot = (shuffled[..., 5:] == np.arange(4)) * shuffled[..., 4:5]
    out = ENGINES[engine](file, np.concatenate([shuffled[..., :4], one_hot], 2).astype(np.float32))
    return [frame[frame[:, 4] > 0] for frame in out]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["operator", "rounds"])
def test_random_crowds(
    graphs: dict[str, Path],
    crowds: tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]],
    kind: str,
    engine: str,
) -> None:
    rows, expected = crowds
    for got, kept in zip(answers(graphs[kind], engine, rows), expected, strict=True):
        np.testing.assert_array_equal(got, kept)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_chains_of_any_length_with_the_operator(graphs: dict[str, Path], engine: str) -> None:
    rows = np.stack([chain(length) for length in (2, 3, 33, 150, COUNT)])
    for got, frame in zip(answers(graphs["operator"], engine, rows), rows, strict=True):
        np.testing.assert_array_equal(got, frame[greedy(frame)])


def test_chains_up_to_the_rounds_and_no_further() -> None:
    """What the docstring of greedy_keep promises, and where the promise ends."""
    import torch

    from export.graph import greedy_keep

    def kept(length: int, rounds: int) -> list[int]:
        keep = greedy_keep(torch.from_numpy(chain(length)[None]), IOU, CONFIDENCE, rounds)
        return np.flatnonzero(keep[0].numpy()).tolist()

    for rounds in (4, 32):
        assert kept(rounds + 1, rounds) == greedy(chain(rounds + 1))
        assert kept(rounds + 3, rounds) != greedy(chain(rounds + 3))


def test_crowds_settle_in_a_few_rounds() -> None:
    """The default number of rounds is at least twice what the worst of 200 crowds needs."""
    import torch

    from export.graph import Thresholds, greedy_keep

    def rounds_needed(rows: torch.Tensor) -> int:
        settled = greedy_keep(rows, IOU, CONFIDENCE, 64)
        return next(n for n in range(1, 64) if torch.equal(greedy_keep(rows, IOU, CONFIDENCE, n), settled))

    assert Thresholds().candidates == COUNT
    worst = max(
        rounds_needed(torch.from_numpy(np.stack([crowd(seed) for seed in range(start, start + 50)])))
        for start in range(0, 200, 50)
    )
    print(f"worst of 200 crowds: {worst} rounds")
    assert 2 <= worst <= Thresholds().rounds // 2


def test_boxes_without_area_do_no_harm(graphs: dict[str, Path]) -> None:
    rows = crowd(1)
    rows[::3, 2:4] = rows[::3, :2]
    for kind, file in graphs.items():
        (got,) = answers(file, "onnxruntime", rows[None])
        assert np.isfinite(got).all(), kind
        assert len(got) >= (rows[::3, 4] > CONFIDENCE).sum(), kind
