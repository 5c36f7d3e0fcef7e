#!/bin/bash
# One v5e slice of 16 chips as a queued resource; every host runs the same command. See cloud-tpu.md.
set -euo pipefail
NAME=ssenet ZONE=${ZONE:?a zone with v5e} PROJECT=${PROJECT:?the project} BUCKET=${BUCKET:?a bucket mounted at /shared}

gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --project="$PROJECT" --zone="$ZONE" \
    --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot \
    --metadata=startup-script="mkdir -p /shared && gcsfuse --implicit-dirs $BUCKET /shared"
until gcloud compute tpus queued-resources describe "$NAME" --project="$PROJECT" --zone="$ZONE" \
    --format='value(state.state)' | grep -q ACTIVE; do sleep 30; done

on_every_host() {
    gcloud compute tpus tpu-vm ssh "$NAME" --project="$PROJECT" --zone="$ZONE" --worker=all --command="$1"
}
on_every_host "git clone --depth 1 ${REPOSITORY:?where ssenet_jax lies} ssenet_jax && cd ssenet_jax && pip install '.[tpu]'"
on_every_host "cd ssenet_jax && ssenet run --config=configs/voc12_ssenet.py --config.segmenter.batch_size=12 \
    --config.data.root=/shared/VOCdevkit --config.data.sbd_root=/shared/SBD \
    --config.init.weights=/shared/ilsvrc-cls_rna-a1_cls1000_ep-0001.params --workdir=/shared/runs/voc12"
