"""A study at one scale: asked for, run, and read as one tidy table."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache, partial

import numpy as np
import pandas as pd

from .. import tickets
from ..config import Config, Prune
from ..methods import function
from ..results import rules, statistics
from ..results.loading import COLUMNS, load
from ..runs import archive, gpu, limits, presets, store, sweep
from ..runs import progress as progress_bar  # a function here has that name
from ..runs.presets import configure
from ..unit import Altered, Fresh, MaskOf, RandomLike, Theta0, Unit
from . import REGISTRY, WHEN_ASKED, asked, claims, names, registered, takes
from .collapse import TASK2
from .common import controls as _controls
from .record import Experiment


@dataclass(frozen=True)
class Study:
    """One experiment at one scale: its settings and its units."""

    config: Config

    @property
    def experiment(self):
        """The record of its experiment: :class:`lthcore.studies.record.Experiment`."""
        return REGISTRY[self.config.experiment]

    @cached_property
    def units(self):
        """All units, replicate after replicate: list of Unit.

        From replicate 0 on where nothing is judged: those are trained by other studies as well.
        """
        first, count = self.experiment.first if self.config.preset == "report" else 0, self.config.replicates
        return [unit for r in range(first, first + count) for unit in self.experiment.arms(self.config, r) or ()]

    @property
    def folder(self):
        """Where its figures go: ``figures/`` for an unchanged ``report``, a folder of its own for every other scale.

        A user's own study has them in ``figures/own/<name>/``.
        """
        preset, replicates, changes = self.config.preset, self.config.replicates, presets.changes(self.config)
        folder = store.FIGURES
        if self.experiment.group == "own":
            folder = folder / "own" / store.file_name(self.config.experiment)
        elif preset == "report":
            committed = configure(self.config.experiment, preset).replicates
            if replicates >= max(committed, archive.replicates(self.config.experiment)):
                changes.pop("replicates", None)  # more replicates than the committed scale make it better
            else:
                changes["replicates"] = replicates  # never in the place of better figures
            if not changes:
                return folder
        return folder / store.file_name("_".join([preset, *(f"{k}-{v}" for k, v in changes.items())]))

    def table(self):
        """The settings as a frame, with what the report's tables fix in front: columns setting, value."""
        first = ["experiment", "preset", *self.experiment.settings]
        settings = presets.table(self.config)
        rows = sorted(settings.items(), key=lambda row: first.index(row[0]) if row[0] in first else len(first))
        return pd.DataFrame([(name, str(value)) for name, value in rows], columns=["setting", "value"]).set_index(
            "setting"
        )


def study(experiment, preset="quick", *, replicates=0, controls=True, seed=0, device="auto", model="", overrides=None):
    """The study that a notebook's parameters ask for.

    Parameters
    ----------
    experiment : str or Experiment
        A name in :data:`lthcore.studies.REGISTRY`, ``pre_midsem`` (``mlp`` or ``lenet5`` by `model`), or the record of
        a study of one's own, which is registered unless it is refused.
    preset : {"quick", "report", "smoke"}
    replicates : int
        0 for the preset's own number.
    controls : bool
        False leaves ``random_reinit`` and ``random_mask`` out.
    seed : int
    device : {"auto", "cpu", "cuda"}
    model : str
        ``mlp``, ``lenet5``, one that was added, or one of other sizes, ``mlp_A_B`` or ``lenet5_A_B_C_D``, as
        :class:`lthcore.schedule.Models` has them; empty for the report's own.
    overrides : dict
        Any other setting by its name in :class:`lthcore.config.Config`.

    Returns
    -------
    Study

    Raises
    ------
    ValueError
        One line that names the setting, its value and what is allowed: also where the experiment does not take it,
        since it would change nothing there, or only some of its arms.
    """
    for call in WHEN_ASKED:
        call()
    parameters = {"replicates": replicates, "controls": controls, "seed": seed, "device": device, "model": model}
    with registered(experiment) if isinstance(experiment, Experiment) else nullcontext(experiment) as name:
        found = Study(asked.config(name, preset, **parameters, overrides=overrides))
        _check_arms(found)
        return found


def _check_arms(found):
    """Refuse arms that are none or the same twice, or start by no function; a value that makes no sense as well."""
    name, seen = found.config.experiment, {}
    if not found.units:
        raise ValueError(f"arms of {name!r}: must yield at least one Unit, and yield none")
    modules = {Theta0().name: "", Fresh().name: ""}  # of the starts, by the names that identify them
    for start in {unit.start for unit in found.units if isinstance(unit.start, Altered)}:
        function(f"{start.module}:{start.name}")
        if modules.setdefault(start.name, start.module) != start.module:
            raise ValueError(f"arms of {name!r}: two starts are called {start.name!r}, must have names of their own")
    for unit in found.units:
        for level in unit.levels:
            other = seen.setdefault((unit.arm, unit.replicate, level), unit)
            if other is not unit and (level or other.dense != unit.dense):  # chains may share their dense network
                raise ValueError(f"arms of {name!r}: two units are called {unit.arm!r}, must have names of their own")


