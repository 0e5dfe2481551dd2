"""What in theta0 makes a ticket train well: its signs or its sizes? (Zhou et al. 2019, sections 3 to 5)

The masks are those of the MLP's tickets. Under each, all combinations of two signs (theta0's, fresh ones) and three
sizes (theta0's, fresh ones, one for the whole layer) are trained as the ticket is, theta0's signs also with its kept
sizes permuted, and theta0 also with the pruned weights frozen at their initial values instead of set to 0.
"""

from collections.abc import Iterator

from ..config import Config
from ..results.later import figures, statistics, verdicts
from ..runs import presets
from ..unit import Altered, Fresh, FrozenOutside, MaskOf, RandomLike, Theta0, Unit, draw_seed
from . import common
from .common import AT
from .mlp import MLP
from .record import Answer, Claim, Experiment

LEVELS = (5, 7, 9, 11)  # 17, 8, 4 and 2% density
VARIED = ("permuted_sizes", "fresh_sizes", "fresh", "frozen")  # what is compared with theta0 alone
STARTS = {  # arm -> what its networks start from
    "theta0": Theta0(),
    "fresh_sizes": Altered("fresh_sizes", __name__),
    "one_size": Altered("one_size", __name__),
    "fresh_signs": Altered("fresh_signs", __name__),
    "fresh_signs_one_size": Altered("fresh_signs_one_size", __name__),
    "fresh": Fresh(),
}


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The chain of the MLP, as that study trains it; under its masks every start, and theta0 under random masks."""
    chain = Unit(presets.as_in("mlp", config), "ticket", replicate)
    yield chain
    levels = common.levels_of(chain, LEVELS)
    if levels:
        for arm, start in STARTS.items():
            yield Unit(config, arm, replicate, mask=MaskOf(chain), start=start, levels=levels)
        permuted = Altered("permuted_sizes", __name__)
        yield Unit(config, "permuted_sizes", replicate, mask=MaskOf(chain), start=permuted, levels=levels)
        yield Unit(config, "frozen", replicate, mask=FrozenOutside(chain), levels=levels)
        yield Unit(config, "random_mask", replicate, mask=RandomLike(chain), levels=levels)


def fresh_sizes(unit, level, values):
    """theta0's signs, the sizes of fresh values: those of the arm ``fresh``."""
    return _weights(values, lambda name, value: _fresh(unit, level)[name].abs() * value.sign())


def fresh_signs(unit, level, values):
    """theta0's sizes, the signs of fresh values: those of the arm ``fresh``."""
    return _weights(values, lambda name, value: value.abs() * _fresh(unit, level)[name].sign())


def one_size(unit, level, values):
    """theta0's signs, all of a layer's weights as large as their standard deviation in theta0."""
    return _weights(values, lambda name, value: value.sign() * value.std())


def permuted_sizes(unit, level, values):
    """theta0's signs, and the sizes that the mask keeps of it in another order, within each layer."""
    import numpy as np
    import torch

    from ..runs import sweep

    found = dict(values)
    for layer, mask in sweep.mask_at(unit, level).items():
        value, kept = values[f"{layer}.weight"].clone(), torch.from_numpy(mask)
        random = np.random.default_rng(draw_seed(unit.config.seed, "permuted", unit.replicate, level, layer))
        order = torch.from_numpy(random.permutation(int(kept.sum())))
        value[kept] = value[kept].abs()[order] * value[kept].sign()
        found[f"{layer}.weight"] = value
    return found


def fresh_signs_one_size(unit, level, values):
    """The signs of fresh values, sizes as :func:`one_size` has them."""
    return _weights(values, lambda name, value: _fresh(unit, level)[name].sign() * value.std())


def _weights(values, of):
    """Other weights, and the biases as they are."""
    return {name: of(name, value) if name.endswith(".weight") else value for name, value in values.items()}


def _fresh(unit, level):
    from .. import lottery

    return lottery.drawn(unit, "reinit", level)


STYLES = {
    "ticket": common.STYLES["ticket"],
    "theta0": ("theta0", "blue", "o"),
    "fresh_sizes": ("theta0's signs, fresh sizes", "sky", "D"),
    "one_size": ("theta0's signs, one size", "purple", "s"),
    "fresh_signs": ("fresh signs, theta0's sizes", "red", "D"),
    "fresh_signs_one_size": ("fresh signs, one size", "yellow", "s"),
    "fresh": ("fresh values", "orange", "o"),
    "permuted_sizes": ("theta0's signs, kept sizes permuted", "black", "s"),
    "frozen": ("theta0, pruned weights frozen", "green", "v"),
    "random_mask": common.STYLES["random_mask"],
}


