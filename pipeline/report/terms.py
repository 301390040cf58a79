"""What the audit's figures have to do with the words of regulators. A mapping of terms, never a legal finding."""

from __future__ import annotations

from typing import Any, Final

TERMS: Final = (
    (
        "Singling out",
        "Article 29 Working Party, Opinion 05/2014 (WP216)",
        ("singling_out", "near_copies", "byte_scan"),
        "whether records or descriptions in the release point at one person",
    ),
    (
        "Linkability",
        "WP216",
        ("linkability", "distance_profile_linkage", "nearest_neighbour_linkage", "successive_releases"),
        "whether the release helps to join two sets of records of the same person",
    ),
    (
        "Inference",
        "WP216",
        ("inference", "attribute_inference", "attribute_inference_set", "known_key_inversion", "aligned_pairs"),
        "whether values of a person can be worked out from the release beyond what holds for everybody",
    ),
    (
        "Additional information kept separately",
        "GDPR Article 4(5); EDPB Guidelines 01/2025 on pseudonymisation",
        ("known_key_inversion", "key_enumeration", "aligned_pairs", "blind_source_separation"),
        "what the encoding gives away with its key, with some pairs, and with neither",
    ),
    (
        "Extraction, membership inference",
        "EDPB Opinion 28/2024 on AI models",
        ("density_membership", "two_sample", "canary_subjects", "shadow_condensation", "model_membership"),
        "whether the release, or a model trained on it, tells whose records it was made from",
    ),
    (
        "Very small risk of identification by an anticipated recipient",
        "HIPAA, 45 CFR 164.514(b)(1), expert determination",
        ("singling_out", "linkability", "density_membership", "near_copies"),
        "figures with intervals that an expert may use; the determination is the expert's",
    ),
    (
        "Listed identifiers",
        "HIPAA, 45 CFR 164.514(b)(2)",
        ("byte_scan",),
        "whether the site's own identifiers, dates and keys stand in the bytes; not all of the list is looked for",
    ),
)


def mapping(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The terms, with the attacks that bear on each: those that gave a figure here, and those that did not run."""
    ran = {row["attack"] for report in reports for row in report["results"]}
    missed = {row["attack"] for report in reports for row in report["not_run"]} - ran
    return [
        {
            "term": term,
            "source": source,
            "asks": asks,
            "ran": [name.replace("_", " ") for name in attacks if name in ran],
            "not_run": [name.replace("_", " ") for name in attacks if name in missed],
        }
        for term, source, attacks, asks in TERMS
    ]
