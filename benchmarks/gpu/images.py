"""The NGC images that the compose file and the exporter name: whether they exist, and whether their TensorRT is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.gpu.steps import FAILED, OK, SKIPPED, finish, say

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
MISSING, UNKNOWN = "does not exist", "unknown"
FILES = ("docker-compose.gpu.yml", "export.Dockerfile")


def named(files: list[str], tag: str | None) -> list[str]:
    """The images of nvcr.io/nvidia that the texts name with NGC_TAG in them, for `tag` or the texts' own default."""
    default = next((found[1] for text in files for found in [re.search(r"NGC_TAG(?::-|=)([\d.]+)", text)] if found), "")
    images = (re.findall(r"nvcr\.io/nvidia/[a-z/-]+:\$\{NGC_TAG(?::-[\d.]+)?\}[\w-]*", text) for text in files)
    return sorted({re.sub(r"\$\{NGC_TAG[^}]*\}", tag or default, image) for some in images for image in some})


def asked(image: str) -> str:
    """TRT_VERSION of an image, by its manifest and configuration alone; else MISSING or UNKNOWN."""
    command = ("docker", "buildx", "imagetools", "inspect", image, "--format", "{{json .Image}}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    if done.returncode:
        return MISSING if re.search(r"not found|manifest unknown|no such manifest", done.stderr) else UNKNOWN
    version = re.search(r"TRT_VERSION=([\w.]+)", done.stdout)
    return version[1] if version else "no TRT_VERSION"


def main() -> None:
    if shutil.which("docker") is None:
        finish(SKIPPED, "no Docker")
    images = named([(DEPLOY / name).read_text() for name in FILES], os.environ.get("NGC_TAG"))
    versions: dict[str, str] = {}
    for image in images:
        versions[image] = asked(image)
        say(image=image, trt_version=versions[image])
    text = "; ".join(f"{image.rsplit('/', 1)[1]}: {version}" for image, version in versions.items())
    if MISSING in versions.values():
        finish(FAILED, text)
    if UNKNOWN in versions.values():
        finish(SKIPPED, f"the registry cannot be asked: {text}")
    finish(FAILED if len(set(versions.values())) > 1 else OK, text)


if __name__ == "__main__":
    main()
