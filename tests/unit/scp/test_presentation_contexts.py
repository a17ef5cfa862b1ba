from pydicom.uid import UID, UID_dictionary  # type: ignore[attr-defined]  # there, but not in its list of exports
from pynetdicom import AllStoragePresentationContexts
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES

from dicom_node.core.uid import is_uid
from dicom_node.scp.presentation_contexts import (
    TRANSFER_SYNTAXES,
    VERIFICATION,
    storage_sop_classes,
    supported_presentation_contexts,
)

# Not for data sets in a C-STORE: DICOM-RTV streams (PS3.22), MIME, XML and a file format.
ELSEWHERE = {"1.2.840.10008.1.2.7.1", "1.2.840.10008.1.2.7.2", "1.2.840.10008.1.2.7.3"}
ELSEWHERE |= {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2", "1.2.840.10008.1.20"}


def test_every_storage_sop_class_of_pynetdicom_is_accepted() -> None:
    assert {str(context.abstract_syntax) for context in AllStoragePresentationContexts} <= set(storage_sop_classes())


def test_parametric_maps_and_label_maps_and_retired_images_are_accepted() -> None:
    retired_ultrasound, parametric_map, label_map = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("6", "30", "66.7"))
    assert {retired_ultrasound, parametric_map, label_map} <= set(storage_sop_classes())


def test_objects_that_belong_to_no_study_are_not_accepted() -> None:
    classes = set(storage_sop_classes())
    assert "1.2.840.10008.5.1.4.38.1" not in classes, "hanging protocols"
    assert "1.2.840.10008.5.1.4.1.1.200.1" not in classes, "defined procedure protocols"
    assert "1.2.840.10008.1.20.1" not in classes, "storage commitment"


def test_every_transfer_syntax_of_the_dictionary_is_accepted_once() -> None:
    known = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    assert set(TRANSFER_SYNTAXES) == (known | set(ALL_TRANSFER_SYNTAXES)) - ELSEWHERE
    assert len(TRANSFER_SYNTAXES) == len(set(TRANSFER_SYNTAXES))


def test_what_loses_nothing_is_preferred_to_what_may() -> None:
    order = [UID(uid) for uid in TRANSFER_SYNTAXES]
    lossless = [n for n, uid in enumerate(order) if "Lossless" in uid.name and "Near" not in uid.name]
    lossy = [n for n, uid in enumerate(order) if uid in {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.81"}]
    assert TRANSFER_SYNTAXES[0] == "1.2.840.10008.1.2.1"
    assert max(lossless) < min(lossy)


def test_the_table_names_every_sop_class() -> None:
    table = supported_presentation_contexts()
    assert table[0].sop_class_uid == VERIFICATION
    assert len({context.sop_class_uid for context in table}) == len(table)
    assert not [context.name for context in table if is_uid(context.name)]
