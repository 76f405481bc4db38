# Gateway: HTTP in front, and video in and out (PyAV, OpenCV); no inference engine. The link emulator runs from it too.
FROM python:3.11-slim-bookworm AS requirements
WORKDIR /src
COPY pyproject.toml ./
COPY scripts/containers_requirements.py ./
RUN python containers_requirements.py gateway > /requirements.txt

# Keyed by the content of that list alone: neither code nor a tool's setting in pyproject.toml reinstalls anything.
FROM python:3.11-slim-bookworm AS dependencies
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv --without-pip /opt/venv
COPY --from=requirements /requirements.txt /
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    pip --python /opt/venv/bin/python install --find-links /wheels -r /requirements.txt
# The libraries' own tests: 17 MB in the smallest image, 60 MB beside torch.
RUN find /opt/venv -name tests -type d -prune -exec rm -rf {} +

FROM python:3.11-slim-bookworm AS code
WORKDIR /app
COPY skyshore skyshore
COPY gateway gateway
COPY services/__init__.py services/
COPY services/links services/links
# Bytecode here because the running container cannot write it; modes because a checkout may be private to its owner.
RUN python -m compileall -q . && chmod -R a+rX .

FROM python:3.11-slim-bookworm
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /app /app
# The owner of this folder becomes the owner of the volume mounted on it.
RUN install -d -o 10001 -g 10001 /state
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=skyshore PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
