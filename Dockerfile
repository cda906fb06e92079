# CPU:  docker build -t sightline --build-arg TORCH_INDEX=URL .      (URL: the CPU wheel index that PyTorch's site names)
# CUDA: docker build -t sightline:cuda .                             (the default wheels of PyTorch on Linux bring CUDA)
# Run:  docker run --rm -v "$PWD/runs:/work/runs" sightline demo --out runs/demo        (CUDA: add --gpus all)
FROM python:3.11-slim

# An index of torch wheels; empty takes pip's own.
ARG TORCH_INDEX=

RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/sightline
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY sightline sightline
# torch comes first, so that its index decides whether CUDA comes along; the rest is pinned by the constraints.
RUN version="$(sed -n 's/^torch==//p' constraints.txt)" \
    && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==${version}" \
    && pip install --no-cache-dir -c constraints.txt '.[app,judge,serve,export]'

RUN useradd --create-home --uid 1000 sightline && mkdir -p /work && chown sightline /work
USER sightline
WORKDIR /work
ENV HF_HUB_DISABLE_TELEMETRY=1
ENTRYPOINT ["sightline"]
CMD ["--help"]
