"""Prune a trained network by hand: choose a layer, a fraction and a criterion, and see mask and accuracy at once.

Nothing is trained again and nothing is kept.
"""

import html
from dataclasses import replace
from typing import NamedTuple

import ipywidgets as widgets

from .. import methods
from ..runs.store import Weights
from ..schedule import ARCHITECTURES
from ..unit import Unit
from . import panels
from .place import refused_in

ALL = "all layers together"
NO_WEIGHTS = "The final weights of this network are not here: press 'train weights' above."


class Step(NamedTuple):
    """A network on the way, and how it came about."""

    text: str
    mask: dict  # layer name -> bool array
    accuracy: float
    """On the test images, in percent."""

    @property
    def density(self) -> float:
        """Kept / total prunable weights."""
        return sum(int(m.sum()) for m in self.mask.values()) / sum(m.size for m in self.mask.values())


class Pruning:
    """A trained network and what was pruned of it, step by step.

    Parameters
    ----------
    unit : Unit
    weights : lthcore.runs.store.Weights
        What its training began with and ended in.
    """

    def __init__(self, unit: Unit, weights: Weights):
        self.unit, self.weights = unit, weights
        mask = {name: weights.mask[name] for name in ARCHITECTURES[unit.config.model].weights}  # the first layer first
        self.steps = [Step("as trained", mask, self._accuracy(mask))]

    def prune(self, layer: str, fraction: float, criterion: str) -> Step:
        """Prune this fraction of what survives in a layer, or in `ALL`; layers without survivors stay as they are."""
        import torch

        from .. import data, pruning

        unit = replace(self.unit, config=replace(self.unit.config, criterion=criterion))
        before = {name: torch.from_numpy(m) for name, m in self.steps[-1].mask.items()}
        given = self.weights.start if methods.find("criterion", criterion).when == "start" else self.weights.final
        values = {name: torch.from_numpy(value) for name, value in given.items()}
        scores = pruning.scored(unit, values, before, data.load(unit))
        counts = {name: int(m.sum()) for name, m in before.items()}
        if layer == ALL:
            counts = {"*": sum(counts.values())}
        pool = "*" if layer == ALL else layer
        counts[pool] -= round(fraction * counts[pool])
        mask = {name: m.numpy() for name, m in pruning.keep_top(scores, before, counts).items()}
        text = f"{100 * fraction:g}% of {layer}, by {criterion}"
        self.steps.append(Step(text, mask, self._accuracy(mask)))
        return self.steps[-1]

    def undo(self) -> Step:
        """Take the last step back; of the trained network nothing is."""
        if len(self.steps) > 1:
            self.steps.pop()
        return self.steps[-1]

    def _accuracy(self, mask):
        import torch

        from .. import data
        from ..train import build_engine

        split = data.load(self.unit)
        images, labels = split.test
        values = {name: torch.from_numpy(value) for name, value in self.weights.final.items()}
        kept = {name: torch.from_numpy(m) for name, m in mask.items()}
        engine = build_engine([values], [kept], [split], self.unit.config)
        return 100 * (engine.logits(images[None])[0].argmax(1) == labels).double().mean().item()


class ByHand(widgets.VBox):
    """The widgets of a :class:`Pruning`: what is pruned next, its picture, undo, and what has been tried."""

    def __init__(self):
        self.of = self.pruning = self.page = self.digit = None
        self.layer = widgets.Dropdown(description="layer", options=[ALL])
        self.fraction = widgets.FloatSlider(description="fraction", min=0.05, max=0.95, step=0.05, value=0.5)
        self.criterion = widgets.Dropdown(description="criterion", options=list(methods.CRITERIA))
        self.go = widgets.Button(description="prune", icon="cut", disabled=True)
        self.back = widgets.Button(description="undo", icon="undo", disabled=True)
        self.picture = widgets.Image(
            value=panels.Note().png(NO_WEIGHTS), format="png", layout={"width": "100%", "max_width": "960px"}
        )
        self.history = widgets.HTML()
        self.go.on_click(self._prune)
        self.back.on_click(self._undo)
        row = {"flex_flow": "row wrap", "align_items": "center"}
        controls = widgets.HBox([self.layer, self.fraction, self.criterion, self.go, self.back], layout=row)
        super().__init__([controls, self.picture, self.history])

    def choose(self, unit: Unit, level: int, weights: Weights | None, digit) -> None:
        """Show the chosen network; another one than before begins anew."""
        self.digit = digit
        if weights is None:
            self.of = self.pruning = None
            self.picture.value, self.history.value = panels.Note().png(NO_WEIGHTS), ""
        elif self.of != (unit, level):
            self.of, self.pruning = (unit, level), Pruning(unit, weights)
            able = [name for name in methods.CRITERIA if not methods.find("criterion", name).supports(unit.config)]
            self.layer.options, self.criterion.options = [ALL, *self.pruning.steps[0].mask], able
            self.page = panels.MaskView(ARCHITECTURES[unit.config.model].weights, panels.ROLES["ticket"][1])
        self.show()

    def show(self) -> None:
        """Draw the network as it is now, and list the steps to it."""
        steps = self.pruning.steps if self.pruning else []
        self.go.disabled, self.back.disabled = not steps, len(steps) < 2
        if not steps:
            return
        self.picture.value = self.page.png(steps[-1].mask, self.digit)
        rows = "".join(
            f"<tr><td>{i}</td><td>{html.escape(step.text)}</td><td>{100 * step.density:.3g}%</td>"
            f"<td>{step.accuracy:.2f}%</td></tr>"
            for i, step in enumerate(steps)
        )
        heads = "".join(f"<th>{name}</th>" for name in ("step", "pruned", "density", "test accuracy"))
        self.history.value = f"<table><tr>{heads}</tr>{rows}</table>"

    def _prune(self, _):
        if self.pruning:  # a click may come after the network it was meant for
            with refused_in(self.history):
                self.pruning.prune(self.layer.value, round(self.fraction.value, 2), self.criterion.value)
                self.show()

    def _undo(self, _):
        if self.pruning:
            self.pruning.undo()
            self.show()
