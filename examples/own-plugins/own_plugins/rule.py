"""A rule beside the policy's: no set of more than 500 samples leaves."""

from pipeline.sharing.policy.rules import Finding


def few_samples(policy, artefact, reports, utility, circumstances):
    n = len(artefact.features) if hasattr(artefact, "features") else 0
    yield Finding("FAIL" if n > 500 else "PASS", f"{n} samples, and at most 500 may leave")


RULES = {"few_samples": few_samples}
