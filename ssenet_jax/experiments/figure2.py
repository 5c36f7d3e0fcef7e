"""Figure 2: the CAMs of one image at several scales, with and without the regulariser."""

from ssenet_jax.experiments.experiment import TRAIN, Column, Experiment, Pictures, at_scales
from ssenet_jax.stages.table import CAMS

EXPERIMENT = Experiment(
    title="Figure 2: CAMs at several scales",
    about="How much do the CAMs of one image change with its size?",
    stages=(CAMS,),
    variants=lambda config: at_scales(config, together=False),
    columns=(Column("CAM", CAMS, TRAIN),),
    figure=Pictures(CAMS, TRAIN),
)
