# The exporter, on the TensorRT of the same NGC release as the Triton that serves: an engine runs only with the
# TensorRT that built it. Build from the repository root:
#   docker build -f deploy/export.Dockerfile --build-arg NGC_TAG=26.09 -t touchline-export .
ARG NGC_TAG=26.09
FROM nvcr.io/nvidia/tensorrt:${NGC_TAG}-py3
ARG UV_VERSION=0.13.9
ARG TORCH_VERSION=2.13.0
ARG TORCHVISION_VERSION=0.28.0
RUN python3 -m pip install --no-cache-dir --break-system-packages "uv==${UV_VERSION}"
COPY requirements/gateway.txt requirements/export.txt /build/
# System packages are visible for TensorRT's own bindings alone; the pins go before them. torch only reads weights
# here, so the CPU build is enough.
RUN uv venv --no-cache --python "$(command -v python3)" --system-site-packages /opt/touchline \
 && uv pip install --python /opt/touchline/bin/python --no-cache --torch-backend cpu \
      "torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}" \
 && uv pip install --python /opt/touchline/bin/python --no-cache --no-deps --require-hashes \
      -r /build/gateway.txt -r /build/export.txt
COPY touchline /opt/touchline/app/touchline
COPY export /opt/touchline/app/export
COPY commands /opt/touchline/app/commands
# Pictures to compare precisions on.
COPY demo /opt/touchline/app/demo
COPY weights/player.pt weights/pitch.onnx /opt/touchline/bundled/
COPY deploy/export.sh /opt/touchline/bin/export-once
COPY deploy/triton-checked.sh /opt/touchline/bin/triton-checked
# Unpacked from a .zip, or on Windows, they have lost their x bit.
RUN chmod 0755 /opt/touchline/bin/export-once /opt/touchline/bin/triton-checked \
 && install -d -m 0777 /var/lib/touchline /weights
ENV PATH=/opt/touchline/bin:$PATH \
    PYTHONPATH=/opt/touchline/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    # The GPU that nvidia-smi names first is the one that CUDA builds on.
    CUDA_DEVICE_ORDER=PCI_BUS_ID \
    # torch asks for the user's name, and compose's user has no entry in /etc/passwd.
    USER=touchline \
    HF_HOME=/var/lib/touchline/hub
# Engines, the timing cache and downloaded weights live in this one volume.
WORKDIR /var/lib/touchline
USER 1000:1000
CMD ["export-once"]
