"""Instance: a SOP instance with what all of a report have in common, for kinds that the writing library has none of.

Of those that it knows it looks up in tables of the whole standard what is the same for every report.
"""

from highdicom.base import SOPClass
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from workers.reporting.equipment import acquisition_equipment, contributing_equipment
from workers.reporting.evidence import Evidence, blank_patient


class Instance(SOPClass):
    """An object of a report: its class and UIDs, series, equipment and times, the patient and the study."""

    def __init__(
        self,
        evidence: Evidence,
        *,
        sop_class_uid: str,
        modality: str,
        sop_instance_uid: str,
        series_instance_uid: str,
        series_number: int,
        of: str = "",
    ) -> None:
        """`of` says what of the algorithm's work stands in the series; empty for its reports."""
        Dataset.__init__(self)
        self.file_meta = FileMetaDataset()
        self.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        self.update(blank_patient())
        self.SOPClassUID, self.SOPInstanceUID = sop_class_uid, sop_instance_uid
        self.StudyInstanceUID, self.SeriesInstanceUID = evidence.volume.study_instance_uid, series_instance_uid
        self.SeriesNumber, self.Modality = series_number, modality
        for name, value in evidence.header_attributes(of).items():
            setattr(self, name.title().replace("_", ""), value)
        evidence.complete(self)
        acquired = acquisition_equipment(evidence)
        own = contributing_equipment(evidence)
        self.ContributingEquipmentSequence = [own] if acquired is None else [acquired, own]
