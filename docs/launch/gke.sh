#!/bin/bash
# Eight v6e chips of a GKE cluster that xpk made, or makes here. See gke.md.
set -euo pipefail
CLUSTER=${CLUSTER:?the cluster} ZONE=${ZONE:?its zone} PROJECT=${PROJECT:?the project}
IMAGE=${IMAGE:?an image with ssenet_jax and jax[tpu], made from gke.Dockerfile}

xpk cluster create --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" --tpu-type=v6e-8 --num-slices=1 --spot
xpk storage attach shared --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" --type=gcsfuse --auto-mount=true \
    --mount-point=/shared --readonly=false --bucket="${BUCKET:?the bucket with photos and runs}"
xpk workload create --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" --workload=ssenet --tpu-type=v6e-8 \
    --docker-image="$IMAGE" --max-restarts=10 --command="ssenet run --config=configs/voc12_ssenet.py \
    --config.data.root=/shared/VOCdevkit --config.data.sbd_root=/shared/SBD \
    --config.init.weights=/shared/ilsvrc-cls_rna-a1_cls1000_ep-0001.params --workdir=/shared/runs/voc12"
