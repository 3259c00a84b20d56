# The gateway: no torch, no compiler, no root. Build from the repository root:
#   docker build -f deploy/gateway.Dockerfile -t touchline-gateway .
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
# The pins change seldom, the code often: the environment has a layer of its own.
COPY requirements/gateway.txt /build/
RUN python -m venv --without-pip /opt/touchline \
 && uv pip install --python /opt/touchline/bin/python --no-cache --no-deps --require-hashes --compile-bytecode \
      -r /build/gateway.txt
COPY touchline /opt/touchline/app/touchline
COPY local /opt/touchline/app/local
COPY gateway /opt/touchline/app/gateway
COPY commands /opt/touchline/app/commands
RUN /opt/touchline/bin/python -m compileall -q /opt/touchline/app \
 # Open to any user, because compose runs the container as the one who owns the hotkey file.
 && install -d -m 0777 /var/lib/touchline

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/touchline /opt/touchline
COPY --from=build /var/lib/touchline /var/lib/touchline
ENV PATH=/opt/touchline/bin:$PATH \
    PYTHONPATH=/opt/touchline/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NODES_FILE=/var/lib/touchline/nodes.json \
    WALLET_PATH=/wallets
WORKDIR /var/lib/touchline
USER 1000:1000
EXPOSE 7999 7998 7997
# A challenge in flight is finished first, so whoever stops the container has to wait for CHALLENGE_TIMEOUT_S.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:7999/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "commands.main"]
CMD ["serve"]
