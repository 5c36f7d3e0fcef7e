"""SSENet and its authors' next method, SEAM, beside the baseline."""

from ssenet_jax.experiments.experiment import BASELINE, EVAL, TRAIN, Column, Experiment, Variant
from ssenet_jax.stages.table import CAMS, LABELS, MEASURES, PREDICTIONS, WALKS

EXPERIMENT = Experiment(
    title="SSENet and SEAM",
    about="What do the regularisers of the two methods bring to the CAM and to what is made of it?",
    stages=(PREDICTIONS, MEASURES),
    variants=lambda config: [
        Variant("baseline", BASELINE),
        Variant("SSENet", {"classifier.regulariser": "ser"}),
        Variant("SEAM", {"classifier.regulariser": "seam", "evaluate.alpha": 0.26}),
    ],
    columns=(
        Column("CAM", CAMS, TRAIN, published={"baseline": 47.3, "SSENet": 49.8, "SEAM": 55.4}),
        Column("CAM", CAMS, EVAL),
        Column("CAM + random walk", WALKS, TRAIN, published={"baseline": 58.8, "SSENet": 62.1, "SEAM": 63.6}),
        Column("labels", LABELS, TRAIN),
        Column("DeepLab", PREDICTIONS, EVAL, published={"SSENet": 63.3, "SEAM": 64.5}),
        Column("error under resize 0.5", MEASURES, EVAL, "equivariance/resize 0.5", percent=False),
        Column("mean AP", MEASURES, EVAL, "mean_ap"),
    ),
)