def fig14a(study, frame):
    """Test accuracy against density by what the networks start from, and minus that of fresh values."""
    sheet = figures.Sheet(study, "Figure 14a. The ticket's mask with theta0's signs, its sizes, both or neither")
    present = [arm for arm in STARTS if arm in set(frame["arm"])]
    shown = frame[frame["level"].isin(statistics.levels(frame, "theta0"))]
    sheet.against_density(sheet.axes[0], shown, present, title="accuracy at the last step")
    end = statistics.at_end(frame)
    near = [end[arm, AT].mean() for arm in present if (arm, AT) in end]
    if near:
        sheet.axes[0].set_ylim(min(near) - 3, max(near) + 1)  # at the next level outputs are disconnected in all arms
    pairs = [(arm, STYLES[arm][0], "fresh") for arm in STARTS if arm != "fresh"]
    sheet.differences(sheet.axes[1], frame, pairs, "minus fresh values under the same mask", series=end)
    return _done(sheet, frame, where="lower left")


def fig14b(study, frame):
    """The same networks before any training, and the steps that they then take to 97% validation accuracy."""
    sheet = figures.Sheet(study, "Figure 14b. Before the first step, and how fast the networks learn")
    untrained, fast = sheet.axes
    first = _untrained(frame)
    present = [arm for arm in (*STARTS, "random_mask") if arm in first.index]
    sheet.against_density(untrained, frame, present, title="accuracy of the untrained network", series=first)
    untrained.set_ylim(0, max(80, 1.1 * untrained.dataLim.y1))  # space for the legend
    sheet.steps_to(fast, frame, present, 97)
    return _done(sheet, frame, legend_on=0, where="upper left")


def fig14c(study, frame):
    """theta0 with its kept sizes permuted, and with the pruned weights frozen, beside fresh sizes and fresh values."""
    sheet = figures.Sheet(study, "Figure 14c. Kept sizes permuted, and pruned weights frozen instead of set to zero")
    present = [arm for arm in ("theta0", *VARIED) if arm in set(frame["arm"])]
    shown = frame[frame["level"].isin(statistics.levels(frame, "theta0"))]
    sheet.against_density(sheet.axes[0], shown, present, title="accuracy at the last step")
    end = statistics.at_end(frame)
    near = [end[arm, AT].mean() for arm in present if (arm, AT) in end]
    if near:
        sheet.axes[0].set_ylim(min(near) - 3, max(near) + 1)
    pairs = [(arm, STYLES[arm][0], "theta0") for arm in VARIED]
    bound = {STYLES["frozen"][0]: 0}
    sheet.differences(sheet.axes[1], frame, pairs, "minus theta0 with pruned weights at 0", bound, end)
    gaps = [statistics.paired(end, arm, AT, "theta0") for arm in VARIED]
    near = [gap.mean() for gap in gaps if len(gap)]
    if near:
        sheet.axes[1].set_ylim(min(near) - 1, max(near) + 1)
    return _done(sheet, frame, where="lower left")


def _done(sheet, frame, **options):
    """The figure, with axes as long as the densities at which starts are compared."""
    densities = [statistics.density_at(frame, "theta0", level) for level in statistics.levels(frame, "theta0")]
    for axis in sheet.axes if densities else ():
        axis.set_xlim(1.2 * max(densities), min(densities) / 1.2)
    return sheet.done(**options)


def _untrained(frame):
    """Test accuracy at step 0: Series over (arm, level, replicate), of this study's own networks."""
    rows = frame[(frame["metric"] == "accuracy") & (frame["split"] == "test") & (frame["step"] == 0)]
    return statistics.of_networks(rows[rows["arm"].isin([*STARTS, "random_mask"])], "value", "first")


def _frozen(frame, config):
    what = f"pruned weights frozen at theta0 - at 0, level {AT}"
    return [verdicts.difference(frame, what, ("frozen", AT), ("theta0", AT), "accuracy", below=0)]


