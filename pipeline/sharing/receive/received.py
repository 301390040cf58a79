"""Verify a bundle and hand its arrays to a learner: three lines from folder to fitted model.

    received = receive("folder", "trust-root.json", today=date.today())
    X, y, weight = received.X_y("in_hospital_death")
    model = LogisticRegression(max_iter=1000).fit(X, y, weight)

numpy and safetensors; torch only if a torch data set is asked for.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from pipeline.core.errors import DataError, UsageError
from pipeline.core.extras import explained
from pipeline.core.risk import shifted, teacher_risks
from pipeline.sharing.bundle.payload_form import require_canonical
from pipeline.sharing.layout import PAYLOAD, SHIFT, TEACHER, payload_name
from pipeline.sharing.receive import notebook
from pipeline.sharing.receive.notebook import Card, Channel, Drawing
from pipeline.sharing.receive.verify import VerifiedBundle, verify
from pipeline.sharing.trust.keys import TrustRoot

if TYPE_CHECKING:
    from torch.utils.data import TensorDataset

    from pipeline.core.types import CondensedSet, Moments


@final
@dataclass(frozen=True, eq=False, repr=False)
class Received:
    """A verified bundle's arrays with their meaning; read from the verified bytes, never from the folder again."""

    bundle: VerifiedBundle
    arrays: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={array.dtype}{list(array.shape)}" for name, array in self.arrays.items())
        return f"Received({self.bundle.path.name!r}, {shapes})"

    def _repr_html_(self) -> str:
        facts, data = self.manifest, self.manifest["data"]
        guarantee, channels = facts["guarantee"], [f"{c} ({c.unit})" if c.unit else str(c) for c in self.channels]
        private = "none"
        if guarantee is not None:
            private = f"epsilon {guarantee['epsilon']:g}, delta {guarantee['delta']:g}, per {guarantee['unit']}"
        shapes = [f"{name} {' x '.join(map(str, array.shape))}" for name, array in self.arrays.items()]
        rows = [
            ("from", f"{facts['site']}, valid until {facts['expires']}"),
            ("kind", f"{facts['release']['kind']}, by {facts['release']['method']}"),
            ("arrays", ", ".join(shapes)),
            ("steps", f"{data['n_steps']} of {data['step_hours']:g} h"),
            (f"{len(channels)} channels", ", ".join(channels)),
            ("tasks", ", ".join(self.tasks)),
            ("privacy guarantee", private),
        ]
        return notebook.table(f"{facts['name']}, version {facts['version']}", rows)

    @property
    def card(self) -> Card:
        """What its site says of it: Markdown when printed, the page in a notebook; from the verified bytes."""
        return Card(self.bundle.files["card.md"].decode(), self.bundle.files["card.html"].decode())

    def to_frame(self) -> Any:
        """A pandas frame: a row for every (sample, hour), a column for every channel and label.

        Values are in `channels`' units; of an encoded set they are as they were sent.

        Raises:
            UsageError: the bundle holds no samples. NotInstalled: pandas is missing.
        """
        try:
            return notebook.frame(self._shown(), self.labels, self.channels, self.tasks, self._step_hours)
        except ImportError as error:
            raise explained(error) from None

    def plot(self, sample: int = 0, *channels: str) -> Drawing:
        """One sample over time as an SVG: the named channels, or the first few that change.

        Raises:
            UsageError: no such sample or channel.
        """
        shown, names = self._shown(), self.channels
        if not 0 <= sample < len(shown):
            raise UsageError(f"this bundle has samples 0 to {len(shown) - 1}")
        if unknown := [name for name in channels if name not in names]:
            raise UsageError(f"this bundle has no channel {unknown[0]!r}; it has {', '.join(names)}")
        moving = [name for place, name in enumerate(names) if np.ptp(shown[sample, :, place]) > 0]
        asked = channels or (moving or names)[: notebook.MAX_DRAWN]
        rows = []
        for name in asked:
            place = names.index(name)
            label = f"{name} ({names[place].unit})" if names[place].unit else str(name)
            rows.append((label, shown[sample, :, place]))
        title = f"Sample {sample} of {self.manifest['name']}: a teaching vector, not a patient"
        return notebook.drawing(title, self._step_hours * (shown.shape[1] - 1), rows)

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.bundle.manifest

    @property
    def features(self) -> np.ndarray:
        """float32 (sample, step, channel)."""
        return self._array("features")

    @property
    def labels(self) -> np.ndarray:
        """float32 (sample, task) in [0, 1]; NaN = missing."""
        return self._array("labels")

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Names, each with its `unit`: "" where there is none, as in an encoded set."""
        data = self.manifest["data"]
        units = notebook.units_of(data["transforms"])
        return tuple(Channel(name, units.get(name, "")) for name in data["channels"])

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task["name"] for task in self.manifest["data"]["tasks"])

    def X_y(self, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # noqa: N802 (scikit-learn's names)
        """For scikit-learn: X (row, step * channel), y 0 or 1, weight (row); samples without the label are left out.

        A hard label is one row of weight 1. A soft label p is two rows, y = 1 of weight p and y = 0 of weight 1 - p:
        the weighted log loss is then exactly the cross-entropy against p.

        Raises:
            UsageError: no such task.
        """
        label = self._label(task)
        known = np.flatnonzero(np.isfinite(label))
        X = self.features[known].reshape(len(known), -1)
        p = label[known].astype(np.float64)
        rows = np.concatenate([np.flatnonzero(p > 0), np.flatnonzero(p < 1)])
        y = np.repeat(np.array([1, 0]), [np.count_nonzero(p > 0), np.count_nonzero(p < 1)])
        weight = np.where(y == 1, p[rows], 1 - p[rows])
        return X[rows], y, weight

    @property
    def teacher(self) -> np.ndarray | None:
        """float64 (task, 1 + feature), intercepts first: the model that labelled the samples; None where none came."""
        return self.arrays.get(TEACHER)

    @property
    def label_shift(self) -> np.ndarray | None:
        """float64 (task,): what was taken off the labels' log odds to balance them; None where nothing says so."""
        return self.arrays.get(SHIFT)

    def score(self, series: np.ndarray, *, clinical: bool = False) -> np.ndarray:
        """The teacher's predicted risks (of a number: its mean label), `(stay, task)`, of one's own series.

        Under the teacher's own guarantee, so as often as one likes; what it says of patients elsewhere is for its
        receiver to test.

        Args:
            series: `(stay, step, channel)` on the set's grid and in the order of `channels`; prepared as
                `manifest["data"]["transforms"]` say, or with `clinical` in the channels' units, NaN = not measured.

        Raises:
            UsageError: no teacher came with the set, the series have another shape, or the set has no units.
        """
        data = self.manifest["data"]
        if self.teacher is None:
            raise UsageError("no teacher came with this bundle: train a model on its samples")
        series = np.asarray(series)
        if series.ndim != 3 or series.shape[1:] != (data["n_steps"], len(data["channels"])):
            raise UsageError(f"series to score are (stay, {data['n_steps']} steps, {len(data['channels'])} channels)")
        if clinical:
            series = notebook.prepared(series, data["channels"], data["transforms"])
        if not np.isfinite(series).all():
            raise UsageError("series to score hold values that are missing; clinical=True fills them as the site did")
        return teacher_risks(series, self.teacher, data[TEACHER], data["channels"])

    def risk(self, predicted: np.ndarray, task: str) -> np.ndarray:
        """What a model trained on the samples predicts, as a risk: their labels are balanced, and events may be rare.

        Raises:
            UsageError: no such task, the bundle does not say how its labels were balanced, or no probabilities.
        """
        place, shift = self._task(task), self.label_shift
        if shift is None:
            raise UsageError("this bundle does not say how its labels were balanced: calibrate on your own patients")
        if np.any((np.asarray(predicted) < 0) | (np.asarray(predicted) > 1)):
            raise UsageError("what becomes a risk are predicted probabilities, from 0 to 1")
        return shifted(predicted, float(shift[place]))

    def torch_dataset(self, *tasks: str) -> TensorDataset:
        """(features, labels) for torch; labels (sample, task), of the named tasks or all; NaN = missing."""
        import torch
        from torch.utils.data import TensorDataset

        columns = [self._task(task) for task in tasks or self.tasks]
        labels = np.ascontiguousarray(self.labels[:, columns])
        return TensorDataset(torch.from_numpy(self.features.copy()), torch.from_numpy(labels))

    def condensed_set(self) -> CondensedSet:
        """The core type, for use in a pipeline of one's own.

        Raises:
            UsageError: the bundle holds another kind.
        """
        from pipeline.core.types import CondensedSet

        release = self._release("condensed")
        return CondensedSet(
            features=self.features,
            labels=self.labels,
            method=release["method"],
            starts_from_records=release["starts_from_records"],
            label_shift=self.label_shift,
            teacher=self.teacher,
            teacher_features=self.manifest["data"].get(TEACHER),
            **self._shared(),
        )

    def moments(self) -> Moments:
        """The core type, ready to be added to other institutions' moments.

        Raises:
            UsageError: the bundle holds another kind.
        """
        from pipeline.core.types import Moments

        self._release("moments")
        data = self.manifest["data"]
        return Moments(
            gram=self._array("gram"),
            signed_sums=self._array("signed_sums"),
            signed_counts=self._array("signed_counts"),
            feature_map=data["feature_map"],
            feature_map_digest=data["feature_map_digest"],
            n_steps=data["n_steps"],
            **self._shared(),
        )

    def _shared(self) -> dict[str, Any]:
        from pipeline.core.types import PrivacyGuarantee, Provenance, Task

        data, guarantee = self.manifest["data"], self.manifest["guarantee"]
        if guarantee is not None:
            sequences = {name: tuple(guarantee[name]) for name in ("events", "assumed_public")}
            guarantee = PrivacyGuarantee(**{**guarantee, **sequences})
        source = {key: self.manifest[key] for key in ("site", "name", "version")}
        options = self.manifest["release"]["options"]  # what post-processing needs, such as the scale of the noise
        return {
            "channels": tuple(data["channels"]),
            "tasks": tuple(Task(**task) for task in data["tasks"]),
            "step_hours": float(data["step_hours"]),
            "transforms": tuple(data["transforms"]),
            "guarantee": guarantee,
            "provenance": Provenance(
                stage="receive",
                parents=(self.manifest["files"][payload_name(self.manifest)]["sha256"],),
                config={**options, **source},
            ),
        }

    @property
    def _step_hours(self) -> float:
        return float(self.manifest["data"]["step_hours"])

    def _shown(self) -> np.ndarray:
        return notebook.in_units(self.features, self.channels, self.manifest["data"]["transforms"])

    def _release(self, kind: str) -> Mapping[str, Any]:
        release: Mapping[str, Any] = self.manifest["release"]
        if release["kind"] != kind:
            raise UsageError(f"this bundle holds {release['kind']} data, not {kind}")
        return release

    def _array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UsageError(f"a bundle of {self.manifest['release']['kind']} has no {name}")
        return self.arrays[name]

    def _task(self, task: str) -> int:
        if task not in self.tasks:
            raise UsageError(f"this bundle has no task {task!r}; it has {', '.join(self.tasks)}")
        return self.tasks.index(task)

    def _label(self, task: str) -> np.ndarray:
        label: np.ndarray = self.labels[:, self._task(task)]
        return label


