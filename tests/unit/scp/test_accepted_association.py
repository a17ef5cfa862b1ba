"""What follows the answer to a request follows that one's alone."""

import threading
from typing import Any, cast

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO

from dicom_node.reception.storage import Storage
from dicom_node.scp.accepted_association import AcceptedAssociation
from dicom_node.scp.open_associations import OpenAssociations

SECONDS = 10.0


def test_a_request_in_another_thread_leaves_alone_what_follows_this_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    begun, may_end = threading.Event(), threading.Event()

    def serve(association: Any, _msg: object, context_id: int) -> None:
        association.after_answer(lambda: done.append(f"after {context_id}"))
        if context_id == 1:
            begun.set()
            assert may_end.wait(SECONDS)
        done.append(f"answer {context_id}")

    monkeypatch.setattr(Association, "_serve_request", serve)
    association = AcceptedAssociation(AE(), cast(Storage, None), cast(OpenAssociations, None))
    first = threading.Thread(target=association._serve_request, args=(C_ECHO(), 1))
    first.start()
    assert begun.wait(SECONDS)
    association._serve_request(C_ECHO(), 3)
    may_end.set()
    first.join(SECONDS)
    assert done == ["answer 3", "after 3", "answer 1", "after 1"]
