"""The operators that the paper leaves open: "any linear spatial operator" in place of resizing."""

from ssenet_jax.experiments.experiment import BASELINE, EVAL, TRAIN, Column, Experiment, Variant
from ssenet_jax.stages.measure import OPERATORS
from ssenet_jax.stages.table import CAMS, MEASURES


def _ser(*operators, **arguments):
    changes = {f"ser.{key}": value for key, value in arguments.items()}
    return {"classifier.regulariser": "ser", "ser.operators": operators, **changes}


def _variants(config):
    return [
        Variant("none", BASELINE),
        Variant("resize 0.3", _ser("resize", rate=0.3)),
        Variant("resize 0.5", _ser("resize", rate=0.5)),
        Variant("hflip", _ser("hflip")),
        Variant("rotate", _ser("rotate")),
        Variant("translate", _ser("translate")),
        Variant("affine", _ser("affine")),
        Variant("resize 0.5 + hflip", _ser("resize", "hflip", rate=0.5, draw="all")),
    ]


EXPERIMENT = Experiment(
    title="Operators of the regulariser",
    about="Which operator should the CAMs be equivariant to, and do they become so?",
    stages=(CAMS, MEASURES),
    variants=_variants,
    columns=(
        Column("CAM", CAMS, TRAIN),
        *(Column(f"error under {name}", MEASURES, EVAL, f"equivariance/{name}", percent=False) for name in OPERATORS),
        Column("mean AP", MEASURES, EVAL, "mean_ap"),
    ),
)
