# docker build -f docs/launch/gke.Dockerfile -t IMAGE .
FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /ssenet_jax
COPY . .
RUN pip install --no-cache-dir '.[tpu]'
