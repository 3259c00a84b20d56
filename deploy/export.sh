#!/bin/sh
# Exports weights to TensorRT engines for the GPUs of this host; at once done when nothing has changed and the engines fit.
# Environment: PLAYER_WEIGHTS, PITCH_WEIGHTS, BALL_WEIGHTS (a file, or owner/name:file on the hub; empty: WEIGHTS/<role>.pt
# or .onnx, for player and pitch else the bundled ones), GPUS (all, or numbers of nvidia-smi with commas between; empty:
# all that are to be seen), EXPORT_IMGSZ, EXPORT_MAX_BATCH, EXPORT_PRECISION, EXPORT_FLAGS (any others of
# `touchline export`), NGC_TAG.
set -eu
WEIGHTS=${WEIGHTS:-/weights}
BUNDLED=${BUNDLED:-/opt/touchline/bundled}
OUT=${OUT:-/var/lib/touchline/repository}
STAMP=${STAMP:-/var/lib/touchline/exported}
SERVE=${SERVE:-/var/lib/touchline}

find_weights() { # role, what the operator said
    if [ -n "$2" ]; then echo "$2"; return; fi
    for file in "$WEIGHTS/$1.pt" "$WEIGHTS/$1.onnx" "$BUNDLED/$1.pt" "$BUNDLED/$1.onnx"; do
        if [ -f "$file" ]; then echo "$file"; return; fi
        if [ -L "$file" ]; then
            echo "$file is a link that leads nowhere in this container: put the file itself into the weights folder" >&2
            exit 1
        fi
    done
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
    case $source in
        "$BUNDLED"/*)
            echo "  the bundled $role model. For a better one put $role.pt into deploy/weights/ (WEIGHTS_DIR), or name a file" \
                "on the hub in $(echo "$role" | tr '[:lower:]' '[:upper:]')_WEIGHTS, and then \`docker compose up -d\`" ;;
    esac
done

# By the numbers of nvidia-smi, whatever order CUDA likes.
export CUDA_DEVICE_ORDER=PCI_BUS_ID
if [ "${GPUS:-all}" != all ]; then CUDA_VISIBLE_DEVICES=$(echo "$GPUS" | tr -d ' '); export CUDA_VISIBLE_DEVICES; fi
gpus=$(python -m export.gpus)
echo "$gpus" | sed 's/^/GPU: /'

set -- --player "$player" --pitch "$pitch"
if [ -n "$ball" ]; then echo "ball: $ball"; set -- "$@" --ball "$ball"; fi
set -f # EXPORT_FLAGS is split into words and nothing more.
# shellcheck disable=SC2086
set -- "$@" --target tensorrt --imgsz "${EXPORT_IMGSZ:-576x1024}" --max-batch "${EXPORT_MAX_BATCH:-32}" \
    --precision "${EXPORT_PRECISION:-fp16}" --out "$OUT.next" ${EXPORT_FLAGS:-}
set +f

exec 9> "$SERVE/lock"
flock -n 9 || { echo "waiting for another export"; flock 9; }

# What Triton's container runs before its server: the check, which needs Python alone, and the script that calls it.
rm -rf "$SERVE/export"
cp -R "${PYTHONPATH:-.}/export" "$SERVE/export"
cp "$(command -v triton-checked)" "$SERVE/triton-checked"

# Whatever decides what the engines are: the command, the weights themselves, TensorRT by its release, the exporter, the GPUs.
now=$({
    echo "$@" "${NGC_TAG:-}" "$gpus"
    for source in "$player" "$pitch" ${ball:+"$ball"}; do contents "$source"; done
    find "${PYTHONPATH:-.}/export" "${PYTHONPATH:-.}/touchline" "${PYTHONPATH:-.}/commands/export.py" -name '*.py' -exec cat {} + | sha256sum
} | sha256sum)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$now" ] && [ -f "$OUT/player/config.pbtxt" ] && [ -f "$OUT/pitch/config.pbtxt" ] &&
    python -m export.check "$OUT"; then
    echo "the engines are up to date"
    exit 0
fi

# As long as this file is young Triton leaves the GPUs alone, see triton-checked.sh. Killed, it is forgotten in a minute.
touch "$SERVE/building"
(while sleep 10; do touch "$SERVE/building"; done) > /dev/null 2>&1 9>&- &
alive=$!
trap 'kill "$alive" 2>/dev/null; rm -f "$SERVE/building"; rm -rf "$OUT.next"' EXIT

# Beside the engines that are there, so that these can be served on if anything fails; a plan that fits is kept.
rm -rf "$OUT.next"
if [ -d "$OUT" ]; then cp -R "$OUT" "$OUT.next"; fi
# A model that is no longer wanted would still be served.
if [ -z "$ball" ]; then rm -rf "$OUT.next/ball"; fi
python -m commands.main export "$@"

rm -rf "$OUT.old"
if [ -d "$OUT" ]; then mv "$OUT" "$OUT.old"; fi
mv "$OUT.next" "$OUT"
echo "$now" > "$STAMP.next"
mv "$STAMP.next" "$STAMP"
rm -rf "$OUT.old"
