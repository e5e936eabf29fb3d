# The masklet server, for NVIDIA GPUs or for CPUs. docs/guides/deploy-with-docker.md explains it.
#
#   docker build -t masklet .                                  # for GPUs; it runs on CPUs, too, but slowly
#   docker build -t masklet --build-arg VARIANT=cpu --build-arg TORCH_INDEX=URL .    # for CPUs: OpenVINO, and no CUDA
#   docker run --gpus all -p 50051:50051 -v /etc/masklet:/etc/masklet:ro \
#       -e MASKLET_TLS_CERTIFICATE=/etc/masklet/server.pem -e MASKLET_TLS_KEY=/etc/masklet/server.key \
#       -e MASKLET_TOKEN_FILE=/etc/masklet/tokens masklet
#
# The server listens on all addresses of the container, so it wants TLS and a token, as above. On a network that you trust,
# `docker run ... masklet --insecure` does without. Other models are downloaded into the volume:
#
#   docker run --rm -v masklet-models:/var/cache/masklet --entrypoint masklet masklet models download sam2.1-tiny
#   docker run --gpus all -v masklet-models:/var/cache/masklet ... masklet --model sam2.1-tiny
#
# Give `docker stop` more time than MASKLET_GRACE_SECONDS: `docker stop --time 40`.

FROM python:3.12.12-slim-bookworm AS build
ARG VARIANT=cuda
# For VARIANT=cpu: the index of PyTorch's builds for CPUs, which https://pytorch.org/get-started/locally names.
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/masklet
ENV PATH=/opt/masklet/bin:$PATH
COPY requirements requirements
# Every file is known by its hash; scripts/lock writes the lists. PyPI's torch for Linux brings CUDA with it. The build
# for CPUs is not on PyPI, and is the one file that is known by its version alone. sam2 comes last, because its build
# imports torch; --no-deps, because it declares torchvision, which masklet never imports.
RUN pip install --require-hashes --no-deps -r requirements/build.lock
RUN if [ "$VARIANT" = cpu ]; then pip install --no-deps --index-url "${TORCH_INDEX:?is missing}" torch==2.13.0+cpu; fi
RUN pip install --require-hashes --no-deps --no-build-isolation -r requirements/server-$VARIANT.lock
# With --build-arg CLUSTER=1 the image has Ray, too: docs/guides/kubernetes.md#with-ray
ARG CLUSTER=
RUN if [ -n "$CLUSTER" ]; then pip install --require-hashes --no-deps -r requirements/cluster.lock; fi
RUN SAM2_BUILD_CUDA=0 pip install --require-hashes --no-deps --no-build-isolation -r requirements/sam2.lock
COPY pyproject.toml README.md LICENSE ./
COPY checkpoints checkpoints
COPY client client
COPY server server
RUN pip install --no-deps --no-index --no-build-isolation .

FROM python:3.12.12-slim-bookworm
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent masklet \
    && install -d -o masklet -g masklet /var/cache/masklet
COPY --from=build /opt/masklet /opt/masklet
# KubeRay starts Ray by a shell, which may be a login shell with a PATH of its own.
RUN ln -s /opt/masklet/bin/masklet /opt/masklet/bin/ray /usr/local/bin/
ENV PATH=/opt/masklet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    MASKLET_CACHE=/var/cache/masklet \
    MASKLET_ADDRESS=0.0.0.0:50051 \
    MASKLET_METRICS_ADDRESS=127.0.0.1:9090 \
    MASKLET_HEALTH_ADDRESS=127.0.0.1:50052 \
    MASKLET_LOG_JSON=true
USER 10001:10001
WORKDIR /tmp
VOLUME /var/cache/masklet
EXPOSE 50051
# At the health address, which needs neither certificate nor token. Loading large models takes a while.
HEALTHCHECK --interval=15s --timeout=10s --start-period=180s --retries=3 \
    CMD ["python", "-m", "masklet_server.healthcheck"]
ENTRYPOINT ["masklet", "serve"]