def _half_of_the_lead(arm, **bounds):
    """A measure: an arm's accuracy minus the midpoint of theta0's and that of fresh values, at level `AT`."""

    def measured(frame, config):
        end = statistics.at_end(frame)
        theta0, fresh = (statistics.paired(end, name, AT) for name in ("theta0", "fresh"))
        values = statistics.paired(end, arm, AT) - (theta0 + fresh) / 2
        what = f"{STYLES[arm][0]} - midpoint of theta0 and fresh values, level {AT}"
        density = statistics.density_at(frame, "theta0", AT)
        networks = (("theta0", AT), ("fresh", AT))
        lead = verdicts.difference(frame, f"theta0 - fresh values, level {AT}", *networks, "accuracy", judged=False)
        return [verdicts.Measure(what, AT, density, values.dropna(), **bounds), lead]

    return measured


def _better_than_chance(frame, config):
    found, density = _untrained(frame), statistics.density_at(frame, "theta0", AT)
    about = {"unit": verdicts.PERCENT, "level": AT, "density": density}
    measured = {arm: statistics.paired(found, arm, AT) for arm in ("theta0", "one_size", "fresh", "random_mask")}
    rest = [verdicts.Measure(f"untrained, {STYLES[arm][0]}, level {AT}", values=values, judged=False, **about)
            for arm, values in measured.items() if arm != "theta0"]  # fmt: skip
    what = f"untrained, theta0 under the ticket's mask, level {AT}"
    return [verdicts.Measure(what, values=measured["theta0"], above=20, published=86, **about), *rest]


# Zhou et al. 2019, abstract: "why setting weights to zero is important, how signs are all you need to make the
# re-initialized network train"; Supermasks, "masks that can be applied to an untrained, randomly initialized network to
# produce a model with performance far better than chance (86% on MNIST". Bounds are ours.
_KEEPS = "keep more than half of theta0's lead over fresh values (4% density)"
CLAIMS = (
    Claim("signs-fresh-sizes", f"theta0's signs with fresh sizes {_KEEPS}", "signs are all you need",
          "fig14a_signs", _half_of_the_lead("fresh_sizes", above=0)),
    Claim("signs-one-size", f"theta0's signs with one size a layer {_KEEPS}", "signs are all you need",
          "fig14a_signs", _half_of_the_lead("one_size", above=0)),
    Claim("signs-sizes-alone", "theta0's sizes with fresh signs keep less than half of that lead (4% density)",
          "signs are all you need", "fig14a_signs", _half_of_the_lead("fresh_signs", below=0)),
    Claim("signs-permuted", "theta0's signs with its kept sizes permuted keep more than half of that lead (4% density)",
          "signs are all you need", "fig14c_permuted_and_frozen", _half_of_the_lead("permuted_sizes", above=0)),
    Claim("signs-frozen", "with pruned weights frozen at theta0 a ticket is worse than with zeros (4% density)",
          "setting weights to zero is important", "fig14c_permuted_and_frozen", _frozen),
    Claim("signs-supermask", "untrained, theta0 under the ticket's mask is above 20%, twice chance (4% density)",
          "86% (same-sign mask, one size)", "fig14b_untrained", _better_than_chance),
)  # fmt: skip

SIGNS = Experiment(
    name="signs",
    title="Signs or sizes: what of theta0 does a ticket need?",
    group="extended",
    notebook="14_signs_or_sizes",
    settings=MLP.settings,
    presets={"report": {"replicates": 5}, "smoke": MLP.presets["smoke"]},
    fixed=("model",),
    first=5,
    arms=arms,
    styles=STYLES,
    figures={"fig14a_signs": fig14a, "fig14b_untrained": fig14b, "fig14c_permuted_and_frozen": fig14c},
    claims=CLAIMS,
    answer=Answer(
        "signs-fresh-sizes",
        (
            "Its signs, for accuracy at the level that is judged: with them and fresh sizes, a ticket keeps more than "
            "half of its lead over fresh values.",
            "at that level the signs carry more than half of the accuracy that a ticket gains from its initial values. "
            "How fast it learns depends on sizes too and, at the higher densities, so does its accuracy before "
            "training (second figure).",
        ),
        (
            "Not its signs alone, for accuracy at the level that is judged: with them and fresh sizes, a ticket keeps "
            "less than half of its lead over fresh values.",
            "at that level more than half of the accuracy that a ticket gains from its initial values is in their "
            "sizes, or in signs and sizes together.",
        ),
        (
            "Whether the initial signs alone keep most of a ticket's lead in accuracy is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
