# Gateway: HTTP, and video decoding and encoding (PyAV, OpenCV); no inference engine. Also runs the link emulator.
FROM python:3.11-slim-bookworm AS requirements
WORKDIR /src
COPY pyproject.toml ./
COPY scripts/containers_requirements.py ./
RUN python containers_requirements.py gateway > /requirements.txt

# Cached by the content of that list: a change of code or of a tool setting in pyproject.toml reinstalls nothing.
FROM python:3.11-slim-bookworm AS dependencies
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv --without-pip /opt/venv
COPY --from=requirements /requirements.txt /
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    pip --python /opt/venv/bin/python install --find-links /wheels -r /requirements.txt
# Remove the tests of the libraries: 17 MB in the smallest image, 60 MB with torch.
RUN find /opt/venv -name tests -type d -prune -exec rm -rf {} +

FROM python:3.11-slim-bookworm AS code
WORKDIR /app
COPY skyshore skyshore
COPY gateway gateway
COPY services/__init__.py services/
COPY services/links services/links
# Bytecode, because the container cannot write it; file modes, because a checkout may be readable by its owner only.
RUN python -m compileall -q . && chmod -R a+rX .

FROM python:3.11-slim-bookworm
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /app /app
# The volume that is mounted here gets the owner of this folder.
RUN install -d -o 10001 -g 10001 /state
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=skyshore PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
