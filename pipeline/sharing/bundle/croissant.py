"""Croissant 1.1 metadata with its responsible-AI fields: what a catalogue or a training framework reads of a bundle.

Plain JSON-LD in canonical form, from the same facts as the card: nothing is in it that the card may not say, and the
only date is the release's own, so that the same release gives the same bytes. Vocabulary: MLCommons Croissant 1.1 and
Croissant RAI 1.0; data-use terms as schema.org's usageInfo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.core.data_use import TERMS, data_use_address
from pipeline.core.wording import MISSINGNESS, guarantee_words
from pipeline.sharing.bundle.card import KINDS, attack_rows, limits_of
from pipeline.sharing.bundle.facts import ReleaseFacts
from pipeline.sharing.canonical import canonical
from pipeline.sharing.layout import SHIFT, TEACHER

CROISSANT_VERSION: Final = "http://mlcommons.org/croissant/1.1"
RAI_VERSION: Final = "http://mlcommons.org/croissant/RAI/1.0"

CONTEXT: Final[Mapping[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        term: f"cr:{term}"
        for term in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field"),
            *("fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
            *("key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
            *("samplingRate", "separator", "source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
"""The context that the Croissant 1.1 specification prescribes, with the RAI prefix."""

SPDX_DATA_LICENCES: Final = frozenset(
    (
        *(
            "Apache-2.0",
            "CC-BY-4.0",
            "CC-BY-NC-4.0",
            "CC-BY-NC-SA-4.0",
            "CC-BY-SA-4.0",
            "CC0-1.0",
            "CDLA-Permissive-1.0",
        ),
        *("CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "MIT", "ODC-By-1.0", "ODbL-1.0", "PDDL-1.0"),
    )
)
"""Identifiers that are given as their address at spdx.org; any other licence stands as it was written."""

MEDIA_TYPES: Final = {".md": "text/markdown", ".html": "text/html", ".json": "application/json", ".txt": "text/plain"}

ARRAY_WORDS: Final[Mapping[str, str]] = {
    "features": "One series, prepared or encoded as the card says: (step, channel). Channels in order: {channels}.",
    "labels": "One value per task, between 0 and 1, NaN where a label is missing. Tasks in order: {tasks}.",
    "gram": "Noisy sum of phi phi^T over stays, phi the public feature map: (feature, feature).",
    "signed_sums": "Noisy sum of (2y - 1) phi over stays: (task, feature). Tasks in order: {tasks}.",
    "signed_counts": "Noisy sum of (2y - 1) over stays: (task). Tasks in order: {tasks}.",
    SHIFT: "What was taken off the labels' log odds to balance them. Tasks in order: {tasks}.",
    TEACHER: "The model that labelled the samples: intercept, then a weight per channel, in order: {channels}.",
}


def croissant_bytes(facts: ReleaseFacts, files: Mapping[str, Mapping[str, Any]], payload: str) -> bytes:
    """The content of croissant.json.

    Args:
        files: name -> `bytes` and `sha256` of the files it may list; the manifest, which names this file's digest, and
            the envelope are not among them.
        payload: the payload's name in `files`.
    """
    manifest = facts.manifest
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT_VERSION, RAI_VERSION],
        "name": f"{manifest['site']}: {manifest['name']}",
        "description": f"{KINDS[manifest['release']['kind']]} {_guarantee_sentence(facts)}",
        "version": f"{manifest['version']}.0.0",
        "datePublished": manifest["issued"],
        "expires": manifest["expires"],
        "license": _licence(manifest["licence"]),
        "creator": {"@type": "sc:Organization", "name": manifest["site"]},
        "citeAs": _citation(facts),
        "keywords": ["intensive care", "time series", manifest["release"]["kind"], manifest["release"]["method"]],
        "isLiveDataset": False,
        "usageInfo": [
            {"@type": "sc:DefinedTerm", "@id": data_use_address(code), "termCode": code, "name": TERMS[code]}
            for code in manifest["data_use"]
        ],
        "distribution": [_file(name, files[name], payload) for name in sorted(files)],
        "recordSet": _record_sets(manifest, payload),
        **_responsible(facts),
    }
    return canonical({key: value for key, value in described.items() if value not in ([], "")})


def _file(name: str, known: Mapping[str, Any], payload: str) -> dict[str, Any]:
    suffix = name[name.rindex(".") :]
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": "The arrays." if name == payload else f"{name} of the bundle, in Decoct's bundle format.",
        "contentUrl": name,
        "contentSize": f"{known['bytes']} B",
        "encodingFormat": MEDIA_TYPES.get(suffix, "application/octet-stream"),
        "sha256": known["sha256"],
    }


def _record_sets(manifest: Mapping[str, Any], payload: str) -> list[dict[str, Any]]:
    """A record is a sample (or a stay of an encoded cohort), and of what lies beside samples a task; moments are one
    record of sums.
    """
    data, kind = manifest["data"], manifest["release"]["kind"]
    steps = f"{data['n_steps']} steps of {data['step_hours']:g} h"
    told = f"{KINDS[kind]} {steps}. The payload is a safetensors file; its first axis is the record."
    name = {"condensed": "samples", "encoded": "stays", "moments": "sums"}[kind]
    beside = [array for array in (SHIFT, TEACHER) if array in data["arrays"]]
    found = [_record_set(name, told, sorted(set(data["arrays"]) - set(beside)), manifest, payload)]
    if beside:
        told = "What the samples' labels came from, a record for each task."
        found.append(_record_set("tasks", told, beside, manifest, payload))
    return found


def _record_set(
    name: str, told: str, arrays: Sequence[str], manifest: Mapping[str, Any], payload: str
) -> dict[str, Any]:
    data = manifest["data"]
    words = {
        "channels": ", ".join(data["channels"]),
        "tasks": ", ".join(task["name"] for task in data["tasks"]),
    }
    fields = []
    for array in arrays:
        known = data["arrays"][array]
        sizes = known["shape"] if manifest["release"]["kind"] == "moments" else known["shape"][1:]
        fields.append(
            {
                "@type": "cr:Field",
                "@id": f"{name}/{array}",
                "name": array,
                "description": f"Tensor {array!r} of the payload. {ARRAY_WORDS[array].format(**words)}",
                "dataType": {"float32": "cr:Float32", "float64": "cr:Float64"}[known["dtype"]],
                **({"isArray": True, "arrayShape": ",".join(str(size) for size in sizes)} if sizes else {}),
                "source": {"fileObject": {"@id": payload}, "extract": {"fileProperty": "content"}},
            }
        )
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": told, "field": fields}


def _responsible(facts: ReleaseFacts) -> dict[str, Any]:
    """The RAI fields, each from provenance, utility or audit; what nobody knows is left out, never guessed."""
    manifest = facts.manifest
    release, transforms = manifest["release"], manifest["data"]["transforms"]
    modes = [str(step.get("mode")) for step in transforms if step.get("kind") == "missingness"]
    method = f"{release['method']}, code {release['code_version'] or 'of an unnamed version'}"
    started = " Samples were started from real stays." if release["starts_from_records"] else ""
    return {
        "rai:dataCollection": f"Routine records of intensive care at {manifest['site']}, condensed or encoded there; "
        "the records themselves are not part of the release.",
        "rai:dataCollectionType": ["Secondary data analysis"],
        "rai:dataCollectionMissingData": " ".join(MISSINGNESS[mode] for mode in modes if mode in MISSINGNESS)
        or "The release does not say which values were measured.",
        "rai:dataImputationProtocol": "Values are carried forward within a stay; where nothing was observed before, a "
        "published normal value is used.",
        "rai:dataPreprocessingProtocol": [
            f"{str(step.get('kind', 'unnamed')).replace('_', ' ')}: "
            f"{'public constants only' if step.get('public') else 'constants computed from patients'}"
            for step in transforms
        ],
        "rai:dataManipulationProtocol": f"Made by {method}.{started}",
        "rai:dataAnnotationProtocol": [
            f"{task['name']}: {task['description'] or 'defined by its name'}" for task in manifest["data"]["tasks"]
        ],
        "rai:dataUseCases": [facts.intended_use, *_utility_sentences(facts)],
        "rai:dataLimitations": list(limits_of(facts)),
        "rai:dataBiases": [
            "Patients, measuring habits and treatment are those of one site; nothing here says that they are like "
            "another's. Subgroups were not compared for this record."
        ],
        "rai:personalSensitiveInformation": [
            f"Health data. {KINDS[release['kind']]} {_guarantee_sentence(facts)}",
            *_audit_sentences(facts),
        ],
        "rai:dataReleaseMaintenancePlan": f"Version {manifest['version']}; in force until {manifest['expires']}, after "
        "which verification refuses it. A newer version replaces it; the releasing site answers"
        f"{f' at {facts.contact}' if facts.contact else ''}.",
    }


def _guarantee_sentence(facts: ReleaseFacts) -> str:
    if facts.manifest["guarantee"] is None:
        return "No differential-privacy guarantee is given."
    guarantee = guarantee_words(facts.manifest["guarantee"])
    return (
        f"Differential privacy: epsilon {guarantee['epsilon']}, delta {guarantee['delta']}, add or remove one "
        f"{guarantee['unit']}."
    )


def _utility_sentences(facts: ReleaseFacts) -> list[str]:
    return [
        f"Predicting {task}: models trained on this release reached mean AUROCs of {least:.2f} to {most:.2f} (rounded "
        "down, worst to best model) on real held-out stays of the releasing site."
        for task, least, most in facts.utility
    ]


def _audit_sentences(facts: ReleaseFacts) -> list[str]:
    rows = [
        f"Audit, {row['attack']} ({row['threat_model']}, {row['figure']}): {row['verdict']}; limit {row['limit']}, "
        f"upper 95 % bound {row['bound']}."
        for row in attack_rows(facts)
    ]
    return [*rows, *(f"Audit, {item['attack'].replace('_', ' ')}: not run." for item in facts.leakage["not_run"])]


def _citation(facts: ReleaseFacts) -> str:
    manifest = facts.manifest
    own = f"{manifest['site']}. {manifest['name']}, version {manifest['version']}. {manifest['issued']}."
    return f"{own} {facts.attribution}".rstrip()


def _licence(name: str) -> str:
    return f"https://spdx.org/licenses/{name}.html" if name in SPDX_DATA_LICENCES else name
