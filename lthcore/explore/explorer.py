"""Widgets over finished results. They only read, except for training through `sweep` in a separate process."""

import asyncio
import base64
import contextlib
import html
import re
import textwrap
from functools import lru_cache

import ipywidgets as widgets
from IPython.display import Image, display

from .. import tickets
from ..results import statistics
from ..runs import committed, download, presets, store, sweep
from ..studies import experiments, plots
from . import by_hand, by_level, drawing, panels, place
from .place import refusal, refused_in

PAUSE = 0.01  # seconds: what arrives within them is drawn once, so that key presses do not queue pictures
ARRIVED = 0.3  # seconds after a click by which the last value of a slider has arrived
FRAME = "lth-explorer"  # the class of all of it
DIM = "lth-being-read"  # the class of what is not yet of the chosen experiment
DRAW = "Draw a digit: every network whose weights are here answers it.<br><b>clear</b> goes back to the test digits."
NOTHING = "Nothing is finished at this scale yet: run one of the notebooks 01 to 04, or find your own ticket below."


def levels(study, frame):
    """A slider through the levels: the training curves of all arms at the chosen density, at first the ticket's.

    Where a network loses outputs, a second picture shows which are still connected and what is answered.

    Parameters
    ----------
    study : Study
    frame : DataFrame
        Its tidy rows.

    Returns
    -------
    ipywidgets.Widget
    """
    there, chain = sorted(frame["level"].unique()), frame["arm"].iloc[0]
    names = [(f"{100 * statistics.density_at(frame, chain, k):.3g}% (level {k})", k) for k in there]
    first = statistics.shown_first(frame, chain, study.config.tolerance, there)
    slider = widgets.SelectionSlider(
        options=names, value=first, description="density", continuous_update=False, layout={"width": "28em"}
    )

    # pictures, not output areas: papermill may wait for ever for what is drawn into one
    outputs = by_level.Outputs(study, frame)
    drawn = [by_level.Training(study, frame), *([outputs] if outputs.any_is_lost else [])]
    options = {"format": "png", "layout": {"width": "100%", "max_width": "960px"}}
    pictures = [widgets.Image(value=panel.png(first), **options) for panel in drawn]

    def draw(_):
        for panel, picture in zip(drawn, pictures, strict=True):
            picture.value = panel.png(slider.value)

    slider.observe(draw, "value")
    return widgets.VBox([slider, *pictures])


def still(studies):
    """A static picture of what :class:`Explorer` shows first, for copies of the notebook without live widgets."""
    studies = [s for s in studies if _begun(s)]
    if not studies:
        print(NOTHING)
        return
    view = panels.Pictures(studies[0])
    arm, replicate, level = view.start()
    digits, _ = download.digits(view.units[arm, replicate].subset, dataset=view.units[arm, replicate].config.dataset)
    where = f"{_name(studies[0])}, {arm}, replicate {replicate}, level {level}"
    seen = f"What the network still reads, beside a digit, and what is left of every layer: {where}"
    stands = (
        f"Accuracy against density, a ring at the chosen level, and its training curve over the dense one's: {where}"
    )
    display(
        Image(view.seen(arm, replicate, level, digits[0]), alt=seen),
        Image(view.stands(arm, replicate, level), alt=stands),
    )


def _begun(study):
    return any(store.find_level(u, u.levels[0]) for u in study.units if u.levels)


def _name(study):
    changes = {k: v for k, v in presets.changes(study.config).items() if k not in ("replicates", "controls", "levels")}
    return ", ".join([study.config.experiment, study.config.preset, *(f"{k} {v}" for k, v in changes.items())])


