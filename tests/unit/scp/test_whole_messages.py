"""A message with a data set goes out in one piece, whoever else sends on its association."""

from io import BytesIO
from types import SimpleNamespace
from typing import cast

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]  # made at run time

from dicom_node.scp.p_data import Cutter
from dicom_node.scp.whole_messages import WholeMessages


def test_a_response_with_a_data_set_is_handed_on_once_and_whole() -> None:
    attributes = Dataset()
    attributes.AffectedSOPInstanceUID = UID("2.25.1")
    response = N_CREATE()
    response.MessageIDBeingRespondedTo, response.Status = 7, 0x0000
    response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = ModalityPerformedProcedureStep, UID("2.25.1")
    response.AttributeList = BytesIO(cast(bytes, encode(attributes, True, True)))
    sent: list[bytes] = []
    requestor = SimpleNamespace(maximum_length=64)
    association = SimpleNamespace(is_acceptor=True, is_requestor=False, requestor=requestor, dul=None)
    WholeMessages(cast(Association, association), sent.append).send_msg(response, 3)
    (pdus,) = sent
    cutter, view, pieces = Cutter(), memoryview(pdus), []
    while view:
        used, piece = cutter.cut(view)
        view = view[used:]
        assert piece is not None
        pieces.append((piece.context_id, piece.is_command, piece.is_end))
        assert len(piece.data) <= 64
    assert {context for context, _, _ in pieces} == {3}
    assert [is_command for _, is_command, is_end in pieces if is_end] == [True, False]
