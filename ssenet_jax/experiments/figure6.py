"""Figure 6: images, ground truth and predictions."""

from ssenet_jax.experiments.experiment import BASELINE, EVAL, Column, Experiment, Pictures, Variant, ours

EXPERIMENT = Experiment(
    title="Figure 6: predictions",
    about="What do the predictions of held-out images look like?",
    stages=("segment",),
    variants=lambda config: [Variant("baseline", BASELINE), Variant(ours(config), {})],
    columns=(Column("DeepLab", "segment", EVAL),),
    figure=Pictures("segment", EVAL, images=8),
)
