"""Figure 6: images, ground truth and predictions."""

from ssenet_jax.experiments.experiment import BASELINE, EVAL, Column, Experiment, Pictures, Variant, ours
from ssenet_jax.stages.table import PREDICTIONS

EXPERIMENT = Experiment(
    title="Figure 6: predictions",
    about="What do the predictions of held-out images look like?",
    stages=(PREDICTIONS,),
    variants=lambda config: [Variant("baseline", BASELINE), Variant(ours(config), {})],
    columns=(Column("DeepLab", PREDICTIONS, EVAL),),
    figure=Pictures(PREDICTIONS, EVAL, images=8),
)
