"""Table 2: does a wider range of image scales in the augmentation do what the second branch does?"""

from ssenet_jax.experiments.experiment import BASELINE, TRAIN, Column, Experiment, Variant
from ssenet_jax.stages.table import CAMS

NARROW, WIDE, SSENET = "baseline", "baseline, half the smallest size", "SSENet, rate 0.5"


def _variants(config):
    low, high = config.classifier.long_edge
    return [
        Variant(NARROW, BASELINE),
        Variant(WIDE, {**BASELINE, "classifier.long_edge": (low // 2, high)}),
        Variant(SSENET, {"classifier.regulariser": "ser", "ser.rate": 0.5}),
    ]


EXPERIMENT = Experiment(
    title="Table 2: ranges of scale in the augmentation",
    about="Do images of more sizes in the augmentation do what the second branch does?",
    stages=(CAMS,),
    variants=_variants,
    columns=(Column("CAM", CAMS, TRAIN, published={NARROW: 47.3, WIDE: 46.6, SSENET: 48.9}),),
)
