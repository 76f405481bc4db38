# Cloud node. EXTRA=edge: ONNX Runtime engines, no torch. EXTRA=cloud adds torch, for sharded models: a CPU build if the
# `wheels` context or PIP_EXTRA_INDEX_URL has one, else that of PyPI, which on x86 includes 4 GB of CUDA.
FROM python:3.11-slim-bookworm AS requirements
WORKDIR /src
COPY pyproject.toml ./
COPY scripts/containers_requirements.py ./
ARG EXTRA=edge
# gpu swaps ONNX Runtime for its CUDA build and adds NVML, which reads the energy.
ARG ACCELERATOR=cpu
RUN if [ "$ACCELERATOR" = gpu ]; then \
      set -- --swap 'onnxruntime=onnxruntime-gpu[cuda,cudnn]>=1.22,<2' --add 'nvidia-ml-py>=13,<14'; fi; \
    python containers_requirements.py edge "$@" > /requirements.txt; \
    python containers_requirements.py "$EXTRA" "$@" > /more.txt

# Cached by the content of that list: a change of code or of a tool setting in pyproject.toml reinstalls nothing.
FROM python:3.11-slim-bookworm AS dependencies
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv --without-pip /opt/venv
COPY --from=requirements /requirements.txt /
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    pip --python /opt/venv/bin/python install --find-links /wheels -r /requirements.txt
# Up to here the steps are those of the edge node, so that both images share these layers.
COPY --from=requirements /more.txt /
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    pip --python /opt/venv/bin/python install --find-links /wheels -r /more.txt
# Remove the tests of the libraries: 17 MB in the smallest image, 60 MB with torch.
RUN find /opt/venv -name tests -type d -prune -exec rm -rf {} +
# Remove C++ headers and test programs: a fifth of torch, not used here.
RUN cd /opt/venv/lib/python3.11/site-packages && rm -rf torch/include torch/test torch/bin/*[Tt]est* torch/bin/protoc*

FROM python:3.11-slim-bookworm AS code
WORKDIR /app
COPY skyshore skyshore
COPY cloud_node cloud_node
# Bytecode, because the container cannot write it; file modes, because a checkout may be readable by its owner only.
RUN python -m compileall -q . && chmod -R a+rX .

FROM python:3.11-slim-bookworm
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /app /app
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=skyshore PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
