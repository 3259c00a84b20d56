"""A packaged miner as an audit runs it: `python -m export.chute.worker FOLDER PICTURES.npz ENGINE CALLS`.

A process of its own under the audit's limits, without a network and without imports from the folder. Writes a line of
JSON after the start and one after each call: first one of all pictures, then CALLS of one picture. ENGINE is what runs
the network: cpu, openvino, cuda, or half, which is a CPU that computes as a GPU would.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

ADDRESS_SPACE: Final = 8 * 2**30
OPEN_FILES: Final = 128
PROCESSES: Final = 16
N_KEYPOINTS: Final = 32
_PROJECT: Final = Path(__file__).parents[2]
_DENIED: Final = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto")


def main(folder: Path, pictures: Path, engine: str, calls: int) -> None:
    with np.load(pictures) as stored:
        images = [stored[name] for name in stored.files]
    limit()
    use(engine)
    block(folder.resolve())
    begun = time.perf_counter()
    miner = load(folder.resolve())
    tell({"init_s": time.perf_counter() - begun})
    begun = time.perf_counter()
    rows = answer(miner, images)
    tell({"all_s": time.perf_counter() - begun, "frames": rows, "threads": threads(), "peak_gib": peak_gib()})
    for number in range(calls):
        begun = time.perf_counter()
        answer(miner, [images[number % len(images)]])
        tell({"one_s": time.perf_counter() - begun})


def limit() -> None:
    """The audit's limits; that of processes counts all of a user and none of root's, so threads are counted instead."""
    for what, most in ((resource.RLIMIT_AS, ADDRESS_SPACE), (resource.RLIMIT_NOFILE, OPEN_FILES)):
        hard = resource.getrlimit(what)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))


def block(folder: Path) -> None:
    """From now on no connection and no import of a file in `folder`, or of ours, succeeds."""

    def deny(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _DENIED:
            raise PermissionError(f"no network in a chute ({event})")

    class Blocked:
        @staticmethod
        def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            origin = Path(spec.origin) if spec and spec.origin else None
            if origin and origin.is_relative_to(folder):
                raise ImportError(f"{name} lies in the package's folder, from which a chute imports miner.py alone")
            if origin and origin.is_relative_to(_PROJECT) and "site-packages" not in origin.parts:
                raise ImportError(f"{name} is not installed in a chute")

    sys.addaudithook(deny)
    sys.meta_path.insert(0, Blocked)
    sys.dont_write_bytecode = True


def load(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("scorevision_hf_miner", folder / "miner.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Miner(path_hf_repo=folder)


def answer(miner: Any, images: list[Any]) -> list[dict[str, Any]]:
    results = miner.predict_batch(batch_images=images, offset=0, n_keypoints=N_KEYPOINTS)
    return [each.model_dump() if hasattr(each, "model_dump") else dict(each) for each in results]


def use(engine: str) -> None:
    """Let the miner's ONNX Runtime be another engine."""
    import onnxruntime

    real = onnxruntime.InferenceSession
    if engine == "half":
        from export import half_emulation, precision  # noqa: F401  before nothing of ours can be imported

    def session(model: Any, options: Any = None, **others: Any) -> Any:
        others.pop("providers", None)
        if engine == "openvino":
            return OpenVino(real(model, options, providers=["CPUExecutionProvider"]), model)
        if engine == "cuda":
            return real(model, options, providers=[("CUDAExecutionProvider", {"use_tf32": 0}), "CPUExecutionProvider"])
        if engine == "half":
            model, options = rounded(model, options)
        return real(model, options, providers=["CPUExecutionProvider"])

    onnxruntime.InferenceSession = session


class OpenVino:
    """An ONNX Runtime session whose runs are OpenVINO's, in FP32."""

    def __init__(self, real: Any, path: str) -> None:
        import openvino

        self._real = real
        self._core = openvino.Core()
        self._path = path
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run(self, outputs: object, given: dict[str, Any]) -> list[Any]:
        (frames,) = given.values()
        if frames.shape not in self._compiled:
            model = self._core.read_model(self._path)
            model.reshape({0: list(frames.shape)})
            hint = {"INFERENCE_PRECISION_HINT": "f32"}
            self._compiled[frames.shape] = self._core.compile_model(model, "CPU", hint)
        return [np.asarray(self._compiled[frames.shape]([frames])[0])]


def rounded(path: str, options: Any) -> tuple[bytes, Any]:
    """The network as a GPU computes it, as an ONNX file of FP32 with the options of its session.

    Of FP16's rounding everywhere FP16 would compute; or of INT8, which ONNX Runtime's GPU undoes before each layer.
    """
    import onnx
    import onnxruntime

    from export.half_emulation import half_emulated
    from export.precision import half_computed, is_quantized

    network = onnx.load(path)
    if not is_quantized(network):
        as_half = half_emulated(half_computed(network))
        del as_half.metadata_props[:]
        as_half.metadata_props.extend(network.metadata_props)
        return bytes(as_half.SerializeToString()), options
    options = options or onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return bytes(network.SerializeToString()), options


def threads() -> int:
    """Of this process now, with those of its children."""
    return len(list(Path("/proc/self/task").iterdir()))


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def tell(said: dict[str, Any]) -> None:
    os.write(_OUT, json.dumps(said, default=float).encode() + b"\n")


if __name__ == "__main__":
    _OUT = os.dup(1)
    os.dup2(2, 1)  # what a miner prints is none of ours
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
