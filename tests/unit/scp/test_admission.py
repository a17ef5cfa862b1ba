from dicom_node.scp.admission import Admission
from dicom_node.settings import AdmissionSettings


def test_an_empty_list_of_callers_admits_any_with_a_warning() -> None:
    admission = Admission.from_settings(AdmissionSettings())
    assert admission.calling_ae_titles == ()
    assert admission.warning is not None
    assert "calling_ae_titles" in admission.warning


def test_a_list_of_callers_needs_no_warning() -> None:
    admission = Admission.from_settings(AdmissionSettings(calling_ae_titles=(" CT1 ", "PACS")))
    assert admission.calling_ae_titles == ("CT1", "PACS")
    assert admission.warning is None
