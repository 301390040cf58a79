"""How units are written: one normal form for every text, and a closed list of what each form means.

UCUM's clinical subset, what laboratories write in German, French and English, and the concepts of OMOP's vocabulary.
UCUM knows a variant without case; where case alone tells two units apart, both meanings are listed and the variable's
dimension decides ("G/l" of leukocytes is giga per litre, of albumin gram per litre). What is in no list has no meaning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Final

NO_CONCEPT: Final = "0"
"""OMOP's "no matching concept": a row that carries it says nothing of its unit."""

_RAISED: Final = str.maketrans({**dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True)), "⁻": "-"})
_REWRITTEN: Final = (  # of the text without case and blanks, in this order
    (r"\{[^{}]*\}", ""),  # UCUM: an annotation in curly braces says nothing of the unit
    (r"^\((.+)\)$|^\[([^\[\]]+)\]$", r"\1\2"),
    (r"[.,;:*]+$", ""),
    (r"^x(?=10)|^[.*](?=10)", ""),
    (r"^mc(?=g|mol|l)|^micro(?=g|mol)", "u"),
    (r"/mc(?=l$)|/micro(?=l$)", "/u"),
    (r"[.*]?(?<![a-z0-9])?(l|dl|ml|ul|min|h)\^?-1$", r"/\1"),
    (r"/100\.?ml$|(?<=g)%$", "/dl"),
    (r"/(cumm|cmm|mm\^?3|cu\.?mm)$", "/ul"),
    (r"/(liter|litre|ltr)$", "/l"),
    (r"/(deciliter)$", "/dl"),
    (r"/(hr|std|stunde|hour)$", "/h"),
    (r"/(minute|minuten|mn)$", "/min"),
    (r"^(ie|ui|[iu]\.[ieu]\.?|e|u|units?|einheiten|\[iu\]|\[u\])/", "iu/"),
    (r"^([kmun])(ie|ui|e|u|\[iu\])/", r"\1iu/"),
    (r"^mval/", "meq/"),
    (r"^10(?:\*\*|\*|\^|e)?(?:\+?0?)(3|6|9|12)(?=/)", r"10^\1"),
    (r"^(tsd\.?|thou|thousand|1000|k|x1000|x10\^3|10e3)/(?=ul)", "10^3/"),
    (r"^(mio\.?|mill\.?|million|m|10e6)/(?=ul)", "10^6/"),
    (r"^(1|n|cells|zellen|cellules|#|wbc|rbc)/(?=ul|nl|pl|ml|l|min|s$)", "/"),
)
_COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "10^9/L": ("10^9/l", "10^3/ul", "10^6/ml", "/nl", "giga/l", "gpt/l"),
    "10^12/L": ("10^12/l", "10^6/ul", "10^9/ml", "/pl", "t/l", "tera/l", "téra/l", "tpt/l"),
    "/uL": ("/ul", "10^6/l", "10^3/ml"),
    "/mL": ("/ml", "10^3/l"),
    "/L": ("/l",),
}
_OTHERS: Final[Mapping[str, tuple[str, ...]]] = {
    "mmHg": ("mmhg", "mm[hg]", "mm(hg)", "torr", "mm/hg", "mmhgcolumn"),
    "kPa": ("kpa",),
    "hPa": ("hpa", "mbar"),
    "Pa": ("pa",),
    "cmH2O": ("cmh2o", "cm[h2o]", "cmh20", "cmws"),
    "%": ("%", "percent", "pct", "prozent", "pourcent", "vol%", "vol.%", "%vol"),
    "fraction": ("fraction", "l/l", "ratio", "anteil", "1"),
    "kg": ("kg", "kgs", "kilogram", "kilograms", "kilogramm"),
    "g": ("g", "gram", "grams", "gramm"),
    "mg": ("mg",),
    "lb": ("lb", "lbs", "pound", "pounds", "[lb_av", "lb_av"),
    "oz": ("oz", "ounce", "ounces", "oz_av"),
    "cm": ("cm", "centimeter", "centimeters"),
    "m": ("m", "meter", "meters", "metre"),
    "mm": ("mm",),
    "in": ("in", "inch", "inches", "in_i", "in_us"),
    "ft": ("ft", "feet", "foot", "ft_i"),
    "degC": ("degc", "°c", "deg.c", "c", "cel", "celsius", "gradc", "gradcelsius", "degreescelsius", "°celsius"),
    "degF": ("degf", "°f", "deg.f", "f", "fahrenheit", "degreesfahrenheit"),
    "K": ("k", "kelvin"),
    "mL/h": ("ml/h", "ml", "milliliter", "milliliters", "cc", "cc/h", "ccs"),  # charted hourly, a volume is a flow
    "L/h": ("l/h", "l"),
    "mL/min": ("ml/min",),
    "L/min": ("l/min", "lpm"),
    "mL/24h": ("ml/24h", "ml/d", "ml/(24.h)", "ml/day", "ml/24std"),
    "L/24h": ("l/24h", "l/d", "l/(24.h)", "l/day"),
    "/min": ("/min", "bpm", "min-1", "min^-1", "beats/min", "breaths/min", "insp/min", "insp.min", "counts/min", "cpm",
             "brpm", "rpm", "schläge/min", "schlaege/min", "s/min", "az/min", "atemzüge/min", "batt/min",
             "battements/min", "cycles/min", "c/min", "promin", "perminute", "resp/min", "breathsperminute",
             "beatsperminute"),
    "/s": ("/s", "hz"),
    "years": ("years", "year", "yr", "yrs", "y", "a", "jahre", "jahr", "ans", "an"),
    "months": ("months", "month", "mo", "monate", "monat", "mois"),
    "weeks": ("weeks", "week", "wk", "wochen"),
    "days": ("days", "day", "d", "tage", "jours"),
    "points": ("points", "point", "score", "punkte", "scale", "1", "pts"),
    "pH": ("ph", "units", "unit", "phunits", "phunit", "1", "einheiten"),
}  # fmt: skip
_OMOP: Final[Mapping[str, str]] = {  # unit_concept_id of the OMOP vocabulary
    "8876": "mmHg", "44777602": "kPa", "44777590": "cmH2O", "720858": "hPa", "9623": "Pa", "4136788": "mmHg",
    "8636": "g/L", "8713": "g/dL", "9514": "g/mL", "8840": "mg/dL", "8751": "mg/L", "8861": "mg/mL", "8748": "ug/L",
    "8837": "ug/dL", "8859": "ug/mL", "8842": "ng/mL", "8725": "ng/L", "8817": "ng/dL", "8845": "pg/mL",
    "8820": "pg/dL", "9625": "pg/L", "9586": "mol/L", "9588": "mol/mL", "8753": "mmol/L", "9575": "mmol/dL",
    "8749": "umol/L", "8839": "umol/dL", "9673": "umol/mL", "8736": "nmol/L", "9608": "nmol/dL", "8843": "nmol/mL",
    "8729": "pmol/L", "9631": "pmol/dL", "9632": "pmol/mL", "9490": "Eq/L", "9491": "Eq/mL", "9557": "mEq/L",
    "9553": "mEq/dL", "9559": "mEq/mL", "8875": "uEq/L", "8645": "IU/L", "8923": "IU/L", "8985": "IU/mL",
    "9332": "IU/dL", "44777601": "kat/L", "8554": "%", "8728": "%", "8632": "%", "9234": "%", "8523": "fraction",
    "44777604": "fraction", "9529": "kg", "8504": "g", "8576": "mg", "8739": "lb", "9373": "oz", "8582": "cm",
    "9546": "m", "8588": "mm", "9327": "in", "9330": "in", "9306": "ft", "586323": "degC", "9289": "degF",
    "9523": "K", "8541": "/min", "8483": "/min", "44777659": "/s", "9521": "/s", "44777613": "mL/h", "8587": "mL/h",
    "44777603": "L/h", "8519": "L/h", "8795": "mL/min", "8698": "L/min", "8930": "mL/24h", "8857": "L/24h",
    "8848": "10^9/L", "9444": "10^9/L", "8816": "10^9/L", "8815": "10^12/L", "8734": "10^12/L", "9445": "10^12/L",
    "8647": "/uL", "8784": "/uL", "9428": "/uL", "9442": "/uL", "9436": "/uL", "9257": "/mL", "9435": "/mL",
    "9254": "/L", "9448": "years", "9580": "months", "8511": "weeks", "8512": "days", "8482": "pH",
}  # fmt: skip


