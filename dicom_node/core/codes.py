"""Coded concepts of our reports, one table (PS3.16); values looked up in the standard's context groups."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One coded entry (PS3.3 Section 8.8)."""

    value: str
    scheme: str
    meaning: str


# What is found, and where (CID 6104, 7150, 6170, 244).
NODULE = Code("27925004", "SCT", "Nodule")
MORPHOLOGICALLY_ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
LUNG = Code("39607008", "SCT", "Lung")
RIGHT = Code("24028007", "SCT", "Right")
LEFT = Code("7771000", "SCT", "Left")

# How the processing went (CID 6047).
ALL_SUCCEEDED_WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
ALL_SUCCEEDED_WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")

# How urgent it is (CID 7035).
ACTIONABLE_CATEGORY_1 = Code("RID49480", "RADLEX", "ACR Category 1 Actionable Finding")
ACTIONABLE_CATEGORY_2 = Code("RID49481", "RADLEX", "ACR Category 2 Actionable Finding")
ACTIONABLE_CATEGORY_3 = Code("RID49482", "RADLEX", "ACR Category 3 Actionable Finding")

# What a lung report reports (CID 100 extended by LOINC), and under which title (CID 7021).
CT_CHEST = Code("24627-2", "LN", "CT Chest")
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
ONCOLOGY_MEASUREMENT_REPORT = Code("126001", "DCM", "Oncology Measurement Report")

# Why objects were selected (CID 7010).
OF_INTEREST = Code("113000", "DCM", "Of Interest")

# Parts of a measurement report (TID 1500).
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
PROCESSING_SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
#: As the name of an item it is our convention; CID 7001 lists it as a kind of communication.
COMMUNICATION_OF_CRITICAL_RESULTS = Code("73568-8", "LN", "Communication of Critical Results")
COMMENT = Code("121106", "DCM", "Comment")
LATERALITY = Code("272741003", "SCT", "Laterality")

# What is measured (CID 7469, CID 6048), and how it was derived (CID 7464).
LONG_AXIS = Code("103339001", "SCT", "Long axis")
SHORT_AXIS = Code("103340004", "SCT", "Short axis")
DIAMETER = Code("81827009", "SCT", "Diameter")
MAXIMUM_3D_DIAMETER = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")
VOLUME = Code("118565006", "SCT", "Volume")
AREA = Code("42798000", "SCT", "Area")
ATTENUATION_COEFFICIENT = Code("112031", "DCM", "Attenuation Coefficient")
CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
MEAN = Code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")

# In which unit (UCUM).
MILLIMETRE = Code("mm", "UCUM", "mm")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "square millimeter")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
HOUNSFIELD_UNIT = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "Percent")

# What an image was made of (CID 7202).
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

# Who contributed (CID 7005), and what kind of algorithm it is (CID 7162).
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
