"""Widgets over finished results: they read what is there and train nothing."""

import ipywidgets as widgets
import matplotlib.pyplot as plt

from . import plots, results


def levels(study, frame):
    """A slider through the levels: the training curves of all arms at the chosen density.

    Parameters
    ----------
    study : Study
    frame : DataFrame
        Its tidy rows.

    Returns
    -------
    ipywidgets.Widget
    """
    there = sorted(frame["level"].unique())
    chain = frame["arm"].iloc[0]
    names = [(f"{100 * results.density_at(frame, chain, k):.3g} % (level {k})", k) for k in there]
    slider = widgets.SelectionSlider(
        options=names, description="density", continuous_update=False, layout={"width": "28em"}
    )

    def draw(level):
        plots.at_level(study, frame, level)
        plt.show()

    picture = widgets.interactive_output(draw, {"level": slider})
    picture.layout.min_height = "430px"  # the page does not jump while it is redrawn
    return widgets.VBox([slider, picture])
