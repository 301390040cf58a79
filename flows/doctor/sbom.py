"""What is installed with Decoct, as a CycloneDX 1.6 bill of materials in JSON.

From the installed packages' own metadata: Decoct and everything it needs, with versions, licences as they state them,
who needs whom, and the digest of each package's list of installed files (RECORD). Equal installations give equal bytes
but for the time.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from pipeline.core.digest import digest_json
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.extras import OPTIONAL, SITE
from pipeline.core.files.whole import put_whole

ROOT: Final = "decoct"
_SPACE: Final = uuid.UUID("6f6b3f0e-8f0c-5b57-9a41-3d6f4c1f2b77")  # ours, for serial numbers by content
_LONG: Final = 120  # a "license" field longer than this holds the text, not the name


def write_sbom(path: Path, *, now: datetime | None = None) -> int:
    """Write the bill; returns how many components it lists.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    bill = bill_of_materials(now or datetime.now(tz=UTC))
    try:
        put_whole(path, (json.dumps(bill, indent=1) + "\n").encode())
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None
    return len(bill["components"])


def bill_of_materials(now: datetime) -> dict[str, Any]:
    """Decoct and what it needs, as plain CycloneDX data."""
    found = installed(ROOT)
    components = {name: _component(item) for name, item in sorted(found.items())}
    needs = {name: sorted({need for need in needed(item) if need in found}) for name, item in found.items()}
    refs = {name: component["bom-ref"] for name, component in components.items()}
    content = [refs, needs]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, digest_json(content))}",
        "version": 1,
        "metadata": {
            "timestamp": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "component": {**components[ROOT], "type": "application"},
        },
        "components": [component for name, component in components.items() if name != ROOT],
        "dependencies": [
            {"ref": refs[name], "dependsOn": [refs[need] for need in needs[name]]} for name in sorted(found)
        ],
    }


def installed(root: str) -> dict[str, Distribution]:
    """The distribution named `root` and all that it needs here, by normalised name; what is missing is left out."""
    found: dict[str, Distribution] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        waiting += needed(found[name])
    return found


def needed(item: Distribution) -> Iterator[str]:
    """Normalised names of what a distribution needs on this machine; of our own extras, all but those of tests."""
    from packaging.requirements import InvalidRequirement, Requirement

    extras = ("", SITE, *OPTIONAL) if normalised(item.metadata["Name"]) == ROOT else ("",)
    for text in item.requires or ():
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
            yield normalised(need.name)


def normalised(name: str) -> str:
    """As package indices compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _component(item: Distribution) -> dict[str, Any]:
    name, version = normalised(item.metadata["Name"]), item.version
    address = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
    component: dict[str, Any] = {"type": "library", "bom-ref": address, "name": name, "version": version}
    licences = _licences(
        {key: item.metadata.get_all(key) or [] for key in ("License-Expression", "License", "Classifier")}
    )
    record = item.read_text("RECORD")
    return {
        **component,
        "purl": address,
        **({"licenses": licences} if licences else {}),
        **({"properties": [_property("decoct:record-sha256", sha256(record.encode()).hexdigest())]} if record else {}),
    }


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def _licences(told: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """An SPDX expression if the package states one; else the names it states, as they are."""
    if told["License-Expression"]:
        return [{"expression": told["License-Expression"][0]}]
    names = [text.rsplit(" :: ", 1)[1] for text in told["Classifier"] if text.startswith("License :: OSI Approved :: ")]
    names = names or [text for text in told["License"] if 0 < len(text) <= _LONG and "\n" not in text]
    return [{"license": {"name": name}} for name in names]
