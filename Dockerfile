# The image of the service; docker-compose.yaml runs MLflow's server from it too.
# Without Compose: docker build -t aiml-platform . — docs/deployment.md says how to run it.

FROM python:3.11-slim AS builder
# A package index of your own: --build-arg UV_DEFAULT_INDEX=… for the packages, PIP_INDEX_URL=… for uv.
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV UV_CACHE_DIR=/uv-cache \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv \
    && uv venv --python /usr/local/bin/python3.11 /opt/venv
COPY requirements.lock.txt /tmp/
# Wheels only: nothing is compiled, so no stage needs a compiler.
RUN --mount=type=cache,target=/uv-cache \
    uv pip install --python /opt/venv/bin/python --require-hashes --only-binary :all: -r /tmp/requirements.lock.txt

FROM python:3.11-slim
# A numeric user, so that an orchestrator can see that it is not root.
RUN groupadd --gid 10001 aiml \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin aiml \
    && install --directory --owner=aiml --group=aiml /data
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY samples ./samples
COPY engines_config.yaml ./
COPY src ./src
# The service refuses to listen on 0.0.0.0 until AIML_API_KEYS or AIML_ALLOW_ANONYMOUS=1 is set as well.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AIML_HOST=0.0.0.0 \
    AIML_PORT=8009 \
    AIML_DATA_DIR=/data \
    AIML_SAMPLES=off \
    AIML_LOG_FORMAT=json \
    AIML_TRANSFORMERS__CACHE_DIR=/data/cache/models \
    HF_HOME=/data/cache/huggingface \
    MLFLOW_DISABLE_TELEMETRY=true
USER 10001:10001
VOLUME /data
EXPOSE 8009
# Past any proxy that the container was given: this asks the container itself.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['AIML_PORT'] + '/livez', timeout=4)"]
CMD ["python", "-m", "src.main"]
