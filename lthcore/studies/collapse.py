"""How much of an accuracy drop comes from disconnected outputs? Every scope, rate and output rate."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ..config import Config
from ..results.later import figures, measures, statistics, verdicts
from ..unit import Unit
from .record import Answer, Claim, Experiment

RATES = {"mlp": ((0.2, 28), (0.3, 17), (0.5, 9)), "lenet5": ((0.2, 20),)}  # model -> (rate, rounds)
SCOPES = ("layer", "global")


class Facts(NamedTuple):
    """The settings that a chain's name encodes."""

    model: str
    scope: str
    rate: float
    head: str
    """The output layer's rate: the same, half of it, or none."""

    @property
    def arm(self):
        """The chain's name."""
        return " ".join(map(str, self))

    @property
    def output(self):
        """Its rate and the output layer's, in words."""
        head = {"same": "as the others", "half": "at half the rate", "spared": "unpruned"}[self.head]
        return f"{100 * self.rate:g}%, output layer {head}"

    @property
    def where(self):
        """Its scope in words."""
        return "in every layer" if self.scope == "layer" else "over all layers"

    @property
    def label(self):
        """All of it in words."""
        model = {"mlp": "MLP", "lenet5": "LeNet-5"}[self.model]
        return f"{model}, {self.where}: {self.output}"


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Chains of every scope, rate and output rate."""
    for model, rates in RATES.items():
        for rate, rounds in rates:
            for scope in SCOPES:
                for head, output_rate in (("same", None), ("half", rate / 2), ("spared", 0)):
                    levels = config.levels and (*(k for k in config.levels if k < rounds), rounds)
                    grid = {"model": model, "prune_rate": rate, "rounds": rounds, "levels": levels}
                    of_arm = replace(config, **grid, scope=scope, output_rate=output_rate)
                    yield Unit(of_arm, Facts(model, scope, rate, head).arm, replicate)


_RATES = {0.2: "blue", 0.3: "orange", 0.35: "red", 0.5: "green"}


_HEADS = {"same": ("o", "-"), "half": ("s", "--"), "spared": ("D", ":")}


# the report's own schedules among the chains
_TASK2 = Facts("mlp", "layer", 0.35, "same")
TASK2 = _TASK2.arm  # the report's Task 2, named as the chains of this study are; it is none of them
FACTS = [
    Facts(model, scope, rate, head)
    for model, rates in RATES.items()
    for rate, _ in rates
    for scope in SCOPES
    for head in _HEADS
]
_REPORTED = {"mlp layer 0.3 same": "report's MLP", "lenet5 layer 0.2 same": "report's LeNet-5"}
_REPORTED |= {TASK2: "report's Task 2 (21.1479%)"}


def fig11a(study, frame):
    """The collapse atlas: where counting predicts the first disconnected output, and where it is."""
    from matplotlib.ticker import NullFormatter

    from . import experiments

    table = experiments.disconnections(study, frame).reset_index()
    facts = study.experiment.facts
    sheet = figures.Sheet(
        study, "Figure 11a. Where the first output is disconnected: predicted by counting, and observed after training"
    )
    for axis, model in zip(sheet.axes, ("mlp", "lenet5"), strict=True):
        chains = table[table["arm"].map(lambda arm: facts[arm].model) == model]
        both = chains.dropna(subset=["predicted", "seen"]).sort_values("seen")
        alive = f"in {len(chains) - len(both)} of {len(chains)} chains every output stays connected"
        axis.annotate(alive, (0.02, 0.04), xycoords="axes fraction", fontsize=8, color="0.3")
        for i, (arm, predicted, seen) in enumerate(both[["arm", "predicted", "seen"]].itertuples(index=False)):
            _, scope, rate, head = facts[arm]
            colour = figures.OKABE_ITO[_RATES[rate]]
            face = "none" if scope == "global" else colour
            axis.scatter(predicted, seen, s=42, marker=_HEADS[head][0], edgecolors=colour, facecolors=face, zorder=3)
            output = "" if head == "same" else f", output layer {head}"
            label = _REPORTED.get(arm, f"{100 * rate:g}% {facts[arm].where}{output}")
            offset = {"xytext": (7 - 14 * (i % 2), -3), "ha": "right" if i % 2 else "left"}  # those that are near
            axis.annotate(label, (predicted, seen), fontsize=7, textcoords="offset points", **offset)
        for set_scale, ticks in ((axis.set_xscale, axis.set_xticks), (axis.set_yscale, axis.set_yticks)):
            set_scale("log")
            at = [t for t in figures.DENSITY_TICKS if 0.002 <= t <= 0.2]
            ticks(at, [f"{100 * t:g}" for t in at])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.axline((0.01, 0.01), (0.1, 0.1), color="0.5", lw=1, ls=":")
        axis.annotate("as predicted", (0.0035, 0.0035), rotation=-29, fontsize=8, color="0.4", ha="center", va="bottom")
        axis.set(xlim=(0.2, 0.0018), ylim=(0.0018, 0.2), title=figures.MODELS[model])
        axis.set(xlabel="predicted, theta0 pruned: density (%)", ylabel="observed: density (%)")
    sheet.drawn.append(table.assign(panel="map", n=study.config.replicates))
    return sheet.done(shown="points: medians over replicates")


def _atlas(study, frame, letter, quantity, values):
    sheet = figures.Sheet(study, f"Figure 11{letter}. The collapse: {quantity}, by scope, rate and output rate", rows=2)
    panels = [(model, scope) for model in ("mlp", "lenet5") for scope in SCOPES]
    facts = study.experiment.facts
    for axis, (model, scope) in zip(sheet.axes, panels, strict=True):
        for arm in [a for a in dict.fromkeys(frame["arm"]) if facts[a][:2] == (model, scope)]:
            rate, head = facts[arm][2:]
            of_arm = frame[frame["arm"] == arm]
            table = figures.spread(values(of_arm), of_arm).sort_values("density")
            colour, options = figures.OKABE_ITO[_RATES[rate]], {"ls": _HEADS[head][1], "lw": 1.6}
            sheet.line(axis, table, "density", facts[arm].output, colour, f"{model} {scope}", **options)
        figures.density_axis(axis)
        axis.set(
            ylabel=quantity,
            title=f"{figures.MODELS[model]}, rate {'in every layer' if scope == 'layer' else 'over all layers'}",
        )
    return sheet


def fig11b(study, frame):
    """Accuracy against density, for every scope, rate and output rate."""
    sheet = _atlas(study, frame, "b", figures.UNITS["accuracy"], statistics.at_end)
    return sheet.done(legend_on=(0, 2), where="lower left")


def _active(frame):
    """Active over nominal density: Series over (arm, level, replicate)."""
    active = statistics.at_end(frame, "effective_density", "mask")
    nominal = frame.groupby(["arm", "level"], observed=True)["density"].first()
    return active / nominal.reindex(active.index.droplevel("replicate")).to_numpy()


def fig11c(study, frame):
    """Active over nominal density: of the kept weights, the share on a path from a pixel to an output."""
    sheet = _atlas(study, frame, "c", "active / nominal density", _active)
    for axis in sheet.axes:
        axis.set_ylim(0, 1.05)
    return sheet.done(legend_on=(0, 2), where="lower left")


# where the mean of the exploratory replicates is first below 80%, and where the other chain is first as sparse
FALLEN = (
    ("mlp layer 0.3 spared", 15, "output layer unpruned", {"above": 80}),
    ("mlp layer 0.3 same", 13, "as pruned", {"judged": False}),
)


def _collapse(frame, config):
    """The MLP as the report pruned it, where its mean falls below 80%, and the same with the head unpruned."""
    accuracy, found = measures.last_fifth(frame), []
    for arm, level, what, bound in FALLEN:
        at = {"level": level, "density": statistics.density_at(frame, arm, level), "unit": verdicts.PERCENT}
        values = statistics.paired(accuracy, arm, level)
        found.append(verdicts.Measure(f"{what}, level {level}", values=values, **at, **bound))
    return found


CLAIMS = (
    Claim("collapse", "where the MLP falls below 80%, it stays above with its output layer unpruned", "nothing",
          "fig11b_collapse_accuracy", _collapse),
)  # fmt: skip

COLLAPSE = Experiment(
    name="collapse",
    title="An atlas of collapses",
    group="extended",
    notebook="11_collapse",
    # prune_rate, rounds and scope stand for none of the arms
    settings={"model": "mlp", "batch_size": 60, "epochs": 3, "prune_rate": 0.3, "rounds": 20},
    presets={"quick": {"replicates": 1}, "smoke": {"levels": (0, 1, 2, 20)}},
    exploratory=3,
    arms=arms,
    full_labels={known.arm: known.label for known in FACTS},
    facts={known.arm: known for known in (*FACTS, _TASK2)},
    figures={"fig11a_collapse_map": fig11a, "fig11b_collapse_accuracy": fig11b, "fig11c_effective_density": fig11c},
    claims=CLAIMS,
    answer=Answer(
        "collapse",
        (
            "Enough that, with its output layer unpruned, the MLP stays above 80% where it otherwise falls below: its "
            "outputs had lost their last path.",
            "count what lies on a path from a pixel to an output before an accuracy drop is put down to sparsity.",
        ),
        (
            "The MLP collapses even with its output layer unpruned: disconnected outputs are not the cause.",
            "too few weights are left elsewhere.",
        ),
        (
            "Whether sparing the output layer prevents the MLP's collapse is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
