#!/bin/sh
# Triton and the gateway in one container, Triton for this container alone. When one of them ends, all does.
set -eu
opt=${OPT:-/opt}
repository=${MODEL_REPOSITORY:-/var/lib/touchline/repository}
triton_port=${TRITON_PORT:-8001}

PATH=$opt/tritonserver/bin:$PATH VIRTUAL_ENV=$opt/tritonserver \
  LD_LIBRARY_PATH=$opt/tritonserver/lib/wheel${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} OPT=$opt \
  sh "$opt/tritonserver/bin/entrypoint" tritonserver "--model-repository=$repository" \
  --disable-auto-complete-config --exit-timeout-secs=30 --exit-on-error=true \
  --grpc-address=127.0.0.1 "--grpc-port=$triton_port" --allow-http=false --allow-metrics=false &
triton=$!
PYTHONPATH=$opt/touchline/app TRITON_URLS=127.0.0.1:$triton_port \
  "$opt/touchline/bin/python" -m commands.main serve &
gateway=$!

asked=
trap 'asked=yes; kill "$gateway" 2>/dev/null || :' TERM INT
while kill -0 "$triton" 2>/dev/null && kill -0 "$gateway" 2>/dev/null; do
  sleep 1 &
  wait $! || :
done
# The gateway first: what it was asked is answered yet.
kill "$gateway" 2>/dev/null || :
wait "$gateway" || :
kill "$triton" 2>/dev/null || :
wait "$triton" || :
test -n "$asked"
