"""NVIDIA's two builders of one API, TensorRT and TensorRT-RTX, and all that differs between them.

Both parse the same ONNX files with the same parser, know strong typing only (TensorRT from 11 on) and are driven by the
same calls, those of export.tensorrt_build. What differs, for this project:

- TensorRT needs the GPU that will serve, times its kernels on it and keeps the timings in a timing cache; the plan is
  for that GPU and that version. TensorRT-RTX builds without a GPU, for every one of its generation: kernels are made on
  the machine that runs the plan. Its timing cache calls are there and do nothing, with a DeprecationWarning.
- A plan of one does not load in the other. Triton serves TensorRT's; TensorRT-RTX only judges graphs here.
- Versions are counted apart (11.4 and 1.7), and the packages have other names.
- TensorRT-RTX has no plugins (NonZero and the like are plugins in both). Exported graphs use none.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import ModuleType

from export.errors import MissingPackageError

INSTALL_CHECK = "pip install -r requirements/export-check.txt"


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two: `on_gpu` says that it times kernels on this machine's GPU and loads what it built there."""

    name: str
    version: str
    api: ModuleType
    on_gpu: bool

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def tensorrt() -> Library:
    """TensorRT, which builds what is served; MissingPackageError where it is not installed."""
    try:
        import tensorrt as api
    except ImportError as error:
        raise MissingPackageError(
            f"--target tensorrt needs TensorRT's Python package ({error}). Run the export in the compose file's "
            "`export` service, which is nvcr.io/nvidia/tensorrt with the tag of the Triton image. Without a GPU, "
            "--check says whether it will succeed there."
        ) from error
    return Library("TensorRT", str(api.__version__), api, on_gpu=True)


def tensorrt_rtx() -> Library:
    """TensorRT-RTX, which judges graphs without a GPU; MissingPackageError where it is not installed."""
    try:
        import tensorrt_rtx_libs  # noqa: F401  (loads the libraries that the bindings look for)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorrt_rtx_bindings as api
    except ImportError as error:
        raise MissingPackageError(
            f"--check needs TensorRT-RTX's Python packages ({error}): `{INSTALL_CHECK}` (x86-64 or ARM Linux, 96 MB, "
            "no GPU needed; NVIDIA's proprietary licence)."
        ) from error
    return Library("TensorRT-RTX", str(api.__version__), api, on_gpu=False)
