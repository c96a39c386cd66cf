# The service: predictions with their sensitivity, on the CPU. It holds no torch and no build tools.
#
#   docker build -f docker/service.Dockerfile -t chainzrule-service .
#   docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD/bundles:/bundles:ro" -v chainzrule-trail:/trail chainzrule-service
#
# Settings are variables CHAINZRULE_…, or arguments after the image's name; `chainzrule-service --help` lists them.

FROM python:3.11-slim-bookworm AS builder

# What builds the project's own wheel keeps to the pinned versions too: by the first variable up to pip 25.2, then by
# the second.
ENV PIP_CONSTRAINT=/source/constraints.txt \
    PIP_BUILD_CONSTRAINT=/source/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /source

# The dependencies come first and without the source, so that a change of code does not fetch them again. pip stays
# outside the environment that it fills.
COPY pyproject.toml constraints.txt ./
RUN python -m venv --without-pip /opt/chainzrule \
    && python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
            print(*project["dependencies"], *project["optional-dependencies"]["postgresql"], sep="\n")' \
        > dependencies.txt \
    && python -m pip --python /opt/chainzrule install --requirement dependencies.txt

# ONNX Runtime's CUDA provider is most of its wheel, and loads only beside CUDA's libraries, which this image does not
# have: with it or without, `auto` runs on the CPU and says so, and `cuda` refuses to start.
RUN find /opt/chainzrule -name 'libonnxruntime_providers_cuda.so' -delete

COPY README.md ./
COPY model model
COPY training training
COPY service service
RUN python -m pip --python /opt/chainzrule install --no-deps .


FROM python:3.11-slim-bookworm

# The number is fixed, and that of the training image: what one writes into a volume, the other may read. Stated as a
# number below, it can be checked by an orchestrator that admits no root.
RUN groupadd --gid 10001 chainzrule \
    && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin chainzrule \
    && install --directory --owner=10001 --group=10001 /bundles \
    && install --directory --owner=10001 --group=10001 --mode=0700 /trail

COPY --from=builder /opt/chainzrule /opt/chainzrule

# ONNX Runtime from 1.29 on reports its use to its maker, unless this is set before it starts: a service for audits, and
# a process that may have no way out, must not.
ENV PATH=/opt/chainzrule/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CHAINZRULE_HOST=0.0.0.0 \
    CHAINZRULE_PORT=8080 \
    CHAINZRULE_LOG_FORMAT=json \
    CHAINZRULE_REPOSITORY=/bundles \
    CHAINZRULE_TRAIL=/trail

USER 10001:10001
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM

# Without proxies: a container that has one set must still ask itself. -IS leaves out what this needs not import.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-IS", "-c", "import os, urllib.request as request; \
            request.build_opener(request.ProxyHandler({})).open( \
                'http://127.0.0.1:' + os.environ['CHAINZRULE_PORT'] + '/v2/health/ready', timeout=2)"]

ENTRYPOINT ["chainzrule-serve"]

# Last: a new revision must not rebuild what stands above.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ChainzRule service" \
      org.opencontainers.image.description="Serves ONNX bundles: every prediction with its sensitivity" \
      org.opencontainers.image.revision="${REVISION}"
