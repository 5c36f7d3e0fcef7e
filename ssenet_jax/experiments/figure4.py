"""Figure 4: mIoU of the CAMs over alpha, at single scales and at all of them."""

from ssenet_jax.experiments.experiment import TRAIN, Column, Curve, Experiment, at_scales
from ssenet_jax.stages.table import CAMS

EXPERIMENT = Experiment(
    title="Figure 4: mIoU over alpha",
    about="How does the best background score depend on the test scale, and how much is lost beside it?",
    stages=(CAMS,),
    variants=lambda config: at_scales(config, together=True),
    columns=(Column("CAM", CAMS, TRAIN), Column("alpha", CAMS, TRAIN, "alpha", percent=False)),
    figure=Curve(CAMS, TRAIN, "alpha_sweep/alphas", "alpha_sweep/miou", "alpha", "mIoU, %"),
)
