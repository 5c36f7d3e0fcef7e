"""Figure 5: what the CAMs miss and what they take too much, over the test scale."""

from ssenet_jax.experiments.experiment import TRAIN, Column, Experiment, at_scales
from ssenet_jax.stages.table import CAMS

EXPERIMENT = Experiment(
    title="Figure 5: false negatives and false positives over the test scale",
    about="Do CAMs of small images take too much and those of large ones too little, and less so with a regulariser?",
    stages=(CAMS,),
    variants=lambda config: at_scales(config, together=False),
    columns=(
        Column("mFN", CAMS, TRAIN, "m_fn"),
        Column("mFP", CAMS, TRAIN, "m_fp"),
        Column("CAM", CAMS, TRAIN),
    ),
    figure="groups",
)