def taken(experiment, preset="quick"):
    """Names of the settings that an experiment takes: list of str. See :mod:`lthcore.studies.takes`."""
    return takes.taken(REGISTRY[experiment], preset)


def several(experiments, preset="quick", log=print, **parameters):
    """The studies of those experiments that take the settings; one line names the others.

    Parameters
    ----------
    experiments : list of str
    preset : {"quick", "report", "smoke"}
    log : callable
    **parameters
        Of :func:`study`.

    Returns
    -------
    dict of str to Study
        By experiment.

    Raises
    ------
    ValueError
        If none takes them; with the first one's reason.
    """
    found, refused = asked.each(lambda name: study(name, preset, **parameters), experiments)
    if refused:
        reasons = "; ".join(f"{name} ({str(error).split(', which takes')[0]})" for name, error in refused.items())
        log(f"skipped, since the settings do not apply: {reasons}")
    return found


def run(*studies, workers=0, log=None, scheduler="", shard=(1, 1)):
    """Train what is missing of these studies, or of a shard of them (which, of how many), in one queue.

    See :func:`lthcore.runs.sweep.run` and :func:`lthcore.runs.sweep.shard`; where `log` is not given, it is
    :func:`lthcore.runs.progress.shown`.
    """
    if type(workers) is not int or workers < 0:
        raise ValueError(f"workers = {workers!r}: must be a whole number from 0 (one per core) on")
    if not studies or not all(isinstance(s, Study) for s in studies):
        raise ValueError(f"run{studies!r}: must be given studies, as study() makes them, one or more")
    log = log or progress_bar.shown()
    store.clear_up(s.folder for s in studies)
    try:
        units = sweep.shard([unit for s in studies for unit in s.units], *shard)
        sweep.run(units, studies[0].config.device, workers, log, scheduler)
    finally:  # what is finished of the committed scale goes into the archive, whatever stopped the rest
        progress_bar.close(log)
        for s in studies:
            if s.folder == store.FIGURES:
                archive.write(s.units)


def finished(study):
    """The tidy table of a study's finished levels, ``load(study).frame``: :class:`lthcore.results.loading.Results`."""
    return load(study).frame


# settings that only choose a mask, or what its survivors start from: `compare` is given both
GIVEN = {f.name for f in fields(Prune)} - {"rewind_step", "retrain_epochs", "retrain_lr"}


def _tidy(rows, unit, level, density):
    keys = {"experiment": unit.config.experiment, "model": unit.config.model, "arm": unit.arm}
    return rows.assign(**keys, replicate=unit.replicate, level=level, density=density)


