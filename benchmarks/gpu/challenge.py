"""Whole challenges with DEVICE=cuda on this host: stage times by the CPU's decoder and NVDEC, one and four at once.

Triton is the wheel's. Its models are the bundled networks in PyTorch on the GPU (`--engine torch`, see torch_engine.py;
`--packages` says where torch is), or answer at once (`--engine instant`), which leaves the gateway's own time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.common import NO_LIMITS, cpu_seconds, fresh
from benchmarks.gpu.steps import FAILED, OK, finish, need_gpu, say
from benchmarks.quick_engine import write_quick_engine
from local.stack import LocalGateway, make_keys
from local.triton import LocalTriton
from local.validator import Outcome, send_challenge, served_file

ROOT = Path(__file__).resolve().parents[2]
SIZE = (576, 1024)
STAGES = ("decode", "infer", "track")

_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 32
input [ {{ name: "frames" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {rows}, {columns} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ preferred_batch_size: [ 8, 16, 32 ] max_queue_delay_microseconds: 2000 }}
"""
# KIND_CPU: the model's process takes the GPU itself, Triton need not know of it.
_MODEL = """
import sys
sys.path += {path!r}
import numpy as np
import triton_python_backend_utils as pb_utils
from benchmarks.gpu.torch_engine import Engine

class TritonPythonModel:
    def initialize(self, args):
        self.engine = Engine({name!r}, {device!r})

    def execute(self, requests):
        parts = [pb_utils.get_input_tensor_by_name(request, "frames").as_numpy() for request in requests]
        rows = self.engine(parts[0] if len(parts) == 1 else np.concatenate(parts))
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor({output!r}, np.ascontiguousarray(part, np.float32))])
            for part in np.split(rows, ends)
        ]
"""


def write_torch_models(folder: Path, packages: list[str], device: str) -> Path:
    """A model repository whose models are torch_engine.Engine; the folder itself."""
    for name, output, rows, columns in (("player", "detections", 150, 6), ("pitch", "keypoints", 32, 3)):
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(
            _MODEL.format(path=[str(ROOT), *packages], name=name, device=device, output=output)
        )
        (version.parent / "config.pbtxt").write_text(
            _CONFIG.format(name=name, output=output, rows=rows, columns=columns, height=SIZE[0], width=SIZE[1])
        )
    return folder


def measured(triton: LocalTriton, folder: Path, url: str, *, device: str, decoder: str, stride: int, runs: int) -> str:
    """Start a gateway with these settings and send challenges; what is told of them. Raises what they raise."""
    keys = make_keys(folder)
    log = folder / f"gateway-{decoder}-{stride}.log"
    settings = {
        **NO_LIMITS, **keys.environment(), "TRITON_URLS": triton.grpc_url, "TRITON_SHARED_MEMORY": "system",
        "DEVICE": device, "VIDEO_DECODER": decoder, "FRAME_STRIDE": str(stride), "PITCH_STRIDE": str(stride),
        "MAX_CONCURRENT_CHALLENGES": "4",
    }  # fmt: skip
    gateway = LocalGateway(settings, log=log)
    try:
        gateway.start()
        gateway.wait_ready()

        def challenge() -> Outcome:
            return send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, fresh(url))

        challenge()
        pid = gateway.pid or 0
        before = cpu_seconds(pid)
        alone = [challenge() for _ in range(runs)]
        spent = (cpu_seconds(pid) - before) / runs
        four: list[float] = []
        threads = [threading.Thread(target=lambda: four.append(challenge().elapsed_s)) for _ in range(4)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        all_s = time.perf_counter() - began
    finally:
        gateway.stop()
    stages = {
        stage: round(statistics.median(outcome.stage_seconds[stage] for outcome in alone), 3)
        for stage in alone[0].stage_seconds
    }
    through = [
        line.rsplit("frames through", 1)[1].strip() for line in log.read_text().splitlines() if "frames through" in line
    ]
    elapsed = statistics.median(outcome.elapsed_s for outcome in alone)
    say(
        decoder=decoder, stride=stride, alone_s=[round(outcome.elapsed_s, 3) for outcome in alone], stages=stages,
        gateway_cpu_s=round(spent, 3), four_s=[round(value, 3) for value in four], four_in_all_s=round(all_s, 3),
        frames_through=through[-1:],
    )  # fmt: skip
    longest = max((stage for stage in STAGES if stage in stages), key=lambda stage: stages[stage])
    at_once = f"four at once {all_s:.2f}" if len(four) == 4 else f"only {len(four)} of four at once were answered"
    parts = ", ".join(f"{stage} {stages[stage]}" for stage in STAGES if stage in stages)
    return f"{decoder} {elapsed:.2f} s ({parts}; longest: {longest}), {at_once}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--engine", choices=("torch", "instant"), default="instant")
    parser.add_argument("--packages", nargs="*", default=[], help="folders that hold torch, for Triton's Python")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script")
    parser.add_argument("--strides", type=int, nargs="*", default=[2])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        need_gpu()
    decoders = ("cpu", "nvdec") if arguments.device == "cuda" else ("cpu",)
    os.environ.setdefault("YOLO_OFFLINE", "true")
    found, failed = [], False
    with tempfile.TemporaryDirectory() as name, served_file(arguments.clip.resolve()) as url:
        folder = Path(name)
        models = (
            write_torch_models(folder / "models", arguments.packages, arguments.device)
            if arguments.engine == "torch"
            else write_quick_engine(folder / "models", SIZE)
        )
        with LocalTriton(models, log=folder / "triton.log") as triton:
            triton.wait_ready(90)
            for stride in arguments.strides:
                for decoder in decoders:
                    try:
                        text = measured(
                            triton, folder, url,
                            device=arguments.device, decoder=decoder, stride=stride, runs=arguments.runs,
                        )  # fmt: skip
                    except Exception as error:
                        failed = True
                        text = f"{decoder}: {type(error).__name__}: {error}"[:300]
                        say(decoder=decoder, stride=stride, failed=text)
                    found.append(f"stride {stride}, {text}")
    finish(FAILED if failed else OK, "; ".join(found))


if __name__ == "__main__":
    main()
