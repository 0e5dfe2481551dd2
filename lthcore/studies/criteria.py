"""How do other ways to prune compare, where the report resets magnitude tickets?"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..config import Config
from ..results.later import figures, statistics, verdicts
from ..unit import Fresh, MaskOf, Unit
from .common import PROTOCOL, STYLES
from .record import Answer, Claim, Experiment

FILTERS = {"model": "lenet5", "structure": "filters", "prune_rate": 0.25, "output_rate": None, "scope": "layer"}


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Starting values of the survivors; pruning criteria, one-shot and with retraining; whole filters of LeNet-5."""
    on = replace(config, rewind="final")
    tuned = {"rewind": "final", "retrain_epochs": max(1, config.epochs // 3), "retrain_lr": config.lr / 10}
    kept = Unit(on, "lr_rewind", replicate)
    yield Unit(config, "reset", replicate)
    yield kept
    yield Unit(replace(config, **tuned), "finetune", replicate)
    for name in ("magnitude", "obd", "random"):
        every = replace(on, criterion=name, scope="global", output_rate=None)
        yield Unit(every, f"{name}_retrained", replicate)
        yield Unit(replace(every, rewind="reset", levels=(0,)), f"{name}_deleted", replicate, probes=("deletion",))
    whole = replace(config, **FILTERS)
    filters = Unit(replace(whole, **tuned), "filters", replicate, probes=("smaller",))
    yield filters
    yield Unit(replace(whole, **tuned, criterion="random"), "filters_random", replicate)
    yield Unit(whole, "filters_reset", replicate)
    if config.control_levels:  # at full length and rate, as if nothing had been learned
        fresh = {"start": Fresh(), "levels": config.control_levels}
        yield Unit(config, "random_reinit", replicate, mask=MaskOf(kept), **fresh)
        yield Unit(whole, "filters_reinit", replicate, mask=MaskOf(filters), **fresh)


STYLES = {
    "random_reinit": STYLES["random_reinit"],
    "reset": ("weight rewinding (to theta0)", "blue", "o"),
    "lr_rewind": ("learning-rate rewinding", "red", "D"),
    "finetune": ("fine-tuned", "purple", "v"),
    "obd_deleted": ("OBD", "red", "D"),
    "magnitude_deleted": ("magnitude", "blue", "o"),
    "random_deleted": ("random", "green", "^"),
    "obd_retrained": ("OBD", "red", "D"),
    "magnitude_retrained": ("magnitude", "blue", "o"),
    "random_retrained": ("random", "green", "^"),
    "filters": ("L1 filters, fine-tuned", "purple", "v"),
    "filters_random": ("random filters, fine-tuned", "green", "^"),
    "filters_reset": ("L1 filters, reset to theta0", "blue", "o"),
    "filters_reinit": ("L1 filters, reinitialised", "orange", "s"),
}


FULL_LABELS = {
    f"{name}_{how}": f"{STYLES[f'{name}_{how}'][0]}, {when}"
    for name in ("magnitude", "obd", "random")
    for how, when in (("deleted", "deleted at once"), ("retrained", "retrained round by round"))
}


def _length(study, tuned=True):
    """How long each level is trained, in words."""
    epochs, steps = study.config.epochs, study.config.max_steps
    length = f"at most {steps} steps" if steps else f"{epochs} epoch{'s' * (epochs > 1)}"
    return f"{length} per level" + f", {max(1, epochs // 3)} if fine-tuned" * (tuned and not steps)


def fig8a(study, frame):
    """What the survivors start from: theta0, their final weights, or fresh values; accuracy and paired differences."""
    arms = ("reset", "lr_rewind", "random_reinit", "finetune")
    sheet = figures.Sheet(study, f"Figure 8a. What the survivors start from; MLP, {_length(study)}")
    sheet.against_density(sheet.axes[0], frame, arms, title="accuracy")
    pairs = (
        ("lr_rewind", "learning-rate - weight rewinding", "reset"),
        ("lr_rewind", "learning-rate rewinding - reinitialised", "random_reinit"),
        ("lr_rewind", "learning-rate rewinding - fine-tuned", "finetune"),
        ("reset", "weight rewinding - fine-tuned", "finetune"),
    )
    bounds = {label: -study.config.margin if other == "reset" else 0 for _, label, other in pairs}
    sheet.differences(sheet.axes[1], frame, pairs, "paired differences", bounds)
    return sheet.done(where="lower left")


def fig8b(study, frame):
    """Deletion by magnitude, by OBD and at random: one-shot without retraining, and retrained after each round."""
    sheet = figures.Sheet(
        study, f"Figure 8b. Criterion by which weights are deleted, all layers; MLP, {_length(study, False)}", rows=2
    )
    loss, accuracy, full, near = sheet.axes
    figures.loss_axis(loss)
    gone, names = statistics.deletions(frame), ("random", "magnitude", "obd")
    deleted = [arm for name in names if (arm := f"{name}_deleted") in set(gone["arm"])]
    train = statistics.at_end(gone, "loss", "train")
    sheet.against_density(loss, gone, deleted, title="one-shot, no retraining: training loss", series=train)
    predicted = statistics.at_end(gone, "foretold", "train")  # the metric's name in the archive
    if len(predicted):
        predicted = predicted.add(train.loc["obd_deleted", 0], level="replicate")
        table = figures.spread(predicted, gone).sort_values("density")
        sheet.line(loss, table, "density", None, figures.OKABE_ITO["black"], "predicted", ls=":", lw=1.4)
        loss.set_title("one-shot, no retraining: training loss (dotted: predicted by OBD)")
    loss.set(ylabel="training loss (nats)")
    sheet.against_density(accuracy, gone, deleted, title="one-shot, no retraining: test accuracy")
    retrained = [f"{name}_retrained" for name in names]
    title = "retrained from the final weights, round by round"
    sheet.against_density(full, frame, retrained, title=title)
    sheet.against_density(
        near, frame, retrained, title="the same, near the dense network", zoom=figures.zoom(frame, retrained)
    )
    return sheet.done(legend_on=(1, 2), where="lower left")


def fig8c(study, frame):
    """Whole filters of LeNet-5: accuracy against remaining weights and multiply-adds, and paired differences."""
    arms = [a for a in ("filters_reset", "filters_reinit", "filters_random", "filters") if a in set(frame["arm"])]
    sheet = figures.Sheet(study, f"Figure 8c. Whole filters of LeNet-5 removed; {_length(study)}", columns=3)
    sheet.against_density(sheet.axes[0], frame, arms, title="against remaining weights")
    cost = statistics.at_end(frame, "multiply_adds", "mask").groupby("level").mean()
    share = frame["level"].map(cost / cost.max()).astype(float)
    sheet.against_density(sheet.axes[1], frame.assign(density=share), arms, title="against remaining multiply-adds")
    sheet.axes[1].set(xlabel="multiply-adds of an image (% of the whole network's)")
    pairs = (
        ("filters", "L1, fine-tuned - dense", None),
        ("filters", "L1, fine-tuned - reinitialised", "filters_reinit"),
    )
    bounds = {label: 0 if other else -study.config.margin for _, label, other in pairs}
    sheet.differences(sheet.axes[2], frame, pairs, "paired differences", bounds)
    for axis in sheet.axes:
        axis.set_xscale("linear")
        axis.set_xlim(1.05, 0.1)
        axis.set_xticks([1, 0.8, 0.6, 0.4, 0.2], ["100", "80", "60", "40", "20"])
    return sheet.done(where="lower left")


_DESCRIPTIONS = {  # of the arms, in a line
    "lr_rewind": "learning-rate rewinding",
    "reset": "weight rewinding",
    "finetune": "fine-tuned",
    "random_reinit": "reinitialised",
    "obd_retrained": "OBD",
    "magnitude_retrained": "magnitude",
    "random_retrained": "random",
    "filters": "L1 filters",
    "filters_reinit": "L1 filters, reinitialised",
}


def _better_than(frame, config, *, pairs, levels=(5,), slack=0):
    """The first arm of each pair is better than the second; with `slack` 1, not worse by more than the margin."""
    return [
        verdicts.difference(
            frame,
            f"{_DESCRIPTIONS[one]} - {_DESCRIPTIONS[other]}, level {k}",
            (one, k),
            (other, k),
            above=-slack * config.margin,
        )
        for k in levels
        for one, other in pairs
    ]


def _still_dense(frame, config, *, arm, level, **published):
    """An arm at a level is at most the margin below its own dense network; also shown: the gain at the first level."""
    title, judged = _DESCRIPTIONS[arm], {"above": -config.margin, **published}
    found = [verdicts.difference(frame, f"{title} - dense, level {level}", (arm, level), (arm, 0), **judged)]
    if level > 1:  # the dense network itself is not trained on
        found.append(verdicts.difference(frame, f"{title}, level 1 - dense", (arm, 1), (arm, 0), judged=False))
    return found


_BY = {"obd": "OBD", "magnitude": "magnitude", "random": "random"}


def _deletable(frame, config, *, one, other):
    a, b = (statistics.deletable(statistics.deletions(frame), f"{name}_deleted") for name in (one, other))
    what = "% of the weights deleted before the training loss rises by 0.1 nats"
    unit = {"unit": "difference in deleted weights (pp)"}
    shown = [
        verdicts.Measure(f"{_BY[name]}: {what}", 0, 1.0, share, judged=False, **unit)
        for name, share in ((one, a), (other, b))
    ]
    return [verdicts.Measure(f"{_BY[one]} - {_BY[other]}: {what}", 0, 1.0, (a - b).dropna(), above=0, **unit), *shown]


def _filters(frame, config):
    cost = statistics.at_end(frame, "multiply_adds", "mask")
    saved = 100 * (1 - statistics.paired(cost, "filters", 1) / statistics.paired(cost, "filters", 0))
    at = statistics.density_at(frame, "filters", 1)
    shown = verdicts.Measure(
        "multiply-adds saved, in percent, level 1",
        1,
        at,
        saved,
        judged=False,
        published=34,
        unit="multiply-adds saved (%)",
    )
    return [*_still_dense(frame, config, arm="filters", level=1), shown]


def _lr_rewinding(frame, config):
    return _better_than(frame, config, pairs=[("lr_rewind", "reset")], levels=(3, 5), slack=1)


def _fine_tuning(frame, config):
    return _better_than(frame, config, pairs=[("lr_rewind", "finetune"), ("reset", "finetune")])


def _random(frame, config):
    pairs = [(f"{by}_retrained", "random_retrained") for by in ("obd", "magnitude")]
    return _better_than(frame, config, pairs=pairs)


_RULES = "fig8a_rewinding_rules"
_DELETION = "fig8b_deletion"
_WHOLE = "fig8c_filters"
CLAIMS = (
    Claim("criteria-lr-rewinding",
          "learning-rate rewinding is at most 0.5 pp worse than weight rewinding (12.6, 3.2%; Renda et al. 2020)",
          "matches or outperforms", _RULES, _lr_rewinding),
    Claim("criteria-fine-tuning",
          "both beat fine-tuning for a third of the epochs at a tenth of the rate (3.2% density; Renda et al.)",
          "both outperform it", _RULES, _fine_tuning),
    Claim("criteria-twelfth",
          "fine-tuned, a sixteenth of the weights is at most 0.5 pp worse than dense (Han et al. 2015)",
          "error 1.64 to 1.59% at 12x", _RULES, partial(_still_dense, arm="finetune", level=4, published=0.05)),
    Claim("criteria-retain",
          "at full rate and length, retained weights beat fresh ones under the same mask (3.2%; Han et al. 2015)",
          "better", _RULES, partial(_better_than, pairs=[("lr_rewind", "random_reinit")])),
    Claim("criteria-obd", "deleted at once by OBD, the loss rises less than by magnitude (LeCun et al. 1990)",
          "significantly smaller", _DELETION, partial(_deletable, one="obd", other="magnitude")),
    Claim("criteria-obd-random", "deleted by OBD, it rises less than at random (LeCun et al. 1990)",
          "beyond their scale", _DELETION, partial(_deletable, one="obd", other="random")),
    Claim("criteria-obd-retrained",
          "after OBD to 25%, retrained at full rate, at most 0.5 pp worse than dense (LeCun et al. 1990; no control)",
          "60%: almost the same", _DELETION, partial(_still_dense, arm="obd_retrained", level=2)),
    Claim("criteria-random", "retrained, OBD and magnitude beat random deletion (3.1% density)", "nothing",
          _DELETION, _random),
    Claim("criteria-filters", "a round of whole filters removed, retrained: at most 0.5 pp worse (Li et al. 2017)",
          "VGG-16: 34%, close to the original accuracy", _WHOLE, _filters),
    Claim("criteria-scratch", "trained from scratch, the smaller network is worse (Li et al. 2017)", "worse", _WHOLE,
          partial(_better_than, pairs=[("filters", "filters_reinit")], levels=(3,))),
)  # fmt: skip

CRITERIA = Experiment(
    name="criteria",
    title="Criteria, rewind rules and filters",
    group="extended",
    notebook="08_pruning_criteria",
    # short enough for a CPU to finish in an hour
    settings={**PROTOCOL, "epochs": 9, "prune_rate": 0.5, "output_rate": 0.25, "rounds": 6, "frequent_epochs": 0},
    presets={
        "report": {"replicates": 8},
        "quick": {"replicates": 1, "levels": (0, 2, 5)},
        "smoke": {"rounds": 15, "levels": (0, 1, 2, 15)},
    },
    exploratory=3,
    by_margin=True,
    arms=arms,
    styles=STYLES,
    full_labels=FULL_LABELS,
    figures={_RULES: fig8a, _DELETION: fig8b, _WHOLE: fig8c},
    claims=CLAIMS,
    answer=Answer(
        "criteria-fine-tuning",
        (
            "Weight and learning-rate rewinding are both better than fine-tuning for a third as long at a tenth "
            "of the rate, with a thirtieth of the weights left.",
            "at low density the length and rate of retraining matter, taken together; this does not show "
            "that OBD and magnitude differ.",
        ),
        (
            "At least one kind of rewinding is worse than fine-tuning for a third as long, with a thirtieth of the "
            "weights left.",
            "the short fine-tuning is enough here, at a third of the cost.",
        ),
        (
            "Whether rewinding is better than fine-tuning, with a thirtieth of the weights left, is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
