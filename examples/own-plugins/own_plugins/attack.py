"""Counts the samples that end as a member ends: the last step of both is the same in every channel."""

import numpy as np

from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import CondensedScene

SAME = 1e-6


class RepeatedEndings:
    name = "repeated_endings"
    threat_model = "T6"
    scene_type = CondensedScene

    def unsupported(self, scene):
        return "fewer than 40 members or others" if min(len(scene.members), len(scene.holdout)) < 40 else None

    def run(self, scene, seed):
        def repeated(samples):
            gaps = np.abs(samples[:, None, -1] - scene.members[None, :, -1]).max(axis=2)
            return float((gaps.min(axis=1) < SAME).sum())

        strangers, planted = repeated(scene.holdout[:20]), repeated(scene.members[:20])
        samples = scene.condensed.features
        found = repeated(samples)
        figure = Figure("count", found, n=len(samples), powered=True, gates=True, ceiling=float(len(samples)))
        told = f"{found:.0f} of the {len(samples)} samples of {scene.artefact} end as a member's stay ends."
        return (result(scene, self, figure, Controls(strangers, planted, planted == 20 > strangers), told, {}),)


ATTACKS = (RepeatedEndings(),)
