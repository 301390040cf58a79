"""Units and public conversion factors: a small closed table, so that every conversion can be read and checked.

A library of units knows hundreds of units and would guess at a misspelt one; here an unknown unit is an unknown unit.
Molar masses (g/mol) are those of the analyte as it is reported: urea nitrogen counts the two nitrogen atoms of urea
only. Temperature is the one affine conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.core.errors import ConfigError

_SCALES: Final[Mapping[str, tuple[str, float]]] = {  # unit -> (dimension, size in the dimension's own unit)
    "mmHg": ("pressure", 1.0),
    "kPa": ("pressure", 7.500617),
    "cmH2O": ("pressure", 0.735559),
    "g/L": ("mass concentration", 1.0),
    "g/dL": ("mass concentration", 10.0),
    "mg/dL": ("mass concentration", 1e-2),
    "mg/L": ("mass concentration", 1e-3),
    "ug/L": ("mass concentration", 1e-6),
    "ng/mL": ("mass concentration", 1e-6),
    "ng/L": ("mass concentration", 1e-9),
    "pg/mL": ("mass concentration", 1e-9),
    "mol/L": ("amount concentration", 1.0),
    "mmol/L": ("amount concentration", 1e-3),
    "umol/L": ("amount concentration", 1e-6),
    "fraction": ("share", 1.0),
    "%": ("share", 1e-2),
    "kg": ("mass", 1.0),
    "g": ("mass", 1e-3),
    "lb": ("mass", 0.45359237),
    "oz": ("mass", 0.028349523125),
    "cm": ("length", 1.0),
    "m": ("length", 100.0),
    "in": ("length", 2.54),
    "mL/h": ("flow", 1.0),
    "L/h": ("flow", 1000.0),
    "10^9/L": ("count concentration", 1.0),
    "/uL": ("count concentration", 1e-3),
    "IU/L": ("activity", 1.0),
    "ukat/L": ("activity", 60.0),
    "/min": ("rate", 1.0),
    "years": ("age", 1.0),
    "months": ("age", 1.0 / 12.0),
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
}
_VALENCE: Final[Mapping[str, float]] = {"Na": 1.0, "K": 1.0, "Cl": 1.0, "HCO3": 1.0, "Mg": 2.0, "Ca": 2.0}
_OMOP_UNITS: Final[Mapping[str, str]] = {  # unit_concept_id of the OMOP vocabulary (UCUM)
    "8876": "mmHg", "8840": "mg/dL", "8753": "mmol/L", "8713": "g/dL", "8636": "g/L", "8749": "umol/L",
    "9557": "mEq/L", "586323": "degC", "9289": "degF", "8554": "%", "8541": "/min", "8483": "/min",
    "8848": "10^9/L", "9444": "10^9/L", "8645": "IU/L", "8923": "IU/L", "9529": "kg", "8582": "cm",
}  # fmt: skip
_SPELLINGS: Final[Mapping[str, str]] = {
    "mm hg": "mmHg", "mmhg": "mmHg", "mm[hg]": "mmHg", "kpa": "kPa", "cmh2o": "cmH2O", "cm h2o": "cmH2O",
    "mg/dl": "mg/dL", "g/dl": "g/dL", "g/l": "g/L", "mg/l": "mg/L", "ug/l": "ug/L", "µg/l": "ug/L", "mcg/l": "ug/L",
    "ng/ml": "ng/mL", "ng/l": "ng/L", "pg/ml": "pg/mL", "mmol/l": "mmol/L", "umol/l": "umol/L", "µmol/l": "umol/L",
    "micromol/l": "umol/L", "mol/l": "mol/L", "meq/l": "mEq/L", "%": "%", "percent": "%", "fraction": "fraction",
    "kg": "kg", "g": "g", "lb": "lb", "lbs": "lb", "oz": "oz", "cm": "cm", "m": "m", "in": "in", "inch": "in",
    "inches": "in", "degc": "degC", "°c": "degC", "deg. c": "degC", "c": "degC", "cel": "degC", "degf": "degF",
    "°f": "degF", "deg. f": "degF", "f": "degF", "[degf]": "degF", "bpm": "/min", "/min": "/min", "insp/min": "/min",
    "breaths/min": "/min", "beats/min": "/min", "k/ul": "10^9/L", "k/mcl": "10^9/L", "10*3/ul": "10^9/L",
    "10*9/l": "10^9/L", "10^9/l": "10^9/L", "x10^9/l": "10^9/L", "x10e3/ul": "10^9/L", "/ul": "/uL", "iu/l": "IU/L",
    "u/l": "IU/L", "units/l": "IU/L", "[iu]/l": "IU/L", "ukat/l": "ukat/L", "ml/h": "mL/h", "ml/hr": "mL/h",
    "ml": "mL/h", "l/h": "L/h", "years": "years", "months": "months", "ph": "pH", "units": "pH", "points": "points",
}  # fmt: skip  # "ml" of urine charted hourly is a volume per hour


def spell(text: str) -> str | None:
    """The unit that a source's spelling means, or None where it is not known."""
    return _OMOP_UNITS.get(text.strip()) or _SPELLINGS.get(text.strip().lower())


def conversion(variable: str, source: str, target: str) -> tuple[float, float] | None:
    """(factor, offset) with target = factor * source + offset; None where the table knows no way.

    `variable` names the analyte where mass turns into amount of substance.
    """
    if source == target:
        return 1.0, 0.0
    if (source, target) == ("degF", "degC"):
        return 5.0 / 9.0, -160.0 / 9.0
    if (source, target) == ("degC", "degF"):
        return 9.0 / 5.0, 32.0
    if "mEq/L" in (source, target) and variable in _VALENCE:
        valence = _VALENCE[variable]
        if source == "mEq/L":
            return _scaled(conversion(variable, "mmol/L", target), 1.0 / valence)
        return _scaled(conversion(variable, source, "mmol/L"), valence)
    if source not in _SCALES or target not in _SCALES:
        return None
    (kind, size), (target_kind, target_size) = _SCALES[source], _SCALES[target]
    if kind == target_kind:
        return size / target_size, 0.0
    if {kind, target_kind} == {"mass concentration", "amount concentration"} and variable in MOLAR_MASS:
        molar = MOLAR_MASS[variable] if kind == "amount concentration" else 1.0 / MOLAR_MASS[variable]
        return size * molar / target_size, 0.0
    return None


def require_conversion(variable: str, source: str, target: str, where: str) -> tuple[float, float]:
    """As `conversion`.

    Raises:
        ConfigError: the table knows no way from `source` to `target`.
    """
    found = conversion(variable, spell(source) or source, target)
    if found is None:
        raise ConfigError(f"{where}: no public conversion from {source} to {target} for {variable}")
    return found


def _scaled(found: tuple[float, float] | None, by: float) -> tuple[float, float] | None:
    return None if found is None else (found[0] * by, found[1] * by)
