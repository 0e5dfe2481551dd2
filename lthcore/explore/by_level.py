"""The pictures of the slider through a study's levels: training curves, and which outputs are connected. No torch."""

import textwrap

import matplotlib

from ..results import figures, statistics
from ..results.figures import UNITS
from .panels import Panel, put_title

METRICS = ("accuracy", "loss")
WRAPPED = 30  # characters of a line of a legend


class Training(Panel):
    """Test accuracy and loss against training step of every arm at one level, over the dense network's.

    Parameters
    ----------
    study : Study
    frame : DataFrame
        Its tidy rows.
    """

    def __init__(self, study, frame):
        self.study = study
        self.rows = frame[(frame["split"] == "test") & frame["metric"].isin(METRICS) & _drawn(frame)]
        arms = max((rows["arm"].unique() for _, rows in self.rows.groupby("level")), key=len)
        lines = sum(len(textwrap.wrap(f"{self._label(arm)} (n = 10)", WRAPPED)) for arm in arms)
        super().__init__(2, height=max(3.1, 0.8 + 0.2 * lines), right=0.73, wspace=0.3)

    def _label(self, arm):
        record = self.study.experiment
        return figures.full_label(arm, record.styles, record.full_labels)

    def _frame(self, *axes):
        dense = self.rows[self.rows["level"] == 0]
        dense = dense[dense["arm"] == dense["arm"].iloc[0]] if len(dense) else dense
        for axis, metric in zip(axes, METRICS, strict=True):
            rows = self.rows[self.rows["metric"] == metric]
            means = rows.groupby(["arm", "level", "step"], observed=True)["value"].mean()
            figures.step_axis(axis)
            low, high = means.min(), means.max()
            axis.set(ylabel=UNITS[metric], xlim=(0, 1.1 * rows["step"].max() + 1))
            if metric == "loss":
                figures.loss_axis(axis)
            axis.set_ylim(*((low / 1.2, high * 1.2) if metric == "loss" else (low - 3, high + 3)))
            if len(dense):
                table = figures.by_step(dense, 0, metric)
                figures.curve(axis, table, "step", "", "0.35", band=False, lw=1, ls="--")
        text = f"dashed: the dense network\nlines: mean, bands: 95% t-interval\npreset {self.study.config.preset}"
        self.figure.text(0.745, 0.02, text, fontsize=7.5, color="0.4")

    def png(self, level):
        """The page at a level: bytes."""
        there = self.rows[self.rows["level"] == level]
        arms = list(dict.fromkeys(there["arm"]))
        for axis, metric in zip(self.axes, METRICS, strict=True):
            table = figures.by_step(there, level, metric)
            for arm, width in zip(arms, figures.widths(arms), strict=True):
                colour = figures.style(arm, self.study.experiment.styles)[1]
                figures.curve(axis, table[table["arm"] == arm], "step", self._label(arm), colour, lw=width)
        put_title(self.axes[0], f"level {level}, {100 * statistics.density_at(there, arms[0], level):.3g}% density")
        lines, labels = self.axes[0].get_legend_handles_labels()
        labels = [
            textwrap.fill(label.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), WRAPPED) for label in labels
        ]
        self.axes[1].legend(lines, labels, loc="upper left", bbox_to_anchor=(1.01, 1.04), frameon=False, fontsize=8)
        return self._png()


class Outputs(Panel):
    """In how many replicates each output has a path from a pixel at one level, and what is answered; a row per arm.

    Parameters
    ----------
    study : Study
    frame : DataFrame
        Its tidy rows.
    """

    def __init__(self, study, frame):
        rows = frame[_drawn(frame)]
        outputs = rows[rows["metric"].str.match(r"live_output:\d")]
        number = outputs["metric"].str.removeprefix("live_output:").astype(int)
        keys = ["level", "arm", "replicate"]
        self.connected = outputs.assign(output=number).pivot_table("value", keys, "output", observed=True)
        answers = rows[rows["metric"].isin(("answered_classes", "top_answer"))]
        self.answers = answers.pivot_table("value", keys, "metric", observed=True)
        record = study.experiment
        arms = list(dict.fromkeys(outputs["arm"]))
        self.labels = {arm: figures.full_label(arm, record.styles, record.full_labels) for arm in arms}
        height = 1.3 + 0.27 * len(arms)
        super().__init__(1, height=height, left=0.27, right=0.66, bottom=0.6 / height, top=1 - 0.4 / height)

    @property
    def any_is_lost(self):
        """Whether an output is disconnected in any network: bool."""
        return bool((self.connected == 0).any(axis=None))

    def _frame(self, axis):
        axis.grid(visible=False)
        axis.set(xlim=(-0.5, 9.5), ylim=(max(len(self.labels), 1) - 0.5, -0.5), xlabel="output")
        axis.set_xticks(range(10))
        axis.set_yticks(range(len(self.labels)), list(self.labels.values()), fontsize=8.5)

    def png(self, level):
        """The page at a level: bytes."""
        (axis,) = self.axes
        small = {"va": "center", "fontsize": 8, "color": "0.2"}
        for row, arm in enumerate(self.labels):
            if (level, arm) not in self.connected.index:
                continue
            connected, answers = self.connected.loc[level, arm], self.answers.loc[level, arm]
            for output, count in connected.sum().items():
                share = count / len(connected)
                shade = matplotlib.colormaps["Blues"](0.75 * share)
                axis.add_patch(
                    matplotlib.patches.Rectangle((output - 0.46, row - 0.46), 0.92, 0.92, fc=shade, ec="0.7")
                )
                ink = "white" if share > 0.6 else small["color"]
                axis.text(output, row, f"{count:.0f}", ha="center", **small | {"color": ink})
            one = answers[answers["answered_classes"] == 1]
            which = ", ".join(f"{answer:.0f}" for answer in sorted(one["top_answer"].unique()))
            text = f"{len(one)} of {len(answers)} answer one class: {which}" if len(one) else "several classes answered"
            axis.text(9.7, row, text, ha="left", **small)
        put_title(axis, f"level {level}: replicates in which an output has a path from a pixel")
        return self._png()


def _drawn(frame):
    """Rows of the arms that a level's pictures show: where the output layer is left unpruned, the ticket's alone."""
    return ~(frame["arm"].str.endswith("_spared") & (frame["arm"] != "ticket_spared"))
