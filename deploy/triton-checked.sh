#!/bin/sh
# Runs the given tritonserver command where the engines beside this file fit this TensorRT and GPU; else says what to do.
set -eu
here=$(dirname "$0")
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 python3 -m export.check "$here/repository"
exec "$@"
