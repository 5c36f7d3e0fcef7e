"""Table 1: the baseline and the branch rates 0.6 to 0.2, their CAMs and random walks."""

from ssenet_jax.experiments.experiment import BASELINE, TRAIN, Column, Experiment, Variant
from ssenet_jax.stages.table import CAMS, WALKS

RATES = (0.6, 0.5, 0.4, 0.3, 0.2)
CAM = dict(zip(RATES, (48.5, 48.9, 49.4, 49.8, 49.4), strict=True))
WALK = dict(zip(RATES, (61.5, 61.7, 61.8, 62.1, 61.7), strict=True))


def _variants(config):
    own_rate = [config.ser.rate] if isinstance(config.ser.rate, float) else []  # none where it is drawn from a range
    rates = dict.fromkeys((*RATES, *own_rate))
    own = [Variant(f"rate {rate:g}", {"classifier.regulariser": "ser", "ser.rate": rate}) for rate in rates]
    return [Variant("baseline", BASELINE), *own]


def _published(baseline, of_rate):
    return {"baseline": baseline} | {f"rate {rate:g}": figure for rate, figure in of_rate.items()}


EXPERIMENT = Experiment(
    title="Table 1: rates of the second branch",
    about="How small should the second branch's image be?",
    stages=(WALKS,),
    variants=_variants,
    columns=(
        Column("CAM", CAMS, TRAIN, published=_published(47.3, CAM)),
        Column("CAM + random walk", WALKS, TRAIN, published=_published(58.8, WALK)),
    ),
)
