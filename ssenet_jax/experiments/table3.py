"""Table 3: the segmentation network on the pseudo labels; its predictions of the test split, for VOC's server."""

from ssenet_jax.experiments.experiment import BASELINE, EVAL, Column, Experiment, Variant, ours
from ssenet_jax.stages.table import PREDICTIONS

EXPERIMENT = Experiment(
    title="Table 3: the segmentation network",
    about="What does the network that learns from the pseudo labels reach on held-out images?",
    stages=(PREDICTIONS,),
    variants=lambda config: [Variant("baseline", BASELINE), Variant(ours(config), {})],
    columns=(
        Column("DeepLab", PREDICTIONS, EVAL, published={"SSENet": 63.3, "SEAM": 64.5}),
        Column("DeepLab, mFN", PREDICTIONS, EVAL, "m_fn"),
        Column("DeepLab, mFP", PREDICTIONS, EVAL, "m_fp"),
    ),
    predicts="test",
)
