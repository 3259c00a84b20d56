#!/bin/sh
# Exports the operator's weights to TensorRT engines; at once done when nothing has changed and the engines fit.
# Environment: PLAYER_WEIGHTS, PITCH_WEIGHTS, BALL_WEIGHTS (a file, or owner/name:file on the hub; empty: WEIGHTS/<role>.pt
# or .onnx, for the pitch else the bundled model; the bundled player model is for CPUs only), EXPORT_IMGSZ,
# EXPORT_MAX_BATCH, EXPORT_PRECISION, NGC_TAG.
set -eu
WEIGHTS=${WEIGHTS:-/weights}
BUNDLED=${BUNDLED:-/opt/touchline/bundled}
OUT=${OUT:-/var/lib/touchline/repository}
STAMP=${STAMP:-/var/lib/touchline/exported}
SERVE=${SERVE:-/var/lib/touchline}

find_weights() { # role, what the operator said
    if [ -n "$2" ]; then echo "$2"; return; fi
    for file in "$WEIGHTS/$1.pt" "$WEIGHTS/$1.onnx"; do
        if [ -f "$file" ]; then echo "$file"; return; fi
    done
    if [ "$1" = pitch ] && [ -f "$BUNDLED/pitch.onnx" ]; then echo "$BUNDLED/pitch.onnx"; fi
}
contents() { # of a file, or the name itself for one on the hub
    if [ -f "$1" ]; then sha256sum < "$1"; else echo "$1"; fi
}

player=$(find_weights player "${PLAYER_WEIGHTS:-}")
pitch=$(find_weights pitch "${PITCH_WEIGHTS:-}")
ball=$(find_weights ball "${BALL_WEIGHTS:-}")
for role in player pitch; do
    eval "source=\$$role"
    if [ -z "$source" ]; then
        echo "no $role weights: put $role.pt into the weights folder, or name them in .env" >&2
        exit 1
    fi
    echo "$role: $source"
done

set -- --player "$player" --pitch "$pitch"
if [ -n "$ball" ]; then echo "ball: $ball"; set -- "$@" --ball "$ball"; fi
set -- "$@" --target tensorrt --imgsz "${EXPORT_IMGSZ:-576x1024}" --max-batch "${EXPORT_MAX_BATCH:-32}" \
    --precision "${EXPORT_PRECISION:-fp16}" --out "$OUT"

# What Triton's container runs before its server: the check, which needs Python alone, and the script that calls it.
rm -rf "$SERVE/export"
cp -R "${PYTHONPATH:-.}/export" "$SERVE/export"
cp "$(command -v triton-checked)" "$SERVE/triton-checked"

# Whatever decides what the engines are: the command, the weights themselves, TensorRT by its release, the exporter, the GPUs.
now=$({
    echo "$@" "${NGC_TAG:-}"
    for source in "$player" "$pitch" ${ball:+"$ball"}; do contents "$source"; done
    find "${PYTHONPATH:-.}/export" "${PYTHONPATH:-.}/touchline" -name '*.py' -exec cat {} + | sha256sum
    nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader
} | sha256sum)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$now" ] && [ -f "$OUT/player/config.pbtxt" ] && [ -f "$OUT/pitch/config.pbtxt" ] &&
    python -m export.check "$OUT"; then
    echo "the engines are up to date"
    exit 0
fi
rm -f "$STAMP"
# A model that is no longer wanted would still be served.
if [ -z "$ball" ]; then rm -rf "$OUT/ball"; fi
python -m commands.main export "$@"
echo "$now" > "$STAMP"
