# One image with all that the private track needs behind port 8000, as a spot-check runs it: Triton on the CPU, the
# bundled models, the gateway. It holds no key. See docs/private-track.md. Build from the repository root:
#   docker build -f deploy/private.Dockerfile -t ghcr.io/me/miner:1.0 .
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
COPY requirements/gateway.txt requirements/triton.txt /build/
RUN python -m venv --without-pip /opt/touchline \
 && uv pip install --python /opt/touchline/bin/python --no-cache --no-deps --require-hashes --compile-bytecode \
      -r /build/gateway.txt
RUN python -m venv --without-pip /opt/tritonserver \
 && uv pip install --python /opt/tritonserver/bin/python --no-cache --no-deps --require-hashes --compile-bytecode \
      -r /build/triton.txt
COPY deploy/triton-backends.sh /build/
RUN sh /build/triton-backends.sh /opt/tritonserver
COPY touchline /opt/touchline/app/touchline
COPY local /opt/touchline/app/local
COPY gateway /opt/touchline/app/gateway
COPY commands /opt/touchline/app/commands
COPY deploy/triton-cpu-entrypoint.sh /opt/tritonserver/bin/entrypoint
COPY deploy/private-entrypoint.sh /opt/touchline/bin/entrypoint
RUN /opt/touchline/bin/python -m compileall -q /opt/touchline/app

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/touchline /opt/touchline
COPY --from=build /opt/tritonserver /opt/tritonserver
COPY model_repository /var/lib/touchline/repository
ENV PATH=/opt/touchline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NODES_FILE=/tmp/nodes.json \
    WALLET_PATH=/wallets \
    PROTOCOLS=private \
    DEVICE=cpu \
    PORT=8000 \
    # Docker and Kubernetes give a container 64 MiB of shared memory if nobody asks for more: the slots take 28 of them.
    MAX_CONCURRENT_CHALLENGES=1 \
    BATCH_SIZE=4 \
    PREFETCH_FRAMES=8
USER 1000:1000
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['PORT'] + '/docs', timeout=4)"]
ENTRYPOINT ["sh", "/opt/touchline/bin/entrypoint"]
