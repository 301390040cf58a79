"""The data of the pipeline: frozen dataclasses over numpy, shapes in the annotations, arrays never in a repr.

One file per reader: `cohort`, `condensed`, `audit`, `found`, `drift`.
"""

from pipeline.core.types.audit import AttackResult as AttackResult
from pipeline.core.types.audit import AuditPiece as AuditPiece
from pipeline.core.types.audit import GateDecision as GateDecision
from pipeline.core.types.audit import LeakageReport as LeakageReport
from pipeline.core.types.audit import NotRun as NotRun
from pipeline.core.types.audit import ReleaseRecord as ReleaseRecord
from pipeline.core.types.audit import ThreatModel as ThreatModel
from pipeline.core.types.audit import Verdict as Verdict
from pipeline.core.types.cohort import Aggregation as Aggregation
from pipeline.core.types.cohort import ArrayRecord as ArrayRecord
from pipeline.core.types.cohort import Cohort as Cohort
from pipeline.core.types.cohort import EncodedCohort as EncodedCohort
from pipeline.core.types.cohort import Json as Json
from pipeline.core.types.cohort import Provenance as Provenance
from pipeline.core.types.cohort import ScoreItem as ScoreItem
from pipeline.core.types.cohort import ScoreWindow as ScoreWindow
from pipeline.core.types.cohort import Side as Side
from pipeline.core.types.cohort import Split as Split
from pipeline.core.types.cohort import StaticVariable as StaticVariable
from pipeline.core.types.cohort import Statistic as Statistic
from pipeline.core.types.cohort import Task as Task
from pipeline.core.types.cohort import Variable as Variable
from pipeline.core.types.cohort import subjects_in_several_splits as subjects_in_several_splits
from pipeline.core.types.cohort import with_tasks as with_tasks
from pipeline.core.types.condensed import CondensedSet as CondensedSet
from pipeline.core.types.condensed import LossCurve as LossCurve
from pipeline.core.types.condensed import Moments as Moments
from pipeline.core.types.condensed import PrivacyGuarantee as PrivacyGuarantee
from pipeline.core.types.found import ContractResult as ContractResult
from pipeline.core.types.found import ExpectationOutcome as ExpectationOutcome
from pipeline.core.types.found import Grouping as Grouping
from pipeline.core.types.found import GroupsCompared as GroupsCompared
from pipeline.core.types.found import GroupValidation as GroupValidation
from pipeline.core.types.found import IngestReport as IngestReport
from pipeline.core.types.found import TableUse as TableUse
from pipeline.core.types.found import UnitUse as UnitUse
from pipeline.core.types.found import UtilityReport as UtilityReport
from pipeline.core.types.found import UtilityScore as UtilityScore
