"""What NVIDIA's builder says of a network on a machine without a GPU: `touchline export --target tensorrt --check`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from export import tensorrt_build, triton_model
from export.engine_stamp import BuildOptions
from export.errors import EngineError
from export.tensorrt_build import Built, Tensor
from export.tensorrt_library import Library
from export.triton_model import ServedModel

SHOWN = ("FP16", "FP32", "INT8", "UINT8")
"""Precisions with a number of their own in the table; the others are arithmetic with indices, shapes and truths."""

OTHERS = "others"

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Judged:
    """A network that NVIDIA's builder took; `note` is what else the operator should know."""

    role: str
    built: Built
    build: BuildOptions
    taken_by: str
    precision: str
    classes: str
    parity: str
    note: str

    @property
    def precisions(self) -> dict[str, Counter[str]]:
        """How many layers of each operator compute in each of SHOWN, constants left out; OTHERS are all that do not."""
        found: dict[str, Counter[str]] = {}
        for layer in self.built.layers:
            shown = set(layer.precision.split(" to ")) <= set(SHOWN)
            if layer.operator != "CONSTANT":
                found.setdefault(layer.operator if shown else OTHERS, Counter())[layer.precision if shown else ""] += 1
        return found


def judged(network: Path, served: ServedModel, build: BuildOptions, library: Library) -> Built:
    """Parse and build a finished ONNX file, and hold what comes out against the config.pbtxt that Triton would get.

    EngineError, which names the layer, where one of them does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="touchline-") as folder:
        built = tensorrt_build.build(network.read_bytes(), build, Path(folder) / "timing", library)
    config = triton_model.config(served)
    for tensors, told in ((built.inputs, config.input), (built.outputs, config.output)):
        expected = [Tensor(entry.name, triton_type(entry.data_type), (-1, *entry.dims)) for entry in told]
        if list(tensors) != expected:
            raise EngineError(
                f"the network has {', '.join(map(str, tensors))}, config.pbtxt would say "
                f"{', '.join(map(str, expected))}."
            )
    if config.max_batch_size > build.max_batch:
        raise EngineError(f"config.pbtxt would say batches up to {config.max_batch_size}, built for {build.max_batch}.")
    return built


def triton_type(number: int) -> str:
    """FP32 for TYPE_FP32 and so on."""
    from tritonclient.grpc import model_config_pb2 as pb

    return str(pb.DataType.Name(number)).removeprefix("TYPE_")


def table(entries: Sequence[Judged]) -> Table:
    """What was judged, for the terminal: a column a model."""
    result = Table("", *(entry.role for entry in entries), title="Judged, nothing written", title_justify="left")
    for column in result.columns[1:]:
        column.overflow = "fold"

    def layers(operator: str) -> Callable[[Judged], str]:
        return lambda entry: counted(entry.precisions.get(operator, Counter()))

    operators = sorted({operator for entry in entries for operator in entry.precisions} - {OTHERS})
    rows: dict[str, Callable[[Judged], str]] = {
        "taken by": lambda entry: entry.taken_by,
        "input": lambda entry: str(entry.built.inputs[0]),
        "output": lambda entry: str(entry.built.outputs[0]),
        "batch": lambda entry: f"1 to {entry.build.max_batch}, best at {entry.build.opt_batch}",
        "precision": lambda entry: entry.precision,
        "classes": lambda entry: entry.classes,
        "layers": lambda entry: str(sum(counts.total() for counts in entry.precisions.values())),
        **{f"  {operator.lower()}": layers(operator) for operator in operators},
        f"  {OTHERS}": layers(OTHERS),
        "activations": lambda entry: mebibytes(entry.built.activation_bytes),
        "weights": lambda entry: mebibytes(entry.built.weight_bytes),
        "parity": lambda entry: entry.parity,
        "warnings": lambda entry: "; ".join(entry.built.warnings) or "none",
        "note": lambda entry: entry.note,
    }
    for heading, value in rows.items():
        result.add_row(heading, *map(value, entries))
    return result


def counted(counts: Counter[str]) -> str:
    """ "61 FP16, 7 FP32"; what is neither of SHOWN comes last."""
    kinds = sorted(counts, key=lambda kind: (kind not in SHOWN, SHOWN.index(kind) if kind in SHOWN else 0, kind))
    return ", ".join(f"{counts[kind]} {kind}".strip() for kind in kinds)


def mebibytes(count: int | None) -> str:
    """Bytes for the terminal."""
    return "not said" if count is None else f"{count / MIB:,.0f} MiB" if count > 10 * MIB else f"{count / MIB:.1f} MiB"
