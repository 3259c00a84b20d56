"""Train the pitch network: `python -m training.train_pitch --data DIR --init weights.pt --out DIR`."""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from touchline.contract import DEFAULT_SIZE, Letterbox
from training.data import UNKNOWN, VISIBLE, PitchDataset, PitchSample, letterbox, load_pitch, load_views
from training.geometry import STRIDE
from training.metrics import PitchScore, score_pitch
from training.pitch_model import DecodedPitch, PitchNet, initialise, save

SIGMA = 1.0
"""Spread of a target, in cells."""


def point_loss(points: Tensor, absent: Tensor, where: Tensor, state: Tensor) -> Tensor:
    """Cross-entropy of each keypoint's map against a small Gaussian, or against the "not in view" cell.

    Maps float32 [N, 32, h, w], absence [N, 32], where float32 [N, 32, 2] in input pixels, state int8 [N, 32].
    """
    height, width = points.shape[2:]
    logits = torch.cat([points.flatten(2), absent.unsqueeze(2)], 2).float().log_softmax(2)
    maps = logits[..., :-1].unflatten(2, (height, width))
    columns = torch.arange(width, device=points.device) + 0.5
    rows = torch.arange(height, device=points.device) + 0.5
    across = torch.softmax(-0.5 * ((columns - where[..., :1] / STRIDE) / SIGMA) ** 2, 2)
    down = torch.softmax(-0.5 * ((rows - where[..., 1:] / STRIDE) / SIGMA) ** 2, 2)
    # The entropy of the target is subtracted, so that a perfect map costs nothing.
    entropy = -(across * across.clamp(min=1e-9).log()).sum(2) - (down * down.clamp(min=1e-9).log()).sum(2)
    present = -torch.einsum("nkhw,nkh,nkw->nk", maps, down, across) - entropy
    loss = torch.where(state == VISIBLE, present, -logits[..., -1])
    return loss[state != UNKNOWN].mean()


def line_loss(lines: Tensor, target: Tensor, lined: Tensor) -> Tensor:
    """Binary cross-entropy of the painted lines where they are known; a line weighs 5 times as much as grass."""
    if not bool(lined.any()):
        return lines.sum() * 0
    logits, goal = lines[lined].float(), target[lined]
    return functional.binary_cross_entropy_with_logits(logits, goal, weight=1 + 4 * goal)


@torch.no_grad()
def predict(net: PitchNet, samples: list[PitchSample], device: torch.device) -> list[np.ndarray]:
    """Keypoints float32 [32, 3] of each sample, in the sample's own pixels."""
    model = DecodedPitch(net).eval()
    results = []
    for sample in samples:
        image = sample.image()
        frame = torch.from_numpy(letterbox(image).transpose(2, 0, 1)[None].copy()).to(device).float() / 255
        keypoints = model(frame)[0].float().cpu().numpy()
        box = Letterbox(image.shape[1], image.shape[0], DEFAULT_SIZE[1], DEFAULT_SIZE[0])
        results.append(np.column_stack([box.to_source(keypoints[:, :2]), keypoints[:, 2]]))
    return results


def validate(net: PitchNet, samples: list[PitchSample], device: torch.device, threshold: float = 0.5) -> PitchScore:
    """Score a network on samples."""
    predictions = predict(net, samples, device)
    return score_pitch(
        (
            (s.points.astype(np.float64), s.state == VISIBLE, p, s.image().shape[1::-1])
            for s, p in zip(samples, predictions, strict=True)
        ),
        threshold,
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the pitch set with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="last.pt (resumable), best.pt, log.txt")
    parser.add_argument("--init", type=Path, help="Ultralytics checkpoint (its trunk is taken) or pitch weights")
    parser.add_argument("--synthetic", type=Path, help="views written by training.make_views")
    parser.add_argument("--synthetic-share", type=float, default=0.4)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=1200, help="pictures an epoch")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--decay", type=float, default=0.02)
    parser.add_argument("--width", type=int, default=64, help="channels of the head")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's default")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train, resuming from OUT/last.pt where there is one."""
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    name = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    options.out.mkdir(parents=True, exist_ok=True)

    real, val = load_pitch(options.data, "train"), load_pitch(options.data, "val")
    synthetic = load_views(options.synthetic) if options.synthetic else []
    print(f"{len(real)} real, {len(synthetic)} synthetic, {len(val)} val pictures on {device}", flush=True)
    dataset = PitchDataset(real, synthetic, options.pictures, options.synthetic_share, options.seed)
    net = PitchNet(options.width)
    if options.init:
        print(f"{initialise(net, options.init)} tensors from {options.init.name}", flush=True)
    net.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(net).eval()
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate)
    steps = options.pictures // options.batch
    total, step, first, best = steps * options.epochs, 0, 0, -1.0
    last = options.out / "last.pt"
    if last.exists():
        stored = torch.load(last, map_location=device, weights_only=True)
        net.load_state_dict(stored["net"])
        average.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        step, first, best = stored["step"], stored["epoch"] + 1, stored["best"]
        print(f"resumed after epoch {first}", flush=True)

    for epoch in range(first, options.epochs):
        dataset.epoch = epoch
        loader = DataLoader(
            dataset, options.batch, num_workers=options.workers, drop_last=True, pin_memory=device.type == "cuda"
        )
        net.train()
        begun, sums = time.monotonic(), np.zeros(2)
        for batch in loader:
            progress = step / total
            rate = options.rate * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            images = batch["image"].to(device).to(memory_format=torch.channels_last).float() / 255
            with torch.autocast(device.type, torch.bfloat16):
                points, absent, lines = net(images)
            on_points = point_loss(
                points.float(), absent.float(), batch["points"].to(device), batch["state"].to(device)
            )
            on_lines = line_loss(lines, batch["lines"].to(device), batch["lined"].to(device))
            optimizer.zero_grad(set_to_none=True)
            (on_points + on_lines).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            step += 1
            keep = min(0.998, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, now in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
                    if mean.is_floating_point():
                        mean.lerp_(now, 1 - keep)
                    else:
                        mean.copy_(now)
            sums += [on_points.item(), on_lines.item()]
        score = validate(average, val, device)
        quality = score.found_share - score.false_share
        means = sums / steps
        line = (
            f"epoch {epoch + 1}/{options.epochs}  {steps * options.batch / (time.monotonic() - begun):.1f} img/s  "
            f"points {means[0]:.3f} lines {means[1]:.4f}  val {score.row()}"
        )
        print(line, flush=True)
        with (options.out / "log.txt").open("a") as log:
            log.write(line + "\n")
        if quality > best:
            best = quality
            save(average, options.out / "best.pt", epoch=epoch + 1, val=score.row())
        state = {"net": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "step": step, "epoch": epoch, "best": best}, options.out / "last.part")
        (options.out / "last.part").replace(last)


if __name__ == "__main__":
    main()
