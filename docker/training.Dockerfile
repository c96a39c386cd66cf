# Training: from data to a bundle.
#
#   docker build -f docker/training.Dockerfile -t chainzrule-training .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/data:/data:ro" -v "$PWD/bundles:/bundles" \
#       chainzrule-training fit /data/table.csv --target outcome
#
# On x86 the default torch is the one for CUDA, with gigabytes of libraries. For the CPU's, name an index that has it:
#
#   docker build --build-arg TORCH_INDEX=https://… -f docker/training.Dockerfile -t chainzrule-training .

FROM python:3.11-slim-bookworm

# What builds the project's own wheel keeps to the pinned versions too: by the first variable up to pip 25.2, then by
# the second.
ARG PIP_CONSTRAINT=/source/constraints.txt
ARG PIP_BUILD_CONSTRAINT=/source/constraints.txt
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
ARG PIP_NO_CACHE_DIR=1

# The number is fixed, and that of the service's image: what one writes into a volume, the other may read. The home
# holds the data sets that scikit-learn fetches.
RUN groupadd --gid 10001 chainzrule \
    && useradd --no-log-init --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin chainzrule \
    && install --directory --owner=10001 --group=10001 /bundles

WORKDIR /source

# The dependencies come first and without the source, so that a change of code does not fetch them again. ONNX Runtime's
# CUDA provider goes: training asks it for the CPU only (torch has CUDA libraries of its own).
COPY pyproject.toml constraints.txt ./
ARG TORCH_INDEX=
RUN python -m venv --without-pip /opt/chainzrule \
    && python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
            print(*project["dependencies"], *project["optional-dependencies"]["train"], sep="\n")' > dependencies.txt \
    && python -m pip --python /opt/chainzrule install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        --requirement dependencies.txt \
    && find /opt/chainzrule -name 'libonnxruntime_providers_cuda.so' -delete

COPY README.md ./
COPY model model
COPY training training
COPY service service
RUN python -m pip --python /opt/chainzrule install --no-deps .

COPY docker/train-demo /usr/local/bin/train-demo

# ONNX Runtime from 1.29 on reports its use to its maker, unless this is set before it starts.
ENV PATH=/opt/chainzrule/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001:10001
# chainzrule-train writes into `bundles` of the working folder: here, that is /bundles.
WORKDIR /
# The first process of a container ignores SIGTERM unless it handles it; this, chainzrule-train does.
STOPSIGNAL SIGINT

ENTRYPOINT ["chainzrule-train"]

# Last: a new revision must not rebuild what stands above.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ChainzRule training" \
      org.opencontainers.image.description="Trains ChainzRule networks and writes their ONNX bundles" \
      org.opencontainers.image.revision="${REVISION}"
