#!/bin/sh
# The first run on a host with a GPU, at most ten minutes after the environments are there: driver, NVDEC, FP16, whole
# challenges and, where Docker is, the images and the running stack. One line a step; a step that fails hides no other.
#   benchmarks/gpu_first_run.sh [--only WORD...] [--out FOLDER]
# Status 0: all went well; 1: a step failed; 77: none failed, some were skipped (no GPU, no Docker, no PyTorch).
# PYTHON and TORCH_PYTHON name interpreters that have the packages already, CLIP a video; else they are made here.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    make -s .venv/.ready .venv-triton/.ready
    PYTHON=.venv/bin/python
fi
if [ -z "${TORCH_PYTHON:-}" ]; then
    make -s .venv-export/.ready || echo "PyTorch could not be installed: its steps are skipped" >&2
    TORCH_PYTHON=.venv-export/bin/python
    [ -x "$TORCH_PYTHON" ] || TORCH_PYTHON=$PYTHON
fi
if [ -z "${CLIP:-}" ]; then
    CLIP=out/gpu/clip/match.mp4
    "$PYTHON" -c "
from pathlib import Path
from demo.clip import make_clip
from demo.match import Match
if __name__ == '__main__':
    make_clip(Path('out/gpu/clip'), Match(frames=375), workers=1)
"
fi
exec "$PYTHON" -m benchmarks.gpu --clip "$CLIP" --python "$PYTHON" --torch-python "$TORCH_PYTHON" "$@"
