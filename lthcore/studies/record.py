"""The record of a study: everything that is particular to it. Standard library only.

A study is one :class:`Experiment`. Each study of this package has a file of its own; a user's may be anywhere.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..config import Config
from ..methods import meant, one_of
from ..runs import presets
from ..unit import Unit

Figure = Callable  # (study, frame) -> the figure and the table of what is drawn on it
GROUPS = ("report", "extended", "named", "own")  # `named`: beyond the report too, not run yet at the full schedule
COLOURS = ("black", "orange", "sky", "green", "yellow", "blue", "red", "purple")  # of figures.OKABE_ITO
Style = tuple[str, str, str]  # label, colour, marker


@dataclass(frozen=True)
class Claim:
    """A published claim, and what it is judged by.

    Parameters
    ----------
    id : str
    text : str
        In a line.
    published : str
        The number that is published.
    figure : str
        Name of the figure that shows it.
    measures : callable
        ``(frame, config)`` -> list of :class:`lthcore.results.verdicts.Measure`.
    """

    id: str
    text: str
    published: str
    figure: str
    measures: Callable


@dataclass(frozen=True)
class Answer:
    """How a study answers its notebook's question.

    Parameters
    ----------
    claim : str
        The claim on which the answer rests.
    holds, fails, unresolved : (str, str)
        The answer in a sentence, and what follows from it, by the claim's verdict. No results: those are read.
    """

    claim: str
    holds: tuple[str, str]
    fails: tuple[str, str]
    unresolved: tuple[str, str]


@dataclass(frozen=True, eq=False)
class Experiment:
    """A study: what it trains, how it is drawn, and what is claimed of it.

    Parameters
    ----------
    name : str
        Lower case letters, digits and underscores. It is part of the identity of every level.
    arms : callable
        ``(config, replicate)`` -> the units of one replicate.
    settings : dict
        Fields of :class:`lthcore.config.Config` that differ from their defaults.
    presets : dict of str to dict
        What differs in a preset from `settings` and :data:`lthcore.runs.presets.PRESETS`.
    fixed : tuple of str
        Settings that nobody may change.
    first : int
        Number of its first replicate at the preset ``report``. Those before it chose the levels of a rule by which this
        study is judged.
    exploratory : int
        How many of its first replicates had been analysed before the rules on its claims were final. Where there are
        others, those alone decide; else the verdicts say so.
    decides : tuple of str
        Claims of the report that it decides, since it stores what the experiment named in their rule does not.
    smallest : float
        Share of the training images in the smallest subset that an arm trains on.
    by_margin : bool
        Whether a claim depends on the setting `margin`.
    title : str
        In a few words, for tables.
    group : {"own", "report", "extended", "named"}
        ``report``: of the course report; ``extended``: beyond it; ``named``: beyond it as well, and run only where it
        is named, since the archive has nothing of it yet; ``own``: a user's.
    notebook, parameters, copy : str, dict, str
        The notebook that shows it, the parameters that make it one of several, and the name of its executed copy.
    styles : dict of str to (str, str, str)
        Arm -> label, colour (a name in :data:`lthcore.results.figures.OKABE_ITO`) and marker.
    full_labels : dict of str to str
        Arm -> its label among all arms of the study, where that in `styles` needs a panel's title beside it.
    facts : dict of str to object
        Arm -> the settings that its name encodes, as values, for figures.
    figures : dict of str to callable
        File name -> function of ``(study, frame)`` that gives the figure and the table of what is drawn on it.
    claims : tuple of Claim
        What others have published on it; the course report's claims are rules in :mod:`lthcore.results.rules`.
    answer : Answer or None
        How it answers its notebook's question.
    reported : dict of str to float
        Arm -> the accuracy that the course report gives for its ticket, in percent.
    """

    name: str
    arms: Callable[[Config, int], Iterable[Unit]]
    settings: dict = field(default_factory=dict)
    presets: dict = field(default_factory=dict)
    fixed: tuple = ()
    first: int = 0
    exploratory: int = 0
    decides: tuple[str, ...] = ()
    smallest: float = 1.0
    by_margin: bool = False
    title: str = ""
    group: str = "own"
    notebook: str = ""
    parameters: dict = field(default_factory=dict)
    copy: str = ""
    styles: dict[str, Style] = field(default_factory=dict)
    full_labels: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    answer: Answer | None = None
    reported: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", self.name, re.ASCII):
            raise ValueError(f"name = {self.name!r}: must be lower case letters, digits and underscores")
        if self.group not in GROUPS:
            raise ValueError(f"group = {self.group!r}: {one_of(self.group, GROUPS)}")
        for preset in self.presets:
            if preset not in presets.PRESETS:
                raise ValueError(f"preset = {preset!r}: {one_of(preset, presets.PRESETS)}")
        for given in (self.settings, *self.presets.values()):
            presets.check(given)
        object.__setattr__(self, "settings", presets.renamed(self.settings))
        in_presets = {preset: presets.renamed(given) for preset, given in self.presets.items()}
        object.__setattr__(self, "presets", in_presets)
        for arm, (_, colour, _) in self.styles.items():
            if colour not in COLOURS:
                raise ValueError(f"styles: the colour of {arm!r} is {colour!r}, {one_of(colour, COLOURS)}")
        for name in self.fixed:
            if name not in self.settings:
                raise ValueError(f"fixed = {name!r}: must be one of its settings{meant(name, self.settings)}")
        for claim in self.claims:
            if claim.figure not in self.figures:
                near = meant(claim.figure, self.figures)
                raise ValueError(f"figure = {claim.figure!r}: must be one of its figures{near}")
