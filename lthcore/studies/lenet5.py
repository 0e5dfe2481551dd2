"""How far LeNet-5 can be pruned: the report's Figures 2a and 2b."""

from .mlp import STYLES, arms
from .record import Experiment

LENET5 = Experiment(
    name="lenet5",
    title="Pre-midsem: LeNet-5",
    group="report",
    notebook="01_pre_midsem",
    parameters={"model": "lenet5"},
    copy="01_pre_midsem_lenet5",
    settings={"model": "lenet5", "batch_size": 60, "epochs": 50, "prune_rate": 0.2, "rounds": 20},
    presets={"report": {"controls": 4}, "smoke": {"levels": (0, 1, 2, 20)}},
    fixed=("model",),
    arms=arms,
    styles=STYLES,
)
