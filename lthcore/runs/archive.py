"""The committed archive: the finished levels of the report's schedule, in a pack per experiment and replicate."""

from pathlib import Path

from ..disk import files
from . import store
from .formats import pack_bytes, whole_pack


def replicates(experiment):
    """Number of replicates that the archive has of an experiment."""
    return len(list((store.archive() / experiment).glob("r*.zip")))


@store.writing(store.archive, "LTH_ARCHIVE")
def write(units):
    """Pack the finished levels of these units into ``figures/archive/``.

    A level that the archive holds stays as it is, and a pack that holds these levels is not written again.
    Identical levels give identical bytes.

    Returns
    -------
    list of pathlib.Path
        The packs that are there.
    """
    packs = _by_pack(units)
    for path, members in packs.items():
        new = {f"{unit.key}/{level}": found for unit in members for level, found in _new(unit)}
        if new:
            pack = whole_pack(path)
            levels, rows, masks = (dict(pack[part]) for part in ("levels", "rows", "masks"))
            for name, found in new.items():
                levels[name] = {k: v for k, v in found.facts.items() if k != "sha256"}
                rows[name] = found.rows()
                if "mask.safetensors" in found.facts["sha256"]:
                    masks |= {f"{name}/{k}": v for k, v in found.packed_mask().items()}
            files.write(path, pack_bytes(levels, rows, masks))
    return sorted(path for path in packs if path.exists())


def _new(unit):
    """What the store has of a unit and the archive lacks, be it only the mask: pairs of level and Found."""
    for level in unit.levels:
        if (found := store.in_store(unit, level)) is None:  # asked first: it takes no unpacking
            continue
        there = store.in_archive(unit, level)
        if there and (level == unit.levels[-1] or there.has_mask(unit.config.model)):
            continue
        if not there or found.has_mask(unit.config.model):
            yield level, found


@store.writing(store.archive, "LTH_ARCHIVE")
def take(other, units):
    """Take packs that this archive lacks from another archive.

    A pack is taken if it has every level of its units, each with its unit's identity, and nothing else. It is written
    anew, as :func:`write` would write it; a pack that is here already stays as it is.

    Parameters
    ----------
    other : pathlib.Path
        The other archive, with packs ``<experiment>/r<replicate>.zip``.
    units : list of Unit
        All units of their replicates.

    Returns
    -------
    list of pathlib.Path
        The packs taken.

    Raises
    ------
    ValueError
        If a pack there is not what it should be; nothing is taken then.
    """
    new = {}
    for path, members in _by_pack(units).items():
        there = Path(other) / path.relative_to(store.archive())
        if path.exists() or not there.exists():
            continue
        pack = whole_pack(there)
        expected = {f"{unit.key}/{level}": unit.identity for unit in members for level in unit.levels}
        identities = {name: facts["identity"] for name, facts in pack["levels"].items()}
        if identities != expected:
            same = sum(identities.get(name) == identity for name, identity in expected.items())
            raise ValueError(f"{there} has {same} of the {len(expected)} levels, and {len(identities) - same} others")
        new[path] = pack_bytes(**pack)
    for path, content in new.items():
        files.write(path, content)
    return sorted(new)


def _by_pack(units):
    """Units by the path of their pack: dict."""
    packs = {}
    for unit in units:
        packs.setdefault(store.pack_path(unit), []).append(unit)
    return packs


def orphans(units):
    """Archived levels, in the packs of these units, that belong to none of them: dict, path -> list of names."""
    out = {}
    for path, members in _by_pack(units).items():
        known = {f"{unit.key}/{level}" for unit in members for level in unit.levels}
        if lost := sorted(set(whole_pack(path)["levels"]) - known):
            out[path] = lost
    return out


@store.writing(store.archive, "LTH_ARCHIVE")
def remove_orphans(units):
    """Take out of the archive what :func:`orphans` finds; `units` must be all units of their experiments.

    Returns
    -------
    int
        How many levels were removed.
    """
    found = orphans(units)
    for path, lost in found.items():
        pack = whole_pack(path)
        levels, rows = ({k: v for k, v in pack[part].items() if k not in lost} for part in ("levels", "rows"))
        masks = {k: v for k, v in pack["masks"].items() if k.rpartition("/")[0] not in lost}
        files.write(path, pack_bytes(levels, rows, masks))
    return sum(map(len, found.values()))