def compare(ticket, preset="quick", replicates=3, log=print, **settings):
    """Train a ticket from any source, the dense network and the controls in this process; nothing is stored.

    The ticket is one; a replicate has another order of the batches, other held-out images, a dense network and a random
    mask from its own theta0, and fresh values for `random_reinit`. An interval over them is of this ticket alone.

    Parameters
    ----------
    ticket : Ticket
        As of :func:`lthcore.tickets.read`; its model decides the recipe.
    preset : {"quick", "report", "smoke"}
    replicates : int
    log : callable
        Called with a line per network.
    **settings
        Of :class:`lthcore.config.Config`: ``dataset="fashion"``, ``lr``, ``epochs``, ..., but for those that choose a
        mask; ``rewind_step`` is the step that the ticket's values belong to, from which it is trained on.

    Returns
    -------
    pandas.DataFrame
        A tidy table as of :func:`finished`: level 0 is the dense network, level 1 the ticket and its controls.

    Raises
    ------
    ValueError
        If it is no ticket, a part of it does not fit its model, or a setting is not allowed or only for masks.
    """
    import torch

    from .. import data, lottery, pruning

    if not isinstance(ticket, tickets.Ticket):
        raise ValueError(f"ticket = {ticket!r}: must be a ticket, as lthcore.tickets.read(path) gives it")
    for name in settings:
        if name == "experiment" or name in GIVEN:
            raise ValueError(f"{name} = {settings[name]!r}: must be left out, since the ticket's mask is given")
    model = ticket.facts["model"]
    usual = "lenet5" if any(m.ndim == 4 for m in ticket.mask.values()) else "mlp"
    experiment = model if model in presets.EXPERIMENTS else usual
    config = configure(experiment, preset, **{**settings, "replicates": replicates, "rounds": 1})
    config = replace(config, model=model)
    device = sweep.resolve(config.device, log)
    if device != "cpu":
        kinds = gpu.kinds([(Unit(config, "ticket", 0), level) for level in (0, 1)])
        _, device = gpu.or_on_the_cpu(lambda where: where == "cpu" or log(gpu.check(kinds, where).line()), device, log)
    mask = _of_shapes("mask", ticket.mask, pruning.dense_mask(model), torch.bool)
    values = _of_shapes("values", ticket.values, lottery.initial(model, 0, "theta0", 0), torch.float32)
    frames = []
    for r in range(replicates):
        chain = Unit(config, "ticket", r)
        for unit in (chain, *_controls(config, chain)):
            for level in unit.levels:
                under = mask if level else pruning.dense_mask(config.model)
                given = values if level and unit is chain else None

                def train(where, unit=unit, level=level, under=under, given=given):
                    load = partial(data.load, device=where)
                    (trained,) = lottery.train_level([unit], level, [under], load, values=given and [given])
                    return lottery.prune_level(unit, trained, load(unit))

                done, device = gpu.or_on_the_cpu(train, device, log)
                rows = pd.DataFrame(done.rows, columns=store.ROWS)
                density = sum(int(m.sum()) for m in under.values()) / sum(m.numel() for m in under.values())
                frames.append(_tidy(rows, unit, level, density))
                accuracy = statistics.at_end(frames[-1]).item()
                name = unit.arm if level else "dense"
                log(f"{name} r{r}: density {100 * density:.3g}%, test accuracy {accuracy:.2f}%")
    return pd.concat(frames, ignore_index=True)[COLUMNS]


def _of_shapes(what, given, there, dtype):
    """A part of a ticket as tensors of this dtype, by name; ValueError where one is missing or has another shape."""
    import torch

    out = {name: torch.as_tensor(v).to(dtype) for name, v in given.items()}
    for name in dict.fromkeys([*there, *out]):
        found, wanted = (tuple(t[name].shape) if name in t else None for t in (out, there))
        if found != wanted:
            raise ValueError(f"ticket.{what}: {name} is {found or 'missing'}, must be {wanted or 'left out'}")
    return out


def rivals(study, unit, level):
    """The networks that one is compared with at a level: dict, role -> (unit, level).

    The roles are ``dense``, and from level 1 on ``ticket``, ``random_reinit`` and ``random_mask``: of the same chain,
    on the same data, by the same recipe. A control that the study leaves out is made up.
    """
    same = unit.config, unit.subset, unit.replicate
    matching = [u for u in study.units if (u.config, u.subset, u.replicate) == same]
    taken, out = MaskOf(unit.chain), {"dense": (next((u for u in matching if u.prunes), unit.chain), 0)}
    roles = {
        "ticket": (taken, Theta0()),
        "random_reinit": (taken, Fresh()),
        "random_mask": (RandomLike(unit.chain), Theta0()),
    }
    for role, (mask, start) in roles.items():
        wanted = Unit(unit.config, role, unit.replicate, unit.subset, mask, start, (level,))
        found = [u for u in matching if (u.chain, u.start, u.mask.name) == (unit.chain, start, mask.name)]
        out[role] = (found or [wanted])[0], level
    return out if level else {"dense": out["dense"]}


def every(extended=False, **parameters):
    """The studies of the report's experiments, and with `extended` those beyond the report.

    The parameters are those of :func:`study`. An experiment that does not take the settings comes at its committed
    scale. If none takes them they are refused.
    """
    extended = parameters.pop("wide", extended)  # its name in notebooks copied from earlier versions
    asked = names("report", "extended", "named") if extended else names("report")
    found = several(asked, log=lambda _: None, **parameters)
    return [found.get(name) or study(name, "report") for name in asked]


