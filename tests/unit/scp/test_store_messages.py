"""A plain C-STORE request from its fragments to its answer."""

from types import SimpleNamespace
from typing import Any, cast

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.core.status import SUCCESS
from dicom_node.reception.storage import Outcome, Storage
from dicom_node.scp.store_messages import StoreMessages
from tests.instances import ct_instance, received
from tests.rude_peer import CT_CONTEXT, whole


class Keeping:
    """Storage that keeps whatever comes."""

    def stores(self, _sop_class_uid: str) -> bool:
        return True

    def begin(self, *_announced: object) -> Any:
        return SimpleNamespace(write=lambda _piece: None, finish=lambda: Outcome(SUCCESS), discard=lambda: None)


def test_a_sender_is_not_called_silent_before_its_answer_is_on_the_way() -> None:
    context = build_context(CTImageStorage, ExplicitVRLittleEndian)
    association = SimpleNamespace(
        _accepted_cx={CT_CONTEXT: context},
        requestor=SimpleNamespace(ae_title="SCANNER", primitive=SimpleNamespace(called_ae_title="TRIAGE")),
        dimse=SimpleNamespace(maximum_pdu_size=16384),
    )
    waits: list[bool] = []
    messages: StoreMessages

    def answer(_pdus: bytes) -> None:
        # From here on the time of its silence begins anew.
        waits.append(messages.is_keeping)

    messages = StoreMessages(cast(Association, association), cast(Storage, Keeping()), answer)
    request = whole(received(ct_instance()))
    at = 0
    while not waits:
        at += messages.take(memoryview(request)[at:]).used
    assert waits == [True]
    assert not messages.is_keeping
