"""Train the player model: `python -m training.train_player --data DIR --init weights.pt --out DIR`.

Ultralytics' network and loss; the pictures, the loop and the choice of the best weights are ours, because whole frames
at 544x960, bfloat16 on a CPU and pasted balls are not what its trainer does.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from ultralytics import __version__ as ultralytics_version
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression

from touchline.contract import CLASS_NAMES, Letterbox
from training.data import letterbox
from training.metrics import score_boxes
from training.player_data import PlayerDataset, PlayerSample, collate, load_player_views, load_players

CLASS_WEIGHTS = (2.0, 2.0, 1.0, 3.0)
"""Weight of each class in the classification loss: 24 players come with one or two of anything else."""


def build(config: str, init: Path | None) -> tuple[nn.Module, int]:
    """An Ultralytics detection model of `config` (a YAML name) and how many tensors of `init` it took."""
    model = DetectionModel(config, nc=len(CLASS_NAMES), verbose=False)
    model.args = get_cfg(overrides={"box": 7.5, "cls": 0.5, "dfl": 1.5})
    model.names = dict(enumerate(CLASS_NAMES))
    model.class_weights = torch.tensor(CLASS_WEIGHTS)
    taken: dict[str, torch.Tensor] = {}
    if init:
        checkpoint = torch.load(init, map_location="cpu", weights_only=False)
        source = (checkpoint.get("ema") or checkpoint["model"]).float().state_dict()
        own = model.state_dict()
        taken = {k: v for k, v in source.items() if k in own and v.shape == own[k].shape}
        model.load_state_dict(taken, strict=False)
    return model, len(taken)


@torch.no_grad()
def detect(
    model: nn.Module, samples: list[PlayerSample], size: tuple[int, int], device: torch.device
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels [n, 5] and detections float32 [m, 6] (x1 y1 x2 y2 score class) of each sample, in its own pixels."""
    model.eval()
    pairs = []
    for sample in samples:
        image = sample.image()
        frame = torch.from_numpy(letterbox(image, size).transpose(2, 0, 1)[None].copy()).to(device).float() / 255
        found = non_max_suppression(model(frame)[0], 0.001, 0.6, max_det=300)[0].cpu().numpy()
        box = Letterbox(image.shape[1], image.shape[0], size[1], size[0])
        corners = box.to_source(found[:, :4].reshape(-1, 2)).reshape(-1, 4)
        pairs.append((sample.boxes, np.column_stack([corners, found[:, 4:6]]).astype(np.float32)))
    return pairs


def save(model: nn.Module, path: Path, **notes: Any) -> None:
    """Write a checkpoint that Ultralytics' YOLO(path) reads: the averaged model in half precision, nothing else."""
    stripped = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).half().eval()
    stripped.criterion = None
    del stripped.class_weights
    for parameter in stripped.parameters():
        parameter.requires_grad = False
    torch.save(
        {
            "model": stripped,
            "ema": None,
            "train_args": {"task": "detect", "imgsz": 960, "single_cls": False},
            "date": datetime.now(UTC).isoformat(),
            "version": ultralytics_version,
            "license": "AGPL-3.0",
            "notes": notes,
        },
        path,
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the player set with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="last.pt (resumable), best.pt, log.txt")
    parser.add_argument("--init", type=Path, help="Ultralytics checkpoint to start from")
    parser.add_argument("--config", default="yolo11n.yaml")
    parser.add_argument("--synthetic", type=Path, help="views written by training.make_views")
    parser.add_argument("--synthetic-share", type=float, default=0.25)
    parser.add_argument("--size", type=int, nargs=2, default=(448, 800), help="height and width of training pictures")
    parser.add_argument("--val-size", type=int, nargs=2, default=(544, 960), help="height and width in validation")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=400, help="pictures an epoch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.02)
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
    size, val_size = (options.size[0], options.size[1]), (options.val_size[0], options.val_size[1])
    options.out.mkdir(parents=True, exist_ok=True)

    real, val = load_players(options.data, "train"), load_players(options.data, "val")
    synthetic = load_player_views(options.synthetic) if options.synthetic else []
    dataset = PlayerDataset(real, synthetic, options.pictures, options.synthetic_share, options.seed, size)
    model, taken = build(options.config, options.init)
    counts = f"{len(real)} real, {len(synthetic)} synthetic, {len(val)} val pictures"
    print(f"{counts} on {device}; {taken} tensors taken", flush=True)
    model.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    model.criterion = model.init_criterion()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate)
    steps = options.pictures // options.batch
    total, step, first, best = steps * options.epochs, 0, 0, -1.0
    last = options.out / "last.pt"
    if last.exists():
        stored = torch.load(last, map_location=device, weights_only=True)
        model.load_state_dict(stored["net"])
        average.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        step, first, best = stored["step"], stored["epoch"] + 1, stored["best"]
        print(f"resumed after epoch {first}", flush=True)

    for epoch in range(first, options.epochs):
        dataset.epoch = epoch
        loader = DataLoader(
            dataset,
            options.batch,
            num_workers=options.workers,
            collate_fn=collate,
            drop_last=True,
            pin_memory=device.type == "cuda",
        )
        model.train()
        begun, sums = time.monotonic(), np.zeros(3)
        for items in loader:
            progress = step / total
            rate = options.rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = {key: value.to(device) for key, value in items.items()}
            batch["img"] = batch["img"].to(memory_format=torch.channels_last).float() / 255
            with torch.autocast(device.type, torch.bfloat16):
                outputs = model(batch["img"])
            outputs = {k: [f.float() for f in v] if isinstance(v, list) else v.float() for k, v in outputs.items()}
            loss, parts = model.criterion(outputs, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            step += 1
            keep = min(0.998, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                    if mean.is_floating_point():
                        mean.lerp_(now, 1 - keep)
                    else:
                        mean.copy_(now)
            values = list(parts.values()) if isinstance(parts, dict) else list(parts)
            sums += [float(v) for v in values]
        precision = score_boxes(detect(average, val, val_size, device))
        quality = float(np.nanmean(list(precision.values())))
        shown = "  ".join(f"{key} {value:.3f}" for key, value in precision.items())
        box, cls, dfl = sums / steps
        line = (
            f"epoch {epoch + 1}/{options.epochs}  {steps * options.batch / (time.monotonic() - begun):.1f} img/s  "
            f"box {box:.3f} class {cls:.3f} dfl {dfl:.3f}  val AP50 {shown}  mean {quality:.3f}"
        )
        print(line, flush=True)
        with (options.out / "log.txt").open("a") as log:
            log.write(line + "\n")
        if quality > best:
            best = quality
            save(average, options.out / "best.pt", epoch=epoch + 1, val=shown)
        state = {"net": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "step": step, "epoch": epoch, "best": best}, options.out / "last.part")
        (options.out / "last.part").replace(last)


if __name__ == "__main__":
    main()
