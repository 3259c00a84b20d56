#!/bin/sh
# Runs the given tritonserver command where the engines beside this file fit this TensorRT and these GPUs; else says what
# to do. Ends when the export has built others, and while it builds: kernels are to be timed on a GPU that has nothing
# else to do, and old and new engines need not fit into its memory together. Whoever restarts the container (Docker,
# Kubernetes) then starts the new ones; a failed export changes nothing, and the old ones are served again.
# (Triton could load them itself, --model-control-mode=poll, but reads folders while they are written, and unchecked.)
# Environment: GPUS, as export.sh has it.
set -eu
here=$(dirname "$0")
export PYTHONDONTWRITEBYTECODE=1
export CUDA_DEVICE_ORDER=PCI_BUS_ID
if [ "${GPUS:-all}" != all ]; then CUDA_VISIBLE_DEVICES=$(echo "$GPUS" | tr -d ' '); export CUDA_VISIBLE_DEVICES; fi

building() { [ -n "$(find "$here/building" -mmin -1 2>/dev/null)" ]; }
built() { cat "$here/exported" 2>/dev/null || true; }

trap 'exit 143' TERM INT
if building; then echo "the export is building engines: waiting for it"; fi
while building; do sleep 1; done
served=$(built)
PYTHONPATH=$here python3 -m export.check "$here/repository"

# A batch in flight on each GPU needs pinned memory; Triton's own pool of 256 MiB holds four of 32 frames of 576x1024.
gpus=$(PYTHONPATH=$here python3 -m export.gpus --count 2>/dev/null) || gpus=1
set -- "$@" "--pinned-memory-pool-byte-size=$(((1 + gpus) * 536870912))"
# From 26.04 on Triton opens the gateway's shared memory only when told to; before that it does not know the flag.
if "$1" --help 2>&1 | grep -q -- --allow-client-shm; then set -- "$@" --allow-client-shm=true; fi

"$@" &
server=$!
trap 'kill "$server" 2>/dev/null || true' TERM INT
while kill -0 "$server" 2>/dev/null; do
    if building || [ "$(built)" != "$served" ]; then
        echo "the export is building engines, or has built others: Triton ends for a restart"
        kill "$server" 2>/dev/null || true
        break
    fi
    sleep 2 &
    wait $! || true # So, and not by sleep alone, a signal is heard at once.
done
status=0
wait "$server" || status=$?
exit "$status"
