# One image for every sub-command: `docker run fairlead picker …`, `fairlead envoy run …`, `fairlead up …`.
FROM python:3.11-slim AS builder

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Dependencies first: this layer is built again only when they change. The lock also holds the development tools; the script
# copies the entries that run time needs, hashes included.
COPY pyproject.toml requirements.lock ./
COPY deploy/docker/runtime_requirements.py deploy/docker/
RUN python deploy/docker/runtime_requirements.py runtime > runtime.txt \
    && python deploy/docker/runtime_requirements.py build > build.txt \
    && python -m venv --without-pip /opt/fairlead \
    && python -m pip install --require-hashes --no-deps -r build.txt \
    && python -m pip --python /opt/fairlead/bin/python install --require-hashes --no-deps -r runtime.txt

COPY README.md LICENSE ./
COPY picker picker
COPY gateway gateway
COPY bench bench
COPY fairlead fairlead
RUN python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && python -m pip --python /opt/fairlead/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.11-slim

COPY --from=builder /opt/fairlead /opt/fairlead
ENV PATH=/opt/fairlead/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp

# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532

# Envoy; ext_proc, gRPC health and metrics of the picker.
EXPOSE 8080 9002 9003 9090

# The picker's readiness. For another sub-command: --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/readyz', timeout=2)"]

ENTRYPOINT ["fairlead"]
CMD ["--help"]
