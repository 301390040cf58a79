"""The fixed sentences of the page: threat models, statistics, verdicts, limits, glossary. Plain words, no promises."""

from __future__ import annotations

from typing import Any, Final

STATISTICS: Final = {
    "r2": "R² of reconstruction",
    "auroc": "AUROC",
    "count": "count",
    "member_excess": "excess of members",
    "closest_record_ratio": "distance ratio",
    "tpr_at_1pct_fpr": "TPR at 1 % FPR",
    "tpr_at_01pct_fpr": "TPR at 0.1 % FPR",
    "tpr_at_smallest_fpr": "TPR at the smallest FPR that n allows",
    "excess_risk": "excess over unrelated people",
    "excess_risk_nearest_tenth": "excess over unrelated people, nearest tenth",
    "auroc_advantage": "AUROC gained",
    "auroc_excess": "AUROC over unrelated people",
    "linkage_rate": "share linked",
    "telling_views": "views that separate members from others",
    "epsilon_above_claim": "ε above the claim",
}

METRICS: Final = {
    "auroc": ("AUROC", "larger is better; 0.5 is chance"),
    "auprc": ("AUPRC", "larger is better; chance is the prevalence"),
    "brier": ("Brier score", "smaller is better"),
    "calibration_error": ("Calibration error", "smaller is better"),
    "r2": ("R² of the label", "larger is better; 0 is what the held-out stays' own mean reaches"),
    "mae": ("Mean absolute error", "in the label's unit; smaller is better"),
}

VERDICTS: Final = {
    "PASS": ("pass", "Every rule of the policy was checked, and every rule held."),
    "FAIL": ("fail", "At least one rule of the policy was broken."),
    "INCONCLUSIVE": (
        "inconclusive",
        "No rule was shown to be broken, but the evidence is too thin to say that all hold. That blocks, too.",
    ),
    "NOT JUDGED": ("unjudged", "No gate was run; without a verdict nothing may leave."),
}

LEAVES: Final = {
    "condensed": "synthetic samples and their labels",
    "encoded": "one encoded series for every stay: still a row per person, readable by whoever holds or finds the key",
    "moments": "noisy sums over all training stays; no row stands for a person",
}

STAYS: Final = (
    "the patients' records, in raw, prepared and (unless released above) encoded form",
    "stay and subject identifiers, dates, and the split of stays into training, tuning and held-out parts",
    "the encoders' keys (no bundle holds one; whoever is given one can undo much of an encoding), the seed of this run "
    "and the signing key",
    "every artefact of this run that the gate did not pass",
    "this report",
)

IMPLAUSIBLE: Final = "{found} of {n} samples hold a value outside its plausible clinical range."

LIMITS: Final = (
    "An audit shows what the attacks in this run found, with these data and this effort. It bounds what those attacks "
    "reach; it does not bound what another attacker could do. Only an (ε, δ) statement bounds every attacker, and only "
    "for what its account covers; what it assumes to be public is listed with it.",
    "An encoding is pseudonymisation by key: whoever holds the encoder can undo much of it. Utility is measured on "
    "held-out stays of this site; another hospital's patients, devices and habits differ. Intervals describe the "
    "sampling of test stays and training seeds named beside them, nothing else. A model trained on a condensed set is "
    "not a medical device and was not tested as one.",
    "This report does not decide whether a release is lawful. It gives the people who do decide the figures to do so.",
)

GLOSSARY: Final = (
    ("stay, subject", "One stay in intensive care; the person. A subject may have several stays."),
    ("task, label", "A yes/no question about a stay, such as death in hospital, and its answer."),
    (
        "encoding, key",
        "A transform of the series that depends on a secret key, kept at the site or given to receivers.",
    ),
    ("condensed set", "A few synthetic samples that a model can be trained on in place of the records."),
    ("soft label", "A label between 0 and 1 given by a model. Soft labels flatter every method: read them apart."),
    ("held-out", "Stays, chosen by subject, that no training and no condensation ever saw."),
    (
        "epsilon (ε)",
        "How much one subject's presence may change the odds of anything that can be learned from the release: by a "
        "factor of at most e to the ε. Smaller is stricter.",
    ),
    ("delta (δ)", "The small probability with which the ε bound may fail."),
    ("adjacency, unit", "What the bound compares: data with and without one subject (or one stay)."),
    ("accountant", "The software that adds up what each use of the data costs in ε and δ."),
    (
        "AUROC",
        "The probability that a model ranks a random positive stay above a random negative one: 0.5 is chance, 1 is "
        "perfect.",
    ),
    ("AUPRC", "Average precision over all thresholds; chance equals the share of positive stays."),
    ("Brier score, calibration error", "How far predicted probabilities are from what happened; smaller is better."),
    ("R²", "The share of a record's variation that an attack rebuilds: 0 is no better than the average, 1 is exact."),
    ("member", "A stay that the artefact was made from; a non-member is one that it was not."),
    ("TPR at 1 % FPR", "The share of members an attack names while wrongly naming one in a hundred non-members."),
    ("control", "The same attack where nothing can leak. A rate near its control is no leak that this attack can see."),
    ("positive control", "The same attack where a leak was planted. If it finds nothing there, its silence is worth "
     "nothing here."),
    ("ceiling", "The largest value the audit could have certified with its number of targets."),
    ("interval", "The range that holds the true value with 95 % confidence, in brackets after a figure."),
    ("affinity", "How alike two tasks are for training: smaller is more alike."),
    ("digest", "A fingerprint (SHA-256) of an artefact: one changed bit changes it."),
)  # fmt: skip

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
        "whether the release, or a model trained on it, shows whose records it was made from",
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
        "whether the site's own identifiers, dates and keys are in the bytes; not all of the list is looked for",
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
