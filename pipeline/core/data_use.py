"""What a receiver may do with data, in the terms of the Data Use Ontology (GA4GH, http://purl.obolibrary.org/obo/duo.owl).

A data-use statement is one permission and any number of modifiers. Terms that mean nothing without particulars (which
disease, which country, until when) need the data-use agreement that gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PERMISSIONS: Final = {
    "DUO:0000004": "no restriction",
    "DUO:0000006": "health or medical or biomedical research",
    "DUO:0000007": "disease specific research",
    "DUO:0000011": "population origins or ancestry research only",
    "DUO:0000042": "general research use",
}

MODIFIERS: Final = {
    "DUO:0000012": "research specific restrictions",
    "DUO:0000015": "no general methods research",
    "DUO:0000016": "genetic studies only",
    "DUO:0000018": "not for profit, non commercial use only",
    "DUO:0000019": "publication required",
    "DUO:0000020": "collaboration required",
    "DUO:0000021": "ethics approval required",
    "DUO:0000022": "geographical restriction",
    "DUO:0000024": "publication moratorium",
    "DUO:0000025": "time limit on use",
    "DUO:0000026": "user specific restriction",
    "DUO:0000027": "project specific restriction",
    "DUO:0000028": "institution specific restriction",
    "DUO:0000029": "return to database or resource",
    "DUO:0000043": "clinical care use",
    "DUO:0000044": "population origins or ancestry research prohibited",
    "DUO:0000045": "not for profit organisation use only",
    "DUO:0000046": "non-commercial use only",
}

TERMS: Final = {**PERMISSIONS, **MODIFIERS}

NEED_PARTICULARS: Final = frozenset(
    f"DUO:00000{number}" for number in ("07", "12", "20", "22", "24", "25", "26", "27", "28", "29")
)
"""Which disease, country, date, project, ...: the term alone does not say."""


def data_use_problem(codes: Sequence[str], agreement: str) -> str:
    """What is wrong with a data-use statement, in a sentence; empty when nothing is. No codes are no statement."""
    unknown = [code for code in codes if code not in TERMS]
    if unknown:
        return f"duo: {unknown[0]!r} is no known term of the Data Use Ontology; known are {', '.join(TERMS)}"
    if len(set(codes)) != len(codes):
        return "duo: a term is given twice"
    if codes and len([code for code in codes if code in PERMISSIONS]) != 1:
        return f"duo: a data-use statement has exactly one permission, one of {', '.join(PERMISSIONS)}"
    if "DUO:0000004" in codes and len(codes) > 1:
        return "duo: DUO:0000004 (no restriction) cannot stand beside a restriction"
    vague = [code for code in codes if code in NEED_PARTICULARS]
    if vague and not agreement.strip():
        return f"duo: {vague[0]} ({TERMS[vague[0]]}) needs particulars: name the agreement that gives them"
    return ""


def data_use_words(codes: Sequence[str]) -> tuple[str, ...]:
    """The terms as people read them: `general research use (DUO:0000042)`."""
    return tuple(f"{TERMS[code]} ({code})" for code in codes)


def data_use_address(code: str) -> str:
    """The term's permanent address."""
    return f"http://purl.obolibrary.org/obo/{code.replace(':', '_')}"
