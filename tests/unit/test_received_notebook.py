"""A received bundle in a notebook: frame, drawing, card and table, with units, and with foreign text escaped."""

from __future__ import annotations

import dataclasses
import datetime
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import NotInstalled, UsageError
from pipeline.sharing.receive.received import Received, receive

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-2"
TODAY = datetime.date(2026, 3, 10)
SCALING = {
    "kind": "scaling",
    "channels": ["heart_rate", "lactate"],
    "units": ["bpm", "mmol/L"],
    "low": [0.0, 0.0],
    "high": [300.0, 30.0],
    "public": True,
}


def received(name: str = "st-elsewhere-plain-v1") -> Received:
    return receive(GOLDEN / name, GOLDEN / "root.json", today=TODAY)


def with_transforms(*steps: dict[str, Any], **manifest: Any) -> Received:
    found = received()
    data = {**found.manifest["data"], "transforms": list(steps)}
    bundle = dataclasses.replace(found.bundle, manifest={**found.manifest, "data": data, **manifest})
    return dataclasses.replace(found, bundle=bundle)


def test_channels_are_names_that_know_their_unit() -> None:
    found = with_transforms(SCALING)
    assert found.channels == ("heart_rate", "lactate")
    assert [channel.unit for channel in found.channels] == ["bpm", "mmol/L"]
    assert [channel.unit for channel in received().channels] == ["", ""]
    encoded = with_transforms(SCALING, {"kind": "quantum", "public": True})
    assert [channel.unit for channel in encoded.channels] == ["", ""]
    assert all(type(name) is str for name in found.condensed_set().channels)  # what is digested is a plain string


def test_a_frame_has_a_row_for_every_sample_and_hour_in_clinical_units() -> None:
    found = with_transforms(SCALING)
    frame = found.to_frame()
    assert frame.index.names == ["sample", "hour"]
    assert list(frame.columns) == ["heart_rate", "lactate", "label:death"]
    assert len(frame) == 40 * 3
    np.testing.assert_allclose(frame.loc[(7, 2.0), "heart_rate"], 300 * found.features[7, 2, 0], rtol=1e-5)
    np.testing.assert_array_equal(frame["label:death"].to_numpy().reshape(40, 3)[:, 1], found.labels[:, 0])
    np.testing.assert_array_equal(received().to_frame()["lactate"].to_numpy(), found.features[:, :, 1].ravel())


def test_without_pandas_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(NotInstalled, match="site"):
        received().to_frame()


def test_a_sample_is_drawn_and_called_what_it_is() -> None:
    drawn = with_transforms(SCALING).plot(3, "lactate")
    root = ElementTree.fromstring(drawn)
    words = " ".join(root.itertext())
    assert "lactate (mmol/L)" in words
    assert "Sample 3" in words
    assert "not a patient" in words
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 1
    assert drawn._repr_html_() == drawn
    assert len(ElementTree.fromstring(received().plot()).findall("{http://www.w3.org/2000/svg}polyline")) == 2
    with pytest.raises(UsageError, match="samples 0 to 39"):
        received().plot(40)
    with pytest.raises(UsageError, match="no channel 'pulse'; it has heart_rate, lactate"):
        received().plot(0, "pulse")


def test_the_card_prints_as_text_and_shows_as_a_page_that_runs_nothing() -> None:
    found = received()
    assert found.card.startswith("# ")
    shown = found.card._repr_html_()
    assert shown.startswith('<iframe sandbox=""')
    assert "<script" not in shown.replace("&lt;script", "")
    assert shown.count("<") == 2  # the frame alone: all of the page is escaped


def test_the_table_escapes_what_another_institution_wrote() -> None:
    evil = "<img src=x onerror=alert(1)>"
    shown = with_transforms(SCALING, site=evil, name=evil)._repr_html_()
    assert "<img" not in shown
    assert "heart_rate (bpm)" in shown
    assert "delta" in received("st-elsewhere-moments-v1")._repr_html_()


def test_moments_hold_no_samples() -> None:
    with pytest.raises(UsageError, match="has no features"):
        received("st-elsewhere-moments-v1").plot()
