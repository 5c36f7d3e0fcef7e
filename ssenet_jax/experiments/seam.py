"""SSENet and its authors' next method, SEAM, beside the baseline."""

from ssenet_jax.experiments.experiment import BASELINE, EVAL, TRAIN, Column, Experiment, Variant

EXPERIMENT = Experiment(
    title="SSENet and SEAM",
    about="What do the regularisers of the two methods bring to the CAM and to what is made of it?",
    stages=("segment", "measure_cams"),
    variants=lambda config: [
        Variant("baseline", BASELINE),
        Variant("SSENet", {"classifier.regulariser": "ser"}),
        Variant("SEAM", {"classifier.regulariser": "seam", "evaluate.alpha": 0.26}),
    ],
    columns=(
        Column("CAM", "infer_cams", TRAIN, published={"baseline": 47.3, "SSENet": 49.8, "SEAM": 55.4}),
        Column("CAM", "infer_cams", EVAL),
        Column("CAM + random walk", "propagate", TRAIN, published={"baseline": 58.8, "SSENet": 62.1, "SEAM": 63.6}),
        Column("labels", "label", TRAIN),
        Column("DeepLab", "segment", EVAL, published={"SSENet": 63.3, "SEAM": 64.5}),
        Column("error under resize 0.5", "measure_cams", EVAL, "equivariance/resize 0.5", percent=False),
        Column("mean AP", "measure_cams", EVAL, "mean_ap"),
    ),
)
