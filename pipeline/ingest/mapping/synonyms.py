"""Names by which charts call the variables of the base mapping, and columns their roles: for drafts only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

ROLES: Final[Mapping[str, tuple[str, ...]]] = {  # role -> column names, the likeliest first
    "stay": ("stay_id", "icustay_id", "patientunitstayid", "visit_detail_id", "admissionid", "encounter_id", "stay",
             "encounter", "visit_occurrence_id", "visit_id", "case", "case_id", "caseid", "fallnummer", "fallnr",
             "hadm_id", "hospitalization_id"),
    "subject": ("subject_id", "patient_id", "person_id", "patientid", "uniquepid", "subject", "patient", "person",
                "mrn", "pid", "patientnummer"),
    "start": ("intime", "start_time", "starttime", "admittime", "admit_time", "admission_time", "admitted", "admission",
              "visit_detail_start_datetime", "visit_start_datetime", "begin", "start", "in_dttm", "aufnahme",
              "aufnahmezeit"),
    "end": ("outtime", "end_time", "endtime", "dischtime", "discharge_time", "discharged", "discharge",
            "visit_detail_end_datetime", "visit_end_datetime", "end", "out_dttm", "entlassung",
            "entlassungszeit"),
    "time": ("charttime", "time", "datetime", "timestamp", "measurement_datetime", "hours", "hour", "offset", "minutes",
             "observationoffset", "event_time", "taken", "collected", "recorded", "charted", "zeitpunkt", "iculos",
             "recorded_dttm", "lab_result_dttm", "abnahmezeit", "entnahme"),
    "code": ("code", "itemid", "variable", "parameter", "item", "variableid", "measurement_concept_id", "labname",
             "analyte", "name", "test", "label", "vital_category", "lab_category", "analyt", "parametername"),
    "value": ("valuenum", "numeric_value", "value_as_number", "value", "result", "labresult", "wert", "vital_value",
              "lab_value_numeric", "ergebnis"),
    "unit": ("valueuom", "unit", "units", "uom", "unit_concept_id", "labmeasurenamesystem", "einheit",
             "reference_unit"),
    "site": ("site", "hospital", "hospitalid", "hospital_id", "care_site_id"),
    "died": ("died", "hospital_expire_flag", "in_hospital_death", "death", "dead", "expired", "mortality",
             "verstorben"),
    "age": ("age", "alter"),
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
             "temperaturefahrenheit", "temperatur", "tempc"),
    "TroponinI": ("troponini", "tni"),
    "TroponinT": ("troponint", "tnt"),
    "Urine": ("urine", "urineoutput", "urineoutputfoley", "urin", "diuresis"),
    "WBC": ("wbc", "whitebloodcells", "wbcx1000", "leukocytes", "leukozyten", "wbccount"),
    "Weight": ("weight", "bodyweight", "gewicht", "weightkg"),
    "pH": ("ph", "pharterial", "arterialph"),
}  # fmt: skip
LOINC: Final[Mapping[str, str]] = {
    "8867-4": "HR", "8480-6": "SysABP", "8462-4": "DiasABP", "8478-0": "MAP", "9279-1": "RespRate", "2708-6": "SaO2",
    "59408-5": "SaO2", "8310-5": "Temp", "29463-7": "Weight", "2703-7": "PaO2", "2019-8": "PaCO2", "2744-1": "pH",
    "6768-6": "ALP", "1742-6": "ALT", "1920-8": "AST", "1751-7": "Albumin", "3094-0": "BUN", "1975-2": "Bilirubin",
    "2160-0": "Creatinine", "2345-7": "Glucose", "1963-8": "HCO3", "4544-3": "HCT", "20570-8": "HCT", "2823-3": "K",
    "2524-7": "Lactate", "2518-9": "Lactate", "2951-2": "Na", "777-3": "Platelets", "6690-2": "WBC",
    "2093-3": "Cholesterol", "19123-9": "Mg", "10839-9": "TroponinI", "6598-7": "TroponinT", "9269-2": "GCS",
    "3150-6": "FiO2",
}  # fmt: skip
_LOINC_CODE: Final = re.compile(r"(?<![\d-])\d{1,5}-\d(?![\d-])")
_FAHRENHEIT: Final = ("temperaturef", "temperaturefahrenheit", "tempf")


def plain(name: str) -> str:
    """A name without spaces, signs and case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def variable_named(name: str) -> tuple[str, str | None] | None:
    """(variable, unit that the name says) for the part of a code that is a name, or None."""
    bare = plain(name)
    if bare in _FAHRENHEIT:
        return "Temp", "degF"
    loinc = next((LOINC[code] for code in _LOINC_CODE.findall(name) if code in LOINC), None)
    if loinc is not None:
        return loinc, None
    return next(((variable, None) for variable, names in NAMES.items() if bare in names), None)


def role(names: list[str], wanted: str) -> str | None:
    """The column of `names` that likeliest plays the role."""
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in ROLES[wanted] if name in lower), None)
