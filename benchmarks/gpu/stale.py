"""Whether Triton answers each request with its own result: AAAABBBB, two different batches alternately, many at once.

An engine with CUDA graphs was seen to answer a request with another's result (triton-inference-server/server #8550).
Needs tritonclient and NumPy alone, so that it also runs in the gateway's container, where Triton can be reached:
`docker compose exec -T gateway python - < benchmarks/gpu/stale.py`. Elsewhere: `python -m benchmarks.gpu.stale URL`.
Ends with a line of JSON; status 1 when a result was another's, 77 when nothing can be told.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

OUTPUTS = {"player": "detections", "pitch": "keypoints"}
ROUNDS = int(os.environ.get("STALE_ROUNDS", "40"))
"""Requests of each of the two batches; as many as four are at Triton at once."""
BATCH = int(os.environ.get("STALE_BATCH", "8"))


def pictures(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """A batch unlike that of another seed: blocks of colour, so that the networks see something."""
    rng = np.random.default_rng(seed)
    batch, height, width, channels = shape
    blocks = rng.integers(0, 256, (batch, -(-height // 32), -(-width // 32), channels), np.uint8)
    return np.ascontiguousarray(blocks.repeat(32, 1).repeat(32, 2)[:, :height, :width])


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def main() -> int:
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TRITON_URLS", "127.0.0.1:8001").split(",")[0]
    client = grpcclient.InferenceServerClient(url, channel_args=[("grpc.enable_http_proxy", 0)])
    try:
        served = [name for name in OUTPUTS if client.is_model_ready(name)]
    except InferenceServerException as error:
        print(json.dumps({"finding": f"no Triton at {url}: {error.message()}"[:200]}))
        return 77
    wrong, told, found = 0, 0, []
    for model in served:
        dims = client.get_model_metadata(model).inputs[0].shape[1:]
        batches = {name: pictures(seed, (BATCH, *map(int, dims))) for seed, name in enumerate("AB")}

        def ask(name: str, model: str = model, batches: dict[str, np.ndarray] = batches) -> tuple[str, np.ndarray]:
            tensor = grpcclient.InferInput("frames", list(batches[name].shape), "UINT8")
            tensor.set_data_from_numpy(batches[name])
            return name, client.infer(model, [tensor]).as_numpy(OUTPUTS[model])

        # Twice: one that answers with what was asked before would agree with itself.
        alone = {name: [ask(name)[1] for _ in range(2)][-1] for name in "AB"}
        apart = distance(alone["A"], alone["B"])
        if apart == 0:
            found.append(f"{model}: sees nothing in either batch, so nothing is told")
            continue
        told += 1
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, islice(cycle("AAAABBBB"), 2 * ROUNDS)))
        stale = sum(
            distance(answer, alone[name]) > distance(answer, alone["AB".replace(name, "")]) for name, answer in answers
        )
        wrong += stale
        worst = max(distance(answer, alone[name]) for name, answer in answers)
        found.append(
            f"{model}: {stale} of {len(answers)} another's, at most {worst:.4f} from its own ({apart:.3f} apart)"
        )
    print(json.dumps({"finding": "; ".join(found) or f"Triton at {url} serves neither model"}))
    if wrong:
        return 1
    return 0 if served and told == len(served) else 77


if __name__ == "__main__":
    sys.exit(main())