def receive(
    bundle: Path | str,
    root: Path | str | TrustRoot,
    *,
    today: datetime.date,
    identity: Path | str | None = None,
    revocations: Path | None = None,
    recipient: str | None = None,
) -> Received:
    """Verify a bundle and read its arrays; `identity` is the receiver's age identity file, for an encrypted payload.

    `revocations` and `recipient` as in `pipeline.sharing.receive.verify.verify`; nothing is written.

    Raises:
        ReleaseRefused: verification fails, see `receive.verify.verify`, or the payload is encrypted to others.
        DataError: the signed payload is not what the signed manifest describes.
    """
    trusted = root if isinstance(root, TrustRoot) else Path(root)
    mine = None if identity is None else Path(identity)
    found = verify(Path(bundle), trusted, today=today, revocations=revocations, recipient=recipient)
    return read_arrays(found, mine)


def read_arrays(verified: VerifiedBundle, identity: Path | None = None) -> Received:
    """The arrays of a verified bundle, checked against its manifest.

    Raises:
        ReleaseRefused: the payload is encrypted, and not to this identity.
        DataError: the payload cannot be read, or names, shapes or types differ from the manifest's.
    """
    data = verified.files[payload_name(verified.manifest)]
    if verified.manifest.get("encryption"):
        from pipeline.sharing.bundle.encryption import decrypted

        data = decrypted(data, verified.manifest, identity)
        require_canonical(data, verified.manifest)
    try:
        arrays = load(data)
    except SafetensorError:
        raise DataError(f"{PAYLOAD} is signed but is not a safetensors file") from None
    found = {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()}
    described = verified.manifest["data"]
    if not isinstance(described, dict) or found != described.get("arrays"):
        raise DataError(f"{PAYLOAD} does not hold the arrays that the manifest describes")
    for array in arrays.values():
        array.setflags(write=False)
    return Received(verified, arrays)
