"""SSENet on PASCAL VOC 2012 in the authors' setting: ResNet-38 at full width, 448 crops, 15 epochs.

    ssenet run --config=voc12_ssenet --config.data.root=/data/VOCdevkit --config.data.sbd_root=/data/SBD \
        --config.init.weights=/data/ilsvrc-cls_rna-a1_cls1000_ep-0001.params --workdir=runs/voc12

``--config=voc12_ssenet:paper`` follows the text of the paper where the released code differs.
Hardware: the authors used four 12 GB GPUs. Published figures (train mIoU): CAM 49.8, after the random walk 62.1;
DeepLab 63.3 on val. We have not measured this setting.
"""

from ssenet_jax.config import paper_config


def get_config(reference="code"):
    config = paper_config(reference or "code")
    config.data.train_split = "train_aug"
    return config
