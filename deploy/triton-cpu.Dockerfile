# Triton for a laptop: the server of the nvidia-pytriton wheel and OpenVINO, called like NVIDIA's own image.
# Build from the repository root:
#   docker build -f deploy/triton-cpu.Dockerfile -t touchline-triton-cpu .
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
COPY requirements/triton.txt /build/
RUN python -m venv --without-pip /opt/tritonserver \
 && uv pip install --python /opt/tritonserver/bin/python --no-cache --no-deps --require-hashes --compile-bytecode \
      -r /build/triton.txt
COPY deploy/triton-backends.sh /build/
RUN sh /build/triton-backends.sh /opt/tritonserver

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/tritonserver /opt/tritonserver
COPY model_repository /var/lib/touchline/repository
ENV PATH=/opt/tritonserver/bin:$PATH \
    VIRTUAL_ENV=/opt/tritonserver \
    LD_LIBRARY_PATH=/opt/tritonserver/lib/wheel \
    PYTHONDONTWRITEBYTECODE=1
COPY deploy/triton-cpu-entrypoint.sh /opt/tritonserver/bin/entrypoint
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["sh", "/opt/tritonserver/bin/entrypoint"]
CMD ["tritonserver", "--model-repository=/var/lib/touchline/repository", "--disable-auto-complete-config"]