@lru_cache(maxsize=4)
@limits.one_thread()
def predicted(study):
    """The masks that pruning theta0 predicts for a study's chains, untrained: tidy rows as of :func:`finished`."""
    from ..probes import collapse  # here, so that a figure needs no torch

    rows = []
    for unit in study.units:
        for level, mask in enumerate(collapse.untrained(unit)) if unit.prunes else ():
            keys = (unit.config.experiment, unit.config.model, unit.arm, unit.replicate, level)
            facts = collapse.diagnose(unit.config.model, mask)
            rows += [(*keys, facts["density"], 0, 0.0, "mask", name, value) for name, value in facts.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def disconnections(atlas, frame):
    """Where outputs are disconnected in each chain of the study `collapse`, and in Task 2's at the same preset.

    Predicted and after training; see :func:`lthcore.results.statistics.disconnections`.
    """
    task2, parts = study("task2", atlas.config.preset), [(frame, predicted(atlas))]
    parts.append([f[f["arm"] == "t1_on_s1"].assign(arm=TASK2) for f in (finished(task2), predicted(task2))])
    seen, counted = (pd.concat([f for f in both if len(f)] or both) for both in zip(*parts, strict=True))
    return statistics.disconnections(seen, counted)


@limits.one_thread()
def smaller(study, arm="filters", images=1000, repeats=7):
    """What removing pruned filters from the network saves on this machine: a row per level of a chain of whole filters.

    The networks are timed in turn, `repeats` times, on one thread; what their weights are does not matter for that.

    Returns
    -------
    DataFrame
        filters (of each convolution), parameters, multiply_adds (of one image), milliseconds (for `images` images:
        median, least and greatest), times_faster (than the whole network in the same turn: the same three).
    """
    import torch

    from .. import data, lottery
    from ..probes import filters

    unit = next(u for u in study.units if u.arm == arm)
    config = unit.config
    theta0 = lottery.drawn(unit, "theta0")
    batch, nets, rows = data.whole(config.dataset)["test"][0][:images], {}, []
    for level in [k for k in unit.levels if not k or store.find_level(*unit.needs(k))]:
        mask = {name: torch.from_numpy(m) for name, m in sweep.mask_at(unit, level).items()}
        nets[level] = filters.without_filters(config, theta0, mask)
    turns = [{level: _seconds(net, batch) for level, net in nets.items()} for _ in range(repeats + 1)][1:]
    for level, net in nets.items():
        sizes = " + ".join(str(len(w)) for w in net.parameters() if w.dim() == 4)
        times = {"milliseconds": [1000 * t[level] for t in turns], "times_faster": [t[0] / t[level] for t in turns]}
        spread = {k: f"{np.median(v):.3g} [{min(v):.3g}, {max(v):.3g}]" for k, v in times.items()}
        rows.append({"level": level, "filters": sizes, **filters.costs(net, batch.shape[1:]), **spread})
    return pd.DataFrame(rows).set_index("level")


def _seconds(net, images):
    started = time.perf_counter()
    net(images)
    return time.perf_counter() - started


def progress(studies):
    """Finished levels of these studies, or of what :func:`load` gave: frame with a row per experiment.

    Of a study that is not read, the levels that the store and the archive list are counted.
    """
    rows = []
    for results in studies:
        asked = results if isinstance(results, Study) else results.study
        tasks = [(unit, level) for unit in asked.units for level in unit.levels]
        missing = [t for t in tasks if not store.is_listed(*t)] if results is asked else results.missing
        config = asked.config
        rows.append((config.experiment, config.preset, config.replicates, len(tasks) - len(missing), len(tasks)))
    columns = ["experiment", "preset", "replicates", "levels finished", "of"]
    return pd.DataFrame(rows, columns=columns).set_index("experiment")


def verdicts(*studies):
    """Every claim about these studies, as far as their levels are finished; see :func:`lthcore.studies.claims.judge`.

    Holm's procedure is over the whole table of the report's claims: those about its other experiments are judged as
    well, of the same seed, though they are not in what is returned. Over the published claims it is applied only if
    the studies of all of them are given.

    Parameters
    ----------
    *studies : Study or Results
        What :func:`load` gave is not read again.
    """
    everything = [load(s) for s in studies]
    configs = [results.study.config for results in everything]
    judged = [claims.judge(results.frame, config) for results, config in zip(everything, configs, strict=True)]
    here = {config.experiment for config in configs}
    if any(table.loc[table["rule"] != "", "p"].notna().any() for table in judged):
        others = [study(name, "report", seed=configs[0].seed) for name in claims.PLACES if name not in here]
        judged += [claims.judge(load(s).frame, s.config) for s in others]
    rows = [row for table in judged for row in table.itertuples(index=False, name=None)]
    published = {*claims.PUBLISHED.values()} <= here
    families = (rules.FAMILY, tuple(claims.PUBLISHED) if published else ())
    table = pd.DataFrame(rows, columns=claims.COLUMNS)  # pandas 2 warns where tables of NaN are joined
    table = rules.holm(table, *families)
    asked = table.iloc[: sum(map(len, judged[: len(studies)]))]
    return asked.sort_values("claim", key=lambda ids: ids.map(claims.ORDER).fillna(len(claims.ORDER)), kind="stable")


def provenance(study):
    """Where a study's numbers come from: ``load(study).provenance``."""
    return load(study).provenance
