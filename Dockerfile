# The program with what requirements/base.lock pins, by its hashes. Models and documents come from outside: Ollama's from
# its own container, the documents from a folder that is mounted.

FROM python:3.13-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /venv
COPY requirements/base.lock requirements/base.lock
# --no-deps: the lock is complete, and leaves out what unstructured asks for and this program does not use.
RUN /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/base.lock
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim-bookworm
# A fixed number, so that a folder mounted at /data can be given to it: chown 10001.
RUN useradd --uid 10001 --create-home --home-dir /home/pipeline --shell /usr/sbin/nologin pipeline \
    && install -d -o pipeline -g pipeline /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIPELINE_DATA=/data
USER 10001
WORKDIR /home/pipeline
VOLUME /data
EXPOSE 8765
# Asks no model: a server that waits for Ollama is healthy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/healthz', timeout=4)"]
ENTRYPOINT ["pipeline"]
# Beyond the container's own loopback a key is needed: PIPELINE_SERVE_KEYS holds its SHA-256.
CMD ["serve", "--host", "0.0.0.0"]
