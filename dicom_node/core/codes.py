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
NOT_ALL_SUCCEEDED_WITHOUT_FINDINGS = Code("111243", "DCM", "Not all algorithms succeeded; without findings")
NOT_ALL_SUCCEEDED_WITH_FINDINGS = Code("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_SUCCEEDED = Code("111245", "DCM", "No algorithms succeeded; without findings")

# What the images were good for (CID 7036).
DIAGNOSTIC_QUALITY = Code("RID12", "RADLEX", "Diagnostic quality")
LIMITED_QUALITY = Code("RID13", "RADLEX", "Limited quality")
NON_DIAGNOSTIC_QUALITY = Code("RID14", "RADLEX", "Non-diagnostic quality")

# What a nodule is like: composition by RadLex, in no context group of the standard; margins of CID 6119 and 6120.
SOLID = Code("RID5741", "RADLEX", "Solid")
PARTIALLY_SOLID = Code("RID46011", "RADLEX", "Partially solid")
NON_SOLID = Code("RID46016", "RADLEX", "Non-solid")
SPICULATED = Code("112136", "DCM", "Spiculated")
LOBULATED = Code("112135", "DCM", "Lobulated")
CIRCUMSCRIBED = Code("263706005", "SCT", "Circumscribed")
POORLY_DEFINED = Code("300841009", "SCT", "Poorly defined")

# Lung-RADS by RadLex, in no context group of the standard. 4X and S are a reader's, and not here.
LUNG_RADS_2 = Code("RID50137", "RADLEX", "Lung-RADS 2")
LUNG_RADS_3 = Code("RID50138", "RADLEX", "Lung-RADS 3")
LUNG_RADS_4A = Code("RID50139", "RADLEX", "Lung-RADS 4A")
LUNG_RADS_4B = Code("RID50140", "RADLEX", "Lung-RADS 4B")

# How urgent it is (CID 7035).
ACTIONABLE_CATEGORY_1 = Code("RID49480", "RADLEX", "ACR Category 1 Actionable Finding")
ACTIONABLE_CATEGORY_2 = Code("RID49481", "RADLEX", "ACR Category 2 Actionable Finding")
ACTIONABLE_CATEGORY_3 = Code("RID49482", "RADLEX", "ACR Category 3 Actionable Finding")

# What a lung report reports (CID 100 extended by LOINC), and under which title (CID 7021).
CT_CHEST = Code("24627-2", "LN", "CT Chest")
CHEST_RADIOGRAPH = Code("399208008", "SCT", "Plain chest X-ray")
COMPUTED_TOMOGRAPHY = Code("77477000", "SCT", "Computed tomography")
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
FINDING = Code("121071", "DCM", "Finding")
IMAGE_QUALITY = Code("130550", "DCM", "Imaging Series Quality")
RECOMMENDATION = Code("121075", "DCM", "Recommendation")
RECOMMENDED_INTERVAL = Code("111055", "DCM", "Recommended Follow-up Interval")
COMPOSITION = Code("RID46010", "RADLEX", "Composition")
MARGINS = Code("111037", "DCM", "Margins")
LUNG_RADS_ASSESSMENT = Code("RID50134", "RADLEX", "Lung-RADS assessment")
LATERALITY = Code("272741003", "SCT", "Laterality")

# What became of it since an earlier study (CID 6134), and where that is told (CID 3407).
INCREASE_IN_SIZE = Code("15454001", "SCT", "Increase in size")
DECREASE_IN_SIZE = Code("19776001", "SCT", "Decrease in size")
NO_SIGNIFICANT_CHANGE = Code("129723006", "SCT", "No significant changes in the finding")
PRIOR_REPORT = Code("122075", "DCM", "Prior report for current patient")
# Ours: the standard names no item for these, and its word for what is new is of mammograms.
CHANGE = Code("change", "99DICOMNODE", "Change since prior study")
NEW_FINDING = Code("new", "99DICOMNODE", "Not marked in prior study")
COMPARABILITY = Code("comparability", "99DICOMNODE", "Comparability with prior study")
MEASURED_OTHERWISE = Code("measured-unlike", "99DICOMNODE", "Measured otherwise in prior study")
CONTRAST_OTHERWISE = Code("contrast-unlike", "99DICOMNODE", "Contrast agent given in one of both studies alone")
PRIOR_DIAMETER = Code("prior-diameter", "99DICOMNODE", "Diameter in prior study")
PRIOR_VOLUME = Code("prior-volume", "99DICOMNODE", "Volume in prior study")
DIAMETER_CHANGE = Code("diameter-change", "99DICOMNODE", "Change of diameter since prior study")
VOLUME_CHANGE = Code("volume-change", "99DICOMNODE", "Change of volume since prior study")
DOUBLING_TIME = Code("doubling-time", "99DICOMNODE", "Volume doubling time")
DAYS_SINCE_PRIOR = Code("days-since-prior", "99DICOMNODE", "Time since prior study")

# Why what was sent before is not to be used (CID 7010, of rejection notes).
REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
REJECTED_FOR_SAFETY = Code("113037", "DCM", "Rejected for Patient Safety Reasons")

# What is measured (CID 7469, CID 6048), and how it was derived (CID 7464).
LONG_AXIS = Code("103339001", "SCT", "Long axis")
SHORT_AXIS = Code("103340004", "SCT", "Short axis")
DIAMETER = Code("81827009", "SCT", "Diameter")
MAXIMUM_3D_DIAMETER = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")
VOLUME = Code("118565006", "SCT", "Volume")
AREA = Code("42798000", "SCT", "Area")
ATTENUATION_COEFFICIENT = Code("112031", "DCM", "Attenuation Coefficient")
CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")
MEAN = Code("373098007", "SCT", "Mean")
#: CID 7474.
SUM_OF_VOXELS = Code("126030", "DCM", "Sum of segmented voxel method for volume")
# Ours: the standard has none for what tells where a finding ends between its voxels, nor for a part of one.
PARTIAL_VOLUME = Code("partial-volume", "99DICOMNODE", "Sum of voxels by how much of each is filled, by attenuation")
FILLED_BORDER = Code("filled-border", "99DICOMNODE", "Border around as much as voxels are filled, by attenuation")
SMOOTHED_BORDER = Code("smoothed-border", "99DICOMNODE", "Half way between voxels, steps smoothed at equal volume")
VOXEL_BORDER = Code("voxel-border", "99DICOMNODE", "Half way between voxels")
SOLID_DIAMETER = Code("solid-diameter", "99DICOMNODE", "Diameter of solid part")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")

# In which unit (UCUM).
MILLIMETRE = Code("mm", "UCUM", "mm")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "square millimeter")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
HOUNSFIELD_UNIT = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "Percent")
MONTH = Code("mo", "UCUM", "month")
DAY = Code("d", "UCUM", "day")

# What an image was made of (CID 7202).
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

# Who contributed (CID 7005), and what kind of algorithm it is (CID 7162).
ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
