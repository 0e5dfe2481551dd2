"""How far LeNet-5 can be pruned: the report's Figures 2a and 2b."""

from .mlp import STYLES, accuracy_vs_density, accuracy_vs_step, arms, how_far
from .record import Answer, Experiment


def fig2a(study, frame):
    """LeNet-5: test accuracy against density."""
    return accuracy_vs_density(study, frame, 2, "LeNet-5", ((0.15, "85% pruned"), (0.05, "95% pruned")))


def fig2b(study, frame):
    """LeNet-5: the ticket's test accuracy against training step, at five densities."""
    return accuracy_vs_step(study, frame, 2, "LeNet-5")


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
    figures={"fig2a_lenet5_accuracy_vs_density": fig2a, "fig2b_lenet5_accuracy_vs_step": fig2b},
    answer=Answer("lenet-85", *how_far("LeNet-5", "85%")),
)
