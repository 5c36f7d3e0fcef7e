"""The baseline of Table 1: the setting of ``voc12_ssenet.py`` without the second branch.

    ssenet run --config=voc12_baseline --config.data.root=/data/VOCdevkit --config.data.sbd_root=/data/SBD \
        --config.init.weights=/data/ilsvrc-cls_rna-a1_cls1000_ep-0001.params --workdir=runs/voc12_baseline

Hardware: as ``voc12_ssenet.py``. Published figures (train mIoU): CAM 47.3, after the random walk 58.8. We have not
measured this setting.
"""

from ssenet_jax.config import paper_config


def get_config(reference="code"):
    config = paper_config(reference or "code")
    config.title = "Baseline on VOC 2012"
    config.data.train_split = "train_aug"
    config.classifier.regulariser = "none"
    return config
