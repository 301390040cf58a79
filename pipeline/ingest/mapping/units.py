"""Units and public conversion factors: a closed table, so that every conversion can be read and checked.

A library of units knows hundreds of units and would guess at a misspelt one; here an unknown unit is an unknown unit.
Molar masses (g/mol) are those of the analyte as it is reported: urea nitrogen counts the two nitrogen atoms of urea
only. Temperatures are the one affine conversion. How units are spelt is `unit_text`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.core.errors import ConfigError
from pipeline.ingest.mapping.unit_text import meanings, plain

Line = tuple[float, float]

_PREFIX: Final[Mapping[str, float]] = {"k": 1e3, "": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12}
_VOLUME: Final[Mapping[str, float]] = {"L": 1.0, "dL": 1e-1, "mL": 1e-3, "uL": 1e-6}  # litres
_IN_VOLUME: Final[Mapping[str, tuple[str, float]]] = {  # what is measured in a volume -> dimension, size
    "g": ("mass concentration", 1.0),
    "mol": ("amount concentration", 1.0),
    "Eq": ("charge concentration", 1.0),
    "IU": ("activity", 1.0),
    "kat": ("activity", 6e7),  # 1 U = 1 umol/min
}
_SCALES: Final[Mapping[str, tuple[str, float]]] = {  # unit -> (dimension, size in the dimension's own unit)
    **{
        f"{prefix}{what}/{volume}": (dimension, size * factor / litres)
        for what, (dimension, size) in _IN_VOLUME.items()
        for prefix, factor in _PREFIX.items()
        for volume, litres in _VOLUME.items()
    },
    "mmHg": ("pressure", 1.0),
    "kPa": ("pressure", 7.500617),
    "hPa": ("pressure", 0.7500617),
    "Pa": ("pressure", 7.500617e-3),
    "cmH2O": ("pressure", 0.735559),
    "fraction": ("share", 1.0),
    "%": ("share", 1e-2),
    "kg": ("mass", 1.0),
    "g": ("mass", 1e-3),
    "mg": ("mass", 1e-6),
    "lb": ("mass", 0.45359237),
    "oz": ("mass", 0.028349523125),
    "cm": ("length", 1.0),
    "m": ("length", 100.0),
    "mm": ("length", 0.1),
    "in": ("length", 2.54),
    "ft": ("length", 30.48),
    "mL/h": ("flow", 1.0),
    "L/h": ("flow", 1000.0),
    "mL/min": ("flow", 60.0),
    "L/min": ("flow", 60000.0),
    "mL/24h": ("flow", 1.0 / 24.0),
    "L/24h": ("flow", 1000.0 / 24.0),
    "10^9/L": ("count concentration", 1.0),
    "10^12/L": ("count concentration", 1e3),
    "/uL": ("count concentration", 1e-3),
    "/mL": ("count concentration", 1e-6),
    "/L": ("count concentration", 1e-9),
    "/min": ("rate", 1.0),
    "/s": ("rate", 60.0),
    "years": ("age", 1.0),
    "months": ("age", 1.0 / 12.0),
    "weeks": ("age", 7.0 / 365.25),
    "days": ("age", 1.0 / 365.25),
    "points": ("points", 1.0),
    "pH": ("pH", 1.0),
}
MOLAR_MASS: Final[Mapping[str, float]] = {  # g/mol
    "Albumin": 66437.0,
    "BUN": 28.014,
    "Bilirubin": 584.67,
    "Cholesterol": 386.65,
    "Creatinine": 113.12,
    "Glucose": 180.156,
    "Lactate": 90.08,
    "Mg": 24.305,
    "Ca": 40.078,
    "Phosphate": 30.974,
    "Na": 22.99,
    "K": 39.098,
    "Cl": 35.453,
}
_VALENCE: Final[Mapping[str, float]] = {"Na": 1.0, "K": 1.0, "Cl": 1.0, "HCO3": 1.0, "Lactate": 1.0, "Mg": 2.0,
                                        "Ca": 2.0}  # fmt: skip
_CELSIUS: Final[Mapping[str, Line]] = {"degC": (1.0, 0.0), "degF": (5.0 / 9.0, -160.0 / 9.0), "K": (1.0, -273.15)}

UNITS: Final = (*_SCALES, *_CELSIUS)
"""Every unit that the table knows."""


def conversion(variable: str, source: str, target: str) -> Line | None:
    """(factor, offset) with target = factor * source + offset; None where the table knows no way.

    `variable` names the analyte where mass, charge and amount of substance turn into each other.
    """
    if source == target:
        return 1.0, 0.0
    if source in _CELSIUS and target in _CELSIUS:
        (factor, offset), (target_factor, target_offset) = _CELSIUS[source], _CELSIUS[target]
        return factor / target_factor, (offset - target_offset) / target_factor
    if source not in _SCALES or target not in _SCALES:
        return None
    (kind, size), (target_kind, target_size) = _SCALES[source], _SCALES[target]
    if kind == target_kind:
        return size / target_size, 0.0
    moles, target_moles = _moles(variable, kind), _moles(variable, target_kind)
    if moles is None or target_moles is None:
        return None
    return size * moles / (target_size * target_moles), 0.0


def _moles(variable: str, kind: str) -> float | None:
    """How many mol/L of the analyte one of the dimension's own unit is."""
    if kind == "amount concentration":
        return 1.0
    if kind == "mass concentration" and variable in MOLAR_MASS:
        return 1.0 / MOLAR_MASS[variable]
    if kind == "charge concentration" and variable in _VALENCE:
        return 1.0 / _VALENCE[variable]
    return None


def read_unit(variable: str, text: str, target: str) -> tuple[str, Line | None] | None:
    """What the unit `text` of a row means for a variable in `target`, and the way there (None = none is known).

    None where the text is not known at all. Of a text with several meanings ("G/l": giga or gram per litre) the first
    is meant that has a way.
    """
    known = meanings(target)
    wanted = known[0] if known else target
    if plain(text) == plain(target):
        return wanted, (1.0, 0.0)
    found = [(unit, conversion(variable, unit, wanted)) for unit in meanings(text)]
    return next((item for item in found if item[1] is not None), found[0] if found else None)


def require_conversion(variable: str, source: str, target: str, where: str) -> Line:
    """As `conversion`, of units as a mapping spells them.

    Raises:
        ConfigError: the table knows no way from `source` to `target`.
    """
    found = read_unit(variable, source, target)
    if found is None or found[1] is None:
        raise ConfigError(f"{where}: no public conversion from {source} to {target} for {variable}")
    return found[1]
