"""Whatever the index cannot do for a sender is an answer that it may try again."""

from collections.abc import Callable
from io import BytesIO
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContextTuple

from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.reception.watermark import DiskWatermark
from dicom_node.scp.handlers import Handlers


class Locked:
    """A reception whose index does not answer at one of its steps."""

    def __init__(self, step: str) -> None:
        self._step = step

    def store(self, _received: ReceivedInstance) -> None:
        self._answer("store")

    def association_opened(self, _association_id: str, _calling_ae_title: str) -> None:
        self._answer("association_opened")

    def association_ended(self, _association_id: str, _ending: str) -> None:
        self._answer("association_ended")

    def free_bytes(self) -> int:
        return 10**12

    def _answer(self, step: str) -> None:
        if step == self._step:
            raise IndexUnavailable("the index does not answer (OperationalError)")


class Side(SimpleNamespace):
    """A stand-in that can be a key, as an association is."""

    __hash__ = object.__hash__


def storing() -> Event:
    """A C-STORE request as pynetdicom hands it on."""
    request = C_STORE()
    request.AffectedSOPClassUID = CTImageStorage
    request.AffectedSOPInstanceUID = UID("1.2.3")
    request.DataSet = BytesIO(b"")
    requestor = SimpleNamespace(ae_title="SCANNER", primitive=SimpleNamespace(called_ae_title="TRIAGE"))
    association = Side(requestor=requestor, acceptor=SimpleNamespace(primitive=None))
    context = PresentationContextTuple(1, CTImageStorage, ExplicitVRLittleEndian)
    return Event(cast(Association, association), evt.EVT_C_STORE, {"request": request, "context": context})


@pytest.mark.parametrize("step", ["association_opened", "store"])
def test_an_index_that_does_not_answer_is_out_of_resources(step: str) -> None:
    answer = Handlers(Locked(step), DiskWatermark(1)).store(storing())
    assert isinstance(answer, Dataset)
    assert (answer.Status, answer.ErrorComment) == (0xA700, "the index does not answer (OperationalError)")


def test_an_index_that_answers_lets_the_instance_in() -> None:
    assert Handlers(Locked("nowhere"), DiskWatermark(1)).store(storing()) == 0x0000


@pytest.mark.parametrize(
    ("handlers", "told"),
    [
        (lambda counted: Handlers(Locked("store"), DiskWatermark(1), counted), [("instance", "OutOfResources")]),
        (lambda counted: Handlers(Locked("nowhere"), DiskWatermark(10**9), counted), [("instance", "OutOfResources")]),
        (lambda counted: Handlers(Locked("nowhere"), DiskWatermark(1), counted), []),
    ],
)
def test_each_refusal_is_counted_by_its_reason(
    handlers: Callable[[Callable[[str, str], None]], Handlers], told: list[tuple[str, str]]
) -> None:
    heard: list[tuple[str, str]] = []
    handlers(lambda what, reason: heard.append((what, reason))).store(storing())
    assert heard == told


def test_a_rejected_association_is_counted_by_the_reason_that_its_caller_is_told() -> None:
    heard: list[tuple[str, str]] = []
    event = storing()
    event.assoc.requestor.primitive = SimpleNamespace(calling_ae_title="X", called_ae_title="Y")
    event.assoc.acceptor.primitive = SimpleNamespace(reason_str="Calling AE title not recognised")
    Handlers(Locked("nowhere"), DiskWatermark(1), lambda *told: heard.append(told)).rejected(event)
    assert heard == [("association", "Calling AE title not recognised")]
