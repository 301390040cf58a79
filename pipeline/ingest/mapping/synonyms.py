"""Names by which charts call the variables of the base mapping, and columns their roles: for drafts only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

ROLES: Final[Mapping[str, tuple[str, ...]]] = {  # role -> column names, the likeliest first
    "stay": ("stay_id", "icustay_id", "patientunitstayid", "visit_detail_id", "admissionid", "encounter_id", "stay",
             "encounter", "visit_occurrence_id", "visit_id", "case", "case_id", "caseid", "fallnummer", "hadm_id"),
    "subject": ("subject_id", "patient_id", "person_id", "patientid", "uniquepid", "subject", "patient", "person",
                "mrn", "pid", "patientnummer"),
    "start": ("intime", "start_time", "starttime", "admittime", "admit_time", "admission_time", "admitted", "admission",
              "visit_detail_start_datetime", "visit_start_datetime", "begin", "start"),
    "end": ("outtime", "end_time", "endtime", "dischtime", "discharge_time", "discharged", "discharge",
            "visit_detail_end_datetime", "visit_end_datetime", "end"),
    "time": ("charttime", "time", "datetime", "timestamp", "measurement_datetime", "hours", "hour", "offset", "minutes",
             "observationoffset", "event_time", "taken", "collected", "recorded", "charted", "zeitpunkt", "iculos"),
    "code": ("code", "itemid", "variable", "parameter", "item", "variableid", "measurement_concept_id", "labname",
             "analyte", "name", "test", "label"),
    "value": ("valuenum", "numeric_value", "value_as_number", "value", "result", "labresult", "wert"),
    "unit": ("valueuom", "unit", "units", "uom", "unit_concept_id", "labmeasurenamesystem", "einheit"),
    "site": ("site", "hospital", "hospitalid", "hospital_id", "care_site_id"),
}  # fmt: skip
NAMES: Final[Mapping[str, tuple[str, ...]]] = {  # variable -> names without spaces, signs and case
    "ALP": ("alp", "alkalinephosphatase", "alkalinephos", "alkalinephosphate"),
    "ALT": ("alt", "altsgpt", "alanineaminotransferase", "sgpt", "gpt"),
    "AST": ("ast", "astsgot", "aspartateaminotransferase", "sgot", "got"),
    "Albumin": ("albumin", "alb"),
    "BUN": ("bun", "ureanitrogen", "bloodureanitrogen"),
    "Bilirubin": ("bilirubin", "bilirubintotal", "totalbilirubin", "bili"),
    "Cholesterol": ("cholesterol", "totalcholesterol"),
    "Creatinine": ("creatinine", "crea", "creat", "kreatinin"),
    "DiasABP": ("diasabp", "dbp", "abpd", "diastolicbloodpressure", "arterialbloodpressurediastolic", "diastolicbp"),
    "FiO2": ("fio2", "inspiredo2fraction", "inspiredoxygen"),
    "GCS": ("gcs", "gcstotal", "glasgowcomascale", "glasgowcomascore"),
    "Glucose": ("glucose", "bloodglucose", "gluc", "glukose"),
    "HCO3": ("hco3", "bicarbonate", "bicarb"),
    "HCT": ("hct", "hematocrit", "haematocrit"),
    "HR": ("hr", "heartrate", "pulse", "pulserate", "herzfrequenz"),
    "K": ("k", "potassium", "kalium"),
    "Lactate": ("lactate", "lact", "lactat", "laktat"),
    "Mg": ("mg", "magnesium"),
    "MAP": ("map", "mbp", "meanarterialpressure", "meanbloodpressure", "abpm", "arterialbloodpressuremean", "meanbp"),
    "MechVent": ("mechvent", "ventilated", "mechanicalventilation"),
    "Na": ("na", "sodium", "natrium"),
    "NIDiasABP": ("nidiasabp", "nbpd", "noninvasivediastolic", "noninvasivebloodpressurediastolic"),
    "NIMAP": ("nimap", "nbpm", "noninvasivemean", "noninvasivebloodpressuremean"),
    "NISysABP": ("nisysabp", "nbps", "noninvasivesystolic", "noninvasivebloodpressuresystolic"),
    "PaCO2": ("paco2", "pco2", "arterialco2pressure"),
    "PaO2": ("pao2", "po2", "arterialo2pressure"),
    "Platelets": ("platelets", "plt", "plateletcount", "plateletsx1000", "thrombocytes", "thrombozyten"),
    "RespRate": ("resprate", "resp", "rr", "respiratoryrate", "respiration", "atemfrequenz"),
    "SaO2": ("sao2", "spo2", "o2sat", "oxygensaturation", "o2saturationpulseoxymetry"),
    "SysABP": ("sysabp", "sbp", "abps", "systolicbloodpressure", "arterialbloodpressuresystolic", "systolicbp"),
    "Temp": ("temp", "temperature", "bodytemperature", "temperaturec", "temperaturecelsius", "temperaturef",
             "temperaturefahrenheit", "temperatur"),
    "TroponinI": ("troponini", "tni"),
    "TroponinT": ("troponint", "tnt"),
    "Urine": ("urine", "urineoutput", "urineoutputfoley", "urin", "diuresis"),
    "WBC": ("wbc", "whitebloodcells", "wbcx1000", "leukocytes", "leukozyten", "wbccount"),
    "Weight": ("weight", "bodyweight", "gewicht"),
    "pH": ("ph", "pharterial", "arterialph"),
}  # fmt: skip
_FAHRENHEIT: Final = ("temperaturef", "temperaturefahrenheit", "tempf")


def plain(name: str) -> str:
    """A name without spaces, signs and case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def variable_named(name: str) -> tuple[str, str | None] | None:
    """(variable, unit that the name says) for the part of a code that is a name, or None."""
    bare = plain(name)
    if bare in _FAHRENHEIT:
        return "Temp", "degF"
    return next(((variable, None) for variable, names in NAMES.items() if bare in names), None)


def role(names: list[str], wanted: str) -> str | None:
    """The column of `names` that likeliest plays the role."""
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in ROLES[wanted] if name in lower), None)