class Explorer(widgets.VBox):
    """A ticket in detail: choose one, move through the densities, try digits, find a ticket of your own.

    Parameters
    ----------
    studies : list of Study
        Those with finished levels can be chosen.
    """

    def __init__(self, studies):
        self.views, self.found, self.tasks = {}, {}, {}
        self.job = self.loop = self.timer = self.offered = None
        self.studies = {_name(s): s for s in studies if _begun(s)}
        self.weights = lru_cache(maxsize=16)(committed.find)
        smoke = bool(studies) and studies[0].config.preset == "smoke"
        parts = self._choice(), *self._pictures(), self._progress(), self._tabs("smoke" if smoke else "quick")
        super().__init__((*parts, self._place(), _glossary()))
        self.add_class(FRAME)
        self._choose_experiment()
        self.draw()

    # ---------------------------------------------------------------------------------------------------- the page

    def _choice(self):
        options = {"layout": {"width": "auto", "max_width": "60%"}, "style": {"description_width": "initial"}}
        self.experiment = widgets.Dropdown(description="experiment", options=list(self.studies), **options)
        self.arm = widgets.Dropdown(description="arm", **options)
        self.replicate = widgets.Dropdown(description="replicate", **options)
        self.level = widgets.SelectionSlider(
            description="density", options=[("none", -1)], continuous_update=False, layout={"width": "30em"}
        )
        self.player = widgets.Play(interval=1200, min=0, max=0)
        widgets.jslink((self.player, "value"), (self.level, "index"))
        self.experiment.observe(self._choose_experiment, "value")
        for widget in (self.arm, self.replicate):
            widget.observe(self._choose_level, "value")
        self.level.observe(self._soon, "value")
        return widgets.VBox([_row(self.experiment, self.arm, self.replicate), _row(self.level, self.player)])

    def _pictures(self):
        self.moved_panel, self.answers_panel, note = panels.Moved(), panels.Answers(), panels.Note()
        self.nothing = note.png("The final weights of these networks are not here: press 'train weights' above.")
        options = {"format": "png", "layout": {"width": "100%", "max_width": "960px"}}  # of one shape: nothing jumps
        self.blank = note.png("")
        pictures = [widgets.Image(value=self.blank, **options) for _ in range(6)]
        self.seen, self.stands, self.moved, self.answers, self.compared, self.loaded = pictures
        return self.seen, self.stands

    def _progress(self):
        self.train = widgets.Button(description="train weights", icon="cogs", disabled=True)
        self.stop = widgets.Button(description="stop", icon="stop", disabled=True)
        self.bar = widgets.IntProgress(min=0, max=1, layout={"width": "10em"})
        self.state, self.status = widgets.HTML(), widgets.HTML(layout={"min_height": "32px"})
        self.train.on_click(self._train)
        self.stop.on_click(lambda _: self.job and self.job.stop())
        return widgets.VBox([_row(self.train, self.state, self.stop, self.bar), self.status])

    def _tabs(self, scale):
        self.order = widgets.Dropdown(options=list(statistics.ORDERS), description="digits")
        self.digit = widgets.IntSlider(description="number", min=0, max=99, continuous_update=False)
        for widget in (self.order, self.digit):
            widget.observe(self._soon, "value")
        self.canvas = drawing.Canvas()
        self.canvas.observe(self._soon, "pixels")
        self.download = widgets.Button(description="prepare the file", icon="download")
        self.file_form = widgets.Dropdown(options=list(tickets.FORMS), description="form")
        self.link = widgets.HTML()
        self.upload = widgets.FileUpload(accept=".safetensors", multiple=False, description="load a ticket")
        self.facts = widgets.HTML()
        self.download.on_click(self._offer)
        self.file_form.observe(self._offer, "value")
        self.upload.observe(self._load, "value")
        panels = {
            "Weights": [self.moved],
            "Try it": [_row(self.order, self.digit), self.answers, _row(self.canvas, widgets.HTML(DRAW))],
            "Find your own ticket": [self._form(scale), self.compared],
            "Keep it, load it": [
                _row(self.file_form, self.download, self.link),
                _row(self.upload, self.facts),
                self.loaded,
            ],
        }
        self.by_hand = by_hand.ByHand()
        panels["Prune by hand"] = [self.by_hand]
        self.tabs = widgets.Tab([widgets.VBox(page, layout={"min_height": "400px"}) for page in panels.values()])
        for i, title in enumerate(panels):
            self.tabs.set_title(i, title)
        self.tabs.selected_index = 0
        self.tabs.observe(self._soon, "selected_index")
        self.tabs.observe(self._estimate, "selected_index")
        return self.tabs

    def _form(self, scale):
        options = {"style": {"description_width": "8em"}, "layout": {"width": "20em"}}
        rates = [("as the others", None), ("0: unpruned", 0.0), *((f"{r:g}", r) for r in (0.1, 0.2, 0.3, 0.5))]
        self.form = {
            "preset": widgets.Dropdown(
                description="scale", options=["quick", "smoke", "report"], value=scale, **options
            ),
            "model": widgets.Dropdown(description="model", options=["mlp", "lenet5"], **options),
            "prune_rate": widgets.FloatSlider(
                description="rate a round", min=0.05, max=0.95, step=0.05, value=0.3, continuous_update=False, **options
            ),
            "rounds": widgets.IntSlider(
                description="rounds", min=1, max=30, value=8, continuous_update=False, **options
            ),
            "scope": widgets.Dropdown(description="scope", options=["layer", "global"], **options),
            "output_rate": widgets.Dropdown(description="output layer", options=rates, index=0, **options),
            "optimizer": widgets.Dropdown(description="optimizer", options=["adam", "sgd"], **options),
            "rewind_step": widgets.BoundedIntText(description="rewind step", min=0, max=10**6, value=0, **options),
        }
        self.find = widgets.Button(description="find it", icon="search", button_style="primary")
        self.find.on_click(self._find)
        self.cost = widgets.HTML()
        for widget in self.form.values():
            widget.observe(self._estimate, "value")
        return _row(*self.form.values(), self.find, self.cost)

    def _place(self):
        self.place = widgets.Text(
            description="this view", continuous_update=False, layout={"width": "100%", "max_width": "960px"}
        )
        self.place.observe(self._restore, "value")
        self.refused = widgets.HTML()
        hint = "One line of text: copy it to keep this view, paste another to come back to it."
        return widgets.VBox([self.place, widgets.HTML(hint), self.refused])

    # ------------------------------------------------------------------------------------------------ what is chosen

    @property
    def view(self):
        """The chosen study's :class:`lthcore.explore.panels.Pictures`, or None."""
        name = self.experiment.value
        if name and name not in self.views:
            count = sum(len(unit.levels) for unit in self.studies[name].units)
            self.state.value = f"reading {count} levels of {html.escape(name)}"  # takes seconds, once
            with self._waiting():
                self.views[name] = panels.Pictures(self.studies[name])
        return self.views.get(name)

    @contextlib.contextmanager
    def _waiting(self):
        """While an experiment is read, the pictures are dim and nothing of it can be chosen."""
        pictures = self.seen, self.stands, self.moved, self.answers
        controls = self.experiment, self.arm, self.replicate, self.level, self.player, self.order, self.digit
        try:
            for picture in pictures:
                picture.add_class(DIM)
            for control in controls:
                control.disabled = True
            yield
        finally:
            for picture in pictures:
                picture.remove_class(DIM)
            for control in controls:
                control.disabled = False

    def _chosen_by_name(self):
        """The widgets that the line of the view names: dict."""
        by_name = {name: getattr(self, name) for name in ("experiment", "arm", "replicate", "level", "order", "digit")}
        return by_name | {"file": self.file_form} | {f"form {name}": widget for name, widget in self.form.items()}

    def _restore(self, _=None):
        """Choose what the line of the view says; what is wrong in it is refused."""
        self.refused.value = ""
        with refused_in(self.refused):
            place.restore(self.place.value, self._chosen_by_name())
        self._soon()

    @property
    def chosen(self):
        """The chosen (Unit, level)."""
        return self.view.unit[self.arm.value, self.replicate.value, self.level.value], self.level.value

    def _choose_experiment(self, _=None):
        if self.view:
            arm, replicate, level = self.view.start()
            self.arm.options = [(panels.full_label(a), a) for a in dict.fromkeys(a for a, _ in self.view.units)]
            self.arm.value = arm
            self.replicate.options = sorted({r for _, r in self.view.units})
            self.replicate.value = replicate
            self._offer_levels(level)
        self._soon()

    def _choose_level(self, _=None):
        self._offer_levels(self.level.value)

    def _offer_levels(self, wanted):
        """The levels of the chosen arm, the one nearest to `wanted` being chosen."""
        if (key := (self.arm.value, self.replicate.value)) not in self.view.levels:
            return  # between two choices
        there, density = self.view.levels[key], self.view.units[key].config.density
        nearest = min(there, key=lambda k: abs(k - wanted))
        self.player.max = len(there) - 1
        with self.level.hold_sync():  # one message: the slider does not jump
            self.level.options = [(f"{100 * density(k):.3g}% (level {k})", k) for k in there]
            self.level.value = nearest
        self._soon()

    # --------------------------------------------------------------------------------------------------- what is drawn

    def _soon(self, _=None):
        """Draw once pending changes have arrived; at once where no loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self.draw()
        if self.timer:
            self.timer.cancel()
        self.timer = loop.call_later(PAUSE, self.draw)

    def draw(self):
        """Draw what is chosen: the pictures above, and that of the open tab."""
        with refused_in(self.state):
            if not self.view:
                self.state.value = NOTHING
            elif self.level.value in self.view.levels.get((self.arm.value, self.replicate.value), ()):
                self._draw_chosen()
        if self.tabs.selected_index == 2:
            self.compared.value = panels.Compared(self._lines()).png()
        if self.view:
            self.place.unobserve(self._restore, "value")
            self.place.value = place.line(self._chosen_by_name())
            self.place.observe(self._restore, "value")

    def _draw_chosen(self):
        (unit, level), at = self.chosen, (self.arm.value, self.replicate.value, self.level.value)
        self.tasks = experiments.rivals(self.view.study, unit, level)
        kept = {role: w for role, task in self.tasks.items() if (w := self.weights(*task))}
        digit, label, logits = self._digit(unit, kept)
        self.seen.value, self.stands.value = self.view.seen(*at, digit), self.view.stands(*at)
        self.train.disabled = self.job is not None or len(kept) == len(self.tasks)
        self.state.value = f"final weights: {len(kept)} of {len(self.tasks)} networks here"
        if self.offered != self.chosen:
            self.link.value = ""
        if self.tabs.selected_index == 0:
            pair, colour = (kept.get("dense"), self.weights(unit, level)), plots.style(unit.arm)[1]
            self.moved.value = self.moved_panel.png(*pair, colour) if all(pair) else self.nothing
        elif self.tabs.selected_index == 1:
            p = {role: statistics.probabilities(one) for role, one in logits.items()}
            self.answers.value = self.answers_panel.png(digit, label, p)
        elif self.tabs.selected_index == 4:
            self.by_hand.choose(unit, level, self.weights(unit, level), digit)

    def _digit(self, unit, kept):
        """The drawn or chosen digit: (28, 28) pixels, label or None, and the logits that networks give it, by role.

        No logits where neither the open tab nor the order of the digits asks for them: of what is committed they have
        to be computed.
        """
        answered = kept if self.tabs.selected_index == 1 else {}
        if (drawn := self.canvas.digit) is not None:
            return drawn, None, {role: drawing.logits(self.tasks[role][0], w, drawn) for role, w in answered.items()}
        digits, labels = download.digits(unit.subset, unit.config.test_images, unit.config.dataset)
        by_answers = statistics.ORDERS[self.order.value] is not None
        logits = {role: w.logits for role, w in (kept if by_answers else answered).items()}
        at = statistics.digits_in_order(self.order.value, logits, labels)
        at = at[min(self.digit.value, len(at) - 1)]
        return digits[at], int(labels[at]), {role: one[at] for role, one in logits.items()}

    def _lines(self):
        """What the comparison shows: the chosen arm, and the tickets found here."""
        lines = {}
        if self.view and self.experiment.value not in self.found:
            label = f"{self.experiment.value}, {panels.full_label(self.arm.value)}"
            lines[label] = self.view.line(self.arm.value), self.arm.value
        lines |= {name: (self.views[name].line("ticket"), "") for name in self.found}
        return {textwrap.fill(label, 45): line for label, line in lines.items()}

    # ------------------------------------------------------------------------------------------------- what is trained

    def _start(self, function, arguments, after):
        """Run in a process of its own; `after` is called after every line."""
        if self.job:
            return  # a second click, faster than the button could be disabled
        with contextlib.suppress(RuntimeError):
            self.loop = asyncio.get_running_loop()
        try:
            self.job = sweep.Background(
                function, arguments,
                log=lambda line: self._from_thread(self._log, line, after),
                done=lambda outcome: self._from_thread(self._ended, outcome, after),
            )  # fmt: skip
        except (OSError, RuntimeError) as error:
            self.status.value = refusal(f"no process could be started: {error}")
            return
        self.find.disabled = self.train.disabled = True
        self.stop.disabled, self.bar.value, self.status.value = False, 0, "starting"

    def _from_thread(self, function, *arguments):
        if self.loop:
            self.loop.call_soon_threadsafe(function, *arguments)
        else:
            function(*arguments)

    def _log(self, line, after):
        self.status.value = html.escape(line)
        if count := re.match(r"\[ *(\d+)/(\d+)\]", line):
            self.bar.max, self.bar.value = int(count[2]), int(count[1])
            after()

    def _ended(self, outcome, after):
        self.job, self.find.disabled, self.stop.disabled = None, False, True
        if outcome == "stopped":
            self.status.value = "stopped; finished levels are kept, and the same settings resume from them"
        elif outcome:
            self.status.value = refusal(outcome)
        after()
        self._estimate()
        self._soon()

    def _train(self, _):
        if self.tasks:
            self._start(sweep.weights, (list(self.tasks.values()),), self.weights.cache_clear)

    def _asked(self):
        """What the form asks for: its study, and the plan of its ticket."""
        values = {name: widget.value for name, widget in self.form.items()}
        preset, model = values.pop("preset"), values.pop("model")
        values["prune_rate"] = round(values["prune_rate"], 2)  # a slider adds its steps up
        study = experiments.study("pre_midsem", preset, replicates=1, controls=False, model=model, overrides=values)
        return study, sweep.Plan([u for u in study.units if u.arm == "ticket"])

    def _estimate(self, _=None):
        """Show the cost of what the form asks for; fast, since a slider's value may come after a click."""
        if self.tabs.selected_index == 2:
            with refused_in(self.cost):
                study, plan = self._asked()
                c = study.config
                each = f"{c.max_steps} steps" if c.max_steps else f"{c.epochs} epoch{'s' * (c.epochs > 1)}"
                text = f"{len(plan.missing)} levels to train, {each} each"
                self.cost.value = f"{text}; the run prints an estimate at its start and can be stopped"

    def _find(self, _):
        """Train what the form asks for once all of it is here: a slider's last value may come after a click."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._find_now()
        self.find.disabled = True
        loop.call_later(ARRIVED, self._find_now)

    def _find_now(self):
        self.find.disabled = False
        with refused_in(self.status):
            study, plan = self._asked()
            self._start(sweep.run, (plan.units,), lambda: self._join(study))

    def _join(self, study):
        """Offer a user's own study beside the others, once some of it is finished."""
        if not _begun(study):
            return
        name, before = f"own {_name(study)}", self.experiment.value
        self.studies[name], self.views[name], self.found[name] = study, panels.Pictures(study), study
        if name not in self.experiment.options:
            self.experiment.unobserve(self._choose_experiment, "value")
            self.experiment.options = list(self.studies)
            self.experiment.value = before or name
            self.experiment.observe(self._choose_experiment, "value")
        if before is None:
            self._choose_experiment()
        elif before == name:
            self._offer_levels(self.level.value)
        self._soon()

    # ------------------------------------------------------------------------------------------------ tickets as files

    def _offer(self, _):
        if not self.view:
            self.link.value = NOTHING
            return
        unit, level = self.offered = self.chosen
        with refused_in(self.link):
            form = self.file_form.value
            content = tickets.to_bytes(sweep.ticket(unit, level), form)
            name = f"{unit.key}-level-{level:02d}{f'-{form}' * (form != 'ticket')}.safetensors"
            encoded = base64.b64encode(content).decode()
            link = f'<a download="{name}" href="data:application/octet-stream;base64,{encoded}">{name}</a>'
            self.link.value = f"{link} ({len(content) / 1e6:.1f} MB)"

    def _load(self, _):
        files = self.upload.value  # a dict in ipywidgets 7, a tuple in 8
        for file in files.values() if isinstance(files, dict) else files:
            self.loaded.value = self.blank  # a file that is refused leaves no other's picture
            with refused_in(self.facts):
                ticket = tickets.from_bytes(bytes(file["content"]))
                shown = {name: v for name, v in ticket.facts.items() if name not in ("identity", "sha256")}
                self.facts.value = html.escape(", ".join(f"{name} {value}" for name, value in shown.items()))
                shapes = {name: m.shape for name, m in ticket.mask.items()}
                page, (digits, _) = panels.MaskView(shapes, panels.ROLES["ticket"][1]), download.digits("full")
                self.loaded.value = page.png(ticket.mask, digits[self.digit.value])


def _glossary():
    lines = "<br>".join(f"<b>{word}</b>: {meaning}" for word, meaning in panels.GLOSSARY.items())
    css = f".{DIM} {{ opacity: 0.35 }} .{FRAME} .widget-html-content {{ padding-left: 3px }}"  # else letters are cut
    return widgets.HTML(f"<style>{css}</style>{lines}")


def _row(*parts):
    return widgets.HBox(parts, layout={"flex_flow": "row wrap", "align_items": "center", "min_height": "40px"})