def plain(text: str) -> str:
    """The text without case, blanks, annotations and trailing marks, in one form of each sign."""
    text = unicodedata.normalize("NFKC", text.translate(_RAISED)).replace("\u03bc", "u").replace("\u00d7", "x")
    text = re.sub(r"[\s\ufeff\u200b-\u200f\u2060]+", "", text.replace("\u00b7", "*")).casefold()
    for pattern, by in _REWRITTEN:
        text = re.sub(pattern, by, text)
    return text


@cache
def meanings(text: str) -> tuple[str, ...]:
    """The units that a source's text may mean, the likeliest first; () where it is not known."""
    concept = _OMOP.get(text.strip().removesuffix(".0"))
    return (concept,) if concept else _forms().get(plain(text), ())


def spell(text: str) -> str | None:
    """The unit that a source's text means by itself, or None where it is not known."""
    return next(iter(meanings(text)), None)


@cache
def _forms() -> Mapping[str, tuple[str, ...]]:
    """Normal form -> meanings."""
    found: dict[str, tuple[str, ...]] = {}
    for what in ("g", "mol", "Eq", "IU", "kat"):
        for prefix in ("k", "", "m", "u", "n", "p"):
            for volume in ("L", "dL", "mL", "uL"):
                unit = f"{prefix}{what}/{volume}"
                found[plain(unit)] = (unit,)
    for unit, texts in {**_COUNTS, **_OTHERS}.items():
        for text in texts:
            found[text] = (*found.get(text, ()), unit)
    found["g/l"] = ("g/L", "10^9/L")  # the sign of giga is lost with case
    return found
