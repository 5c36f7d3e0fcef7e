"""The fully supervised bound: the same segmentation network on the data set's own masks."""

from ssenet_jax.experiments.experiment import EVAL, TRAIN, Column, Experiment, Variant, ours
from ssenet_jax.stages.table import LABELS, PREDICTIONS

EXPERIMENT = Experiment(
    title="The fully supervised bound",
    about="How much of what is missing do the labels cost, and how much the network?",
    stages=(PREDICTIONS,),
    variants=lambda config: [
        Variant(f"{ours(config)}, pseudo labels", {}),
        Variant("true masks", {"labels.source": "masks", "labels.crf": False}),
    ],
    columns=(Column("labels", LABELS, TRAIN), Column("DeepLab", PREDICTIONS, EVAL)),
)
