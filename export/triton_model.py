"""Writes what Triton serves: a model directory with its config.pbtxt, from one typed description."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from touchline.contract import DETECTIONS, INPUT, KEYPOINT_COUNT, KEYPOINTS

Engine = Literal["tensorrt", "openvino", "onnxruntime"]
CpuPrecision = Literal["auto", "f32", "bf16"]

VERSION = "1"
ONNX_FILE = "model.onnx"
PLAN_FILE = "model.plan"
CPU_BACKEND = Path(__file__).parent / "cpu_backend" / "model.py"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of the contract as Triton is told about it.

    `size` is H, W in pixels; `rows` is K of the detections, None for a pitch model. `preferred` are the batch sizes
    that Triton waits for, at most `queue_delay_us` microseconds; with `cuda_graphs` they and 1 are also what CUDA
    graphs are captured for (any other batch runs without). Graphs are off unless asked for: with them Triton may answer
    with another request's result (triton-inference-server/server issue 8550), and it copies the next batch only after
    the graph has ended.
    Requests wait in one queue without priorities, limits and timeouts: with any of these Triton takes no request in
    while an instance computes, and one that comes then lies up to 0.5 s in the queue of an idle instance.
    `instances` are per GPU, or on the CPU in all.
    `plans` names the plan for each compute capability where GPUs of several serve; empty: one plan, PLAN_FILE.
    `threads` (0: all cores) and `cpu_precision` ("auto": bf16 where the CPU computes it natively) are for CPU engines.
    """

    name: str
    engine: Engine
    size: tuple[int, int]
    rows: int | None
    max_batch: int = 32
    preferred: tuple[int, ...] = (8, 16, 32)
    queue_delay_us: int = 2000
    instances: int = 1
    cuda_graphs: bool = False
    plans: tuple[tuple[str, str], ...] = ()
    threads: int = 0
    cpu_precision: CpuPrecision = "auto"

    @property
    def on_gpu(self) -> bool:
        return self.engine == "tensorrt"

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The preferred batch sizes that fit, ascending."""
        return tuple(sorted({size for size in self.preferred if 1 < size <= self.max_batch}))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of what lies in the version's folder and an engine is loaded from."""
        if not self.on_gpu:
            return (ONNX_FILE,)
        return tuple(name for _, name in self.plans) or (PLAN_FILE,)

    @property
    def output(self) -> tuple[str, tuple[int, int]]:
        """Name of the output and its shape without the batch."""
        return (KEYPOINTS, (KEYPOINT_COUNT, 3)) if self.rows is None else (DETECTIONS, (self.rows, 6))


def config(model: ServedModel) -> Any:
    """The description as Triton's own protobuf message, inference.ModelConfig."""
    from tritonclient.grpc import model_config_pb2 as pb

    output, output_dims = model.output
    dims = (*model.size, 3)
    message = pb.ModelConfig(
        name=model.name,
        max_batch_size=model.max_batch,
        input=[pb.ModelInput(name=INPUT, data_type=pb.TYPE_UINT8, dims=dims)],
        output=[pb.ModelOutput(name=output, data_type=pb.TYPE_FP32, dims=output_dims)],
        version_policy=pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1)),
    )
    kind = pb.ModelInstanceGroup.KIND_GPU if model.on_gpu else pb.ModelInstanceGroup.KIND_CPU
    message.instance_group.add(count=model.instances, kind=kind)

    batching = message.dynamic_batching
    batching.preferred_batch_size.extend(model.batch_sizes)
    batching.max_queue_delay_microseconds = model.queue_delay_us

    # A CPU engine runs frame by frame: one frame warms it up as well as a batch.
    for batch in (1, *model.batch_sizes[-1:]) if model.on_gpu else (1,):
        warm_up = message.model_warmup.add(name=f"batch of {batch}", batch_size=batch)
        warm_up.inputs[INPUT].data_type = pb.TYPE_UINT8
        warm_up.inputs[INPUT].dims.extend(dims)
        warm_up.inputs[INPUT].zero_data = True

    if model.on_gpu:
        message.platform = "tensorrt_plan"
        # A name for each compute capability and no other: a GPU of yet another one is refused, not given a wrong plan.
        for capability, name in model.plans:
            message.cc_model_filenames[capability] = name
        if not model.plans:
            message.default_model_filename = PLAN_FILE
        message.optimization.input_pinned_memory.enable = True
        message.optimization.output_pinned_memory.enable = True
        # The next batch is formed and copied while this one is computed.
        message.optimization.eager_batching = True
        cuda = message.optimization.cuda
        # No output_copy_stream: together with graphs it crashes the server (triton-inference-server/server issue 5789).
        cuda.graphs = model.cuda_graphs
        for batch in (1, *model.batch_sizes) if model.cuda_graphs else ():
            cuda.graph_spec.add(batch_size=batch).input[INPUT].dim.extend(dims)
    else:
        message.backend = "python"
        parameters = {"engine": model.engine, "threads": str(model.threads), "precision": model.cpu_precision}
        for name, value in parameters.items():
            message.parameters[name].string_value = value
    return message


def config_text(model: ServedModel) -> str:
    """The description as config.pbtxt."""
    from google.protobuf import text_format

    header = "# Written by `touchline export`; a new export replaces it.\n"
    return header + str(text_format.MessageToString(config(model)))


def plan_name(compute_capability: str) -> str:
    """Name of a plan among those for other compute capabilities."""
    return PLAN_FILE.replace(".", f"-{compute_capability}.", 1)


def write_model(model: ServedModel, file: Path, repository: Path) -> Path:
    """Write <repository>/<name> with config.pbtxt and version 1 around `file` (a plan or an ONNX file); the directory.

    Several plans lie there already. The CPU engines get the Python backend beside the ONNX file. Files of another
    engine in that version are removed.
    """
    directory = repository / model.name
    version = directory / VERSION
    version.mkdir(parents=True, exist_ok=True)
    if len(model.files) == 1 and file.resolve() != (version / model.files[0]).resolve():
        shutil.copyfile(file, version / model.files[0])
    kept = {*model.files, *(f"{name}.json" for name in model.files)}
    for found in (ONNX_FILE, CPU_BACKEND.name, *(path.name for path in version.glob("*.plan*"))):
        if found not in kept:
            (version / found).unlink(missing_ok=True)
    if not model.on_gpu:
        shutil.copyfile(CPU_BACKEND, version / CPU_BACKEND.name)
    (directory / "config.pbtxt").write_text(config_text(model))
    return directory
