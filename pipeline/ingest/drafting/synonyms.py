"""Names by which charts call the variables of the base mapping, and columns their roles: for drafts only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.ingest.mapping.named_units import without_units

ROLES: Final[Mapping[str, tuple[str, ...]]] = {  # role -> column names without signs and case, the likeliest first
    "stay": ("stayid", "icustayid", "patientunitstayid", "visitdetailid", "admissionid", "encounterid", "stay",
             "encounter", "visitoccurrenceid", "visitid", "case", "caseid", "fallnummer", "fallnr", "fallid", "fall",
             "aufenthaltsid", "hadmid", "hospitalizationid", "icuid", "sejour", "numerosejour"),
    "subject": ("subjectid", "patientid", "personid", "uniquepid", "subject", "patient", "person", "mrn", "pid",
                "patientnummer", "patientennummer", "patientennr", "patnr", "patientnr", "patid", "patientenid",
                "pseudonym", "ipp"),
    "start": ("intime", "starttime", "admittime", "admissiontime", "admitted", "admission", "visitdetailstartdatetime",
              "visitstartdatetime", "begin", "start", "startdttm", "indttm", "admissiondttm", "aufnahme",
              "aufnahmezeit", "aufnahmezeitpunkt", "aufnahmedatum", "beginn", "icuin", "visitdetailstartdate",
              "visitstartdate", "entree"),
    "end": ("outtime", "endtime", "dischtime", "dischargetime", "discharged", "discharge", "visitdetailenddatetime",
            "visitenddatetime", "end", "enddttm", "outdttm", "dischargedttm", "entlassung", "entlassungszeit",
            "entlassungszeitpunkt", "entlassungsdatum", "entlassdatum", "ende", "icuout", "visitdetailenddate",
            "visitenddate", "sortie"),
    "time": ("charttime", "time", "datetime", "timestamp", "measurementdatetime", "hours", "hour", "offset", "minutes",
             "observationoffset", "eventtime", "taken", "collected", "recorded", "charted", "zeitpunkt", "iculos",
             "recordeddttm", "labcollectdttm", "labresultdttm", "abnahmezeit", "abnahmezeitpunkt", "entnahme",
             "entnahmezeit", "entnahmezeitpunkt", "messzeitpunkt", "messzeit", "probenzeitpunkt", "resulttime",
             "observationdatetime", "measurementtime", "abnahmedatum", "entnahmedatum", "measurementdate", "datum",
             "date", "day"),
    "available": ("storetime", "labresultdttm", "resulttime", "resultdttm", "resultdatetime", "verified", "validated",
                  "befundzeit", "befundzeitpunkt", "validiert", "freigabe", "freigabezeit", "verifytime"),
    "clock": ("uhrzeit", "abnahmeuhrzeit", "timeofday", "clock", "zeit", "time", "measurementtime"),
    "code": ("code", "itemid", "variable", "parameter", "item", "variableid", "measurementconceptid", "labname",
             "analyte", "name", "test", "label", "vitalcategory", "labcategory", "analyt", "parametername", "analyse",
             "untersuchung", "bezeichnung", "messgroesse", "kuerzel", "testname", "loinc", "observationconceptid"),
    "value": ("valuenum", "numericvalue", "valueasnumber", "value", "result", "labresult", "wert", "vitalvalue",
              "labvaluenumeric", "ergebnis", "messwert", "resultat", "ergebniswert", "labvalue", "valeur"),
    "unit": ("valueuom", "unit", "units", "uom", "unitconceptid", "labmeasurenamesystem", "einheit", "referenceunit",
             "masseinheit", "unitsourcevalue", "unite"),
    "site": ("site", "hospital", "hospitalid", "caresiteid", "standort"),
    "ward": ("locationcategory", "careunit", "ward", "station", "unittype", "wardtype"),
    "died": ("died", "hospitalexpireflag", "inhospitaldeath", "death", "dead", "expired", "mortality", "verstorben",
             "gestorben", "hospitaldeath", "icudeath", "outcome", "label", "decede"),
    "left": ("dischargecategory", "dischargestatus", "hospitaldischargestatus", "dischargedisposition", "entlassart",
             "entlassungsart", "entlassungsgrund"),
    "death": ("dod", "deathtime", "deathdttm", "deathdatetime", "deathdate", "dateofdeath", "todesdatum",
              "sterbedatum", "todeszeitpunkt"),
    "age": ("age", "ageatadmission", "alter", "admissionage"),
    "born": ("birthdate", "dob", "dateofbirth", "birthyear", "yearofbirth", "geburtsdatum", "geburtsjahr",
             "birthdatetime", "gebdatum"),
    "sex": ("sex", "gender", "geschlecht", "sexcategory", "genderconceptid", "sexe"),
    "height": ("height", "heightcm", "groesse", "koerpergroesse", "admissionheight"),
    "los": ("loshours", "hoursofstay"),
    "meaning": ("label", "description", "conceptname", "name", "bezeichnung", "parametername"),
}  # fmt: skip
SEXES: Final[Mapping[str, float]] = {  # texts without case -> 0 female, 1 male
    "f": 0, "female": 0, "w": 0, "weiblich": 0, "femme": 0, "8532": 0,
    "m": 1, "male": 1, "maennlich": 1, "männlich": 1, "homme": 1, "8507": 1,
}  # fmt: skip
DEATHS: Final = re.compile(r"expired|dead|died|deceas|verstorben|gestorben|exitus|tod\b|décéd|deced", re.IGNORECASE)
CRITICAL_WARDS: Final = re.compile(r"icu|intensiv|critical|\bits\b|réanimation", re.IGNORECASE)
NAMES: Final[Mapping[str, tuple[str, ...]]] = {  # variable -> names without spaces, signs and case
    "ALP": ("alp", "alkalinephosphatase", "alkalinephos", "alkalinephosphate", "alkalischephosphatase"),
    "ALT": ("alt", "altsgpt", "alanineaminotransferase", "sgpt", "gpt", "alat", "gptalat", "alatgpt"),
    "AST": ("ast", "astsgot", "aspartateaminotransferase", "sgot", "got", "asat", "gotasat", "asatgot"),
    "Albumin": ("albumin", "alb"),
    "BUN": ("bun", "ureanitrogen", "bloodureanitrogen", "harnstoffn", "harnstoffstickstoff"),
    "Bilirubin": ("bilirubin", "bilirubintotal", "totalbilirubin", "bili", "bilirubingesamt", "gesamtbilirubin",
                  "bilirubinges", "bilirubintotale"),
    "Cholesterol": ("cholesterol", "totalcholesterol", "cholesterin"),
    "Creatinine": ("creatinine", "crea", "creat", "kreatinin", "krea", "kreat", "kreatininserum", "creatinineserum"),
    "DiasABP": ("diasabp", "dbp", "abpd", "diastolicbloodpressure", "arterialbloodpressurediastolic", "diastolicbp",
                "rrdia", "rrdiastolisch"),
    "FiO2": ("fio2", "fio2set", "inspiredo2fraction", "inspiredoxygen"),
    "GCS": ("gcs", "gcstotal", "glasgowcomascale", "glasgowcomascore", "tgcs"),
    "Glucose": ("glucose", "glu", "bloodglucose", "gluc", "glukose", "glucoseserum", "blutzucker", "bz", "glycemie"),
    "HCO3": ("hco3", "bicarbonate", "bicarb", "bicar", "bikarbonat", "standardbikarbonat"),
    "HCT": ("hct", "hematocrit", "haematocrit", "haematokrit", "hkt", "hematocrite"),
    "HR": ("hr", "heartrate", "pulse", "pulserate", "herzfrequenz", "puls", "hf"),
    "K": ("k", "potassium", "kalium"),
    "Lactate": ("lactate", "lact", "lactat", "laktat", "lac"),
    "Mg": ("mg", "magnesium"),
    "MAP": ("map", "mbp", "meanarterialpressure", "meanbloodpressure", "abpm", "arterialbloodpressuremean", "meanbp",
            "mad"),
    "MechVent": ("mechvent", "ventilated", "mechanicalventilation"),
    "Na": ("na", "sodium", "natrium"),
    "NIDiasABP": ("nidiasabp", "nbpd", "noninvasivediastolic", "noninvasivebloodpressurediastolic"),
    "NIMAP": ("nimap", "nbpm", "noninvasivemean", "noninvasivebloodpressuremean"),
    "NISysABP": ("nisysabp", "nbps", "noninvasivesystolic", "noninvasivebloodpressuresystolic"),
    "PaCO2": ("paco2", "pco2", "arterialco2pressure", "pco2arterial"),
    "PaO2": ("pao2", "po2", "arterialo2pressure", "po2arterial"),
    "Platelets": ("platelets", "plt", "plateletcount", "plateletsx1000", "thrombocytes", "thrombozyten", "plaquettes"),
    "RespRate": ("resprate", "resp", "rr", "respiratoryrate", "respiration", "atemfrequenz", "af"),
    "SaO2": ("sao2", "spo2", "o2sat", "oxygensaturation", "o2saturationpulseoxymetry", "sauerstoffsaettigung"),
    "SysABP": ("sysabp", "sbp", "abps", "systolicbloodpressure", "arterialbloodpressuresystolic", "systolicbp",
               "rrsys", "rrsystolisch"),
    "Temp": ("temp", "temperature", "bodytemperature", "temperaturec", "temperaturecelsius", "temperaturef",
             "temperaturefahrenheit", "temperatur", "tempc", "tempf", "koerpertemperatur"),
    "TroponinI": ("troponini", "tni"),
    "TroponinT": ("troponint", "tnt", "hstnt", "troponinths"),
    "Urine": ("urine", "urineoutput", "urineoutputfoley", "urin", "diuresis", "urinausfuhr"),
    "WBC": ("wbc", "whitebloodcells", "wbcx1000", "leukocytes", "leukozyten", "wbccount", "leuko", "leucocytes"),
    "Weight": ("weight", "bodyweight", "gewicht", "weightkg", "koerpergewicht"),
    "pH": ("ph", "pharterial", "arterialph", "phwert"),
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
_LETTERS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "\u00b5": "u", "\u03bc": "u"})
_FAHRENHEIT: Final = ("temperaturef", "temperaturefahrenheit", "tempf")


def plain(name: str) -> str:
    """A name without spaces, signs and case, and with the letters of English alone."""
    text = name.lower().translate(_LETTERS)
    text = "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))
    return re.sub(r"[^a-z0-9]", "", text)


def variable_named(name: str) -> tuple[str, str | None] | None:
    """(variable, unit that the name says) for the part of a code that is a name, or None."""
    if plain(name) in _FAHRENHEIT:
        return "Temp", "degF"
    loinc = next((LOINC[code] for code in _LOINC_CODE.findall(name) if code in LOINC), None)
    if loinc is not None:
        return loinc, None
    bare = [plain(text) for text in without_units(name)]
    return next(((variable, None) for text in bare for variable, names in NAMES.items() if text in names), None)


def roles(names: Iterable[str], wanted: str) -> list[str]:
    """The columns of `names` that may play the role, the likeliest first."""
    there = {plain(name): name for name in reversed(list(names))}
    return [there[name] for name in ROLES[wanted] if name in there]


def role(names: Iterable[str], wanted: str) -> str | None:
    """The column of `names` that likeliest plays the role."""
    return next(iter(roles(names, wanted)), None)
