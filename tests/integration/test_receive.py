"""The receive path over real sockets: what is answered, what is kept, and what of it is there already."""

import logging
import socket
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)
from pynetdicom.presentation import build_context

from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID
from dicom_node.settings import NodeSettings
from tests.instances import ct_instance, encoded, files_below, received, sop_uid, write_instance
from tests.receivers import (
    Dcmtk,
    Receiver,
    answers,
    associated,
    c_store,
    eventually,
    send,
)

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"

# pydicom says what is odd about a data set; some odd ones are sent here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def test_an_echo_is_answered_and_leaves_no_trace(receiver: Receiver, dcmtk: Dcmtk) -> None:
    answer = dcmtk("echoscu", "-aec", "TRIAGE", "127.0.0.1", receiver.entity.port)
    assert answer.returncode == 0, answer.stderr
    assert receiver.index.studies.rows() == []


def test_our_answer_names_this_software(receiver: Receiver) -> None:
    with associated(receiver.entity) as association:
        assert association.acceptor.implementation_class_uid == IMPLEMENTATION_CLASS_UID
        assert association.acceptor.maximum_length == NodeSettings().maximum_pdu_bytes


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux can be told to acknowledge at once")
def test_a_sender_that_writes_in_two_pieces_does_not_wait_for_an_acknowledgement(receiver: Receiver) -> None:
    # Such as DCMTK's: 40 ms an instance, however fast the disk.
    with associated(receiver.entity) as association:
        c_store(association, received(ct_instance()))
        (ours,) = receiver.entity._ae.active_associations
        assert ours.dul.socket is not None
        connection = ours.dul.socket.socket
        assert connection is not None
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_dcmtk_stores_a_study(receiver: Receiver, tmp_path: Path, dcmtk: Dcmtk, tool: str) -> None:
    paths = [write_instance(tmp_path / f"{n}.dcm", ct_instance(n)) for n in range(1, 6)]
    answer = dcmtk(tool, "-aec", "TRIAGE", "127.0.0.1", receiver.entity.port, *paths)
    assert answer.returncode == 0, answer.stderr
    assert [len(receiver.kept(sop_uid(n))) for n in range(1, 6)] == [1] * 5
    # The sender may have gone before the index has noted that.
    assert eventually(lambda: receiver.endings() == [(0, 0)])


def test_parametric_maps_label_maps_and_retired_classes_are_stored(receiver: Receiver) -> None:
    classes = [f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("30", "66.7", "6", "8")]
    assert send(receiver.entity, *(ct_instance(n, SOPClassUID=uid) for n, uid in enumerate(classes))) == [0x0000] * 4


def test_of_several_transfer_syntaxes_one_that_loses_nothing_is_taken(receiver: Receiver) -> None:
    lossy_first = [JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless]
    contexts = [
        build_context(CTImageStorage, syntaxes) for syntaxes in (lossy_first, [*lossy_first, ImplicitVRLittleEndian])
    ]
    with associated(receiver.entity, *contexts) as association:
        chosen = [context.transfer_syntax for context in association.accepted_contexts]
    assert chosen == [[JPEGLSLossless], [ImplicitVRLittleEndian]]


def test_a_second_identical_instance_is_a_success_that_changes_nothing(receiver: Receiver) -> None:
    assert send(receiver.entity, ct_instance(), ct_instance()) == [0x0000, 0x0000]
    assert send(receiver.entity, ct_instance()) == [0x0000]
    assert receiver.kept(sop_uid(1)) == [encoded(ct_instance())]
    assert len(files_below(receiver.root)) == 1


def test_other_content_under_the_same_uid_is_kept_beside_the_first(receiver: Receiver) -> None:
    other = ct_instance(SeriesDescription="OTHER")
    assert send(receiver.entity, ct_instance(), other) == [0x0000, 0x0000]
    assert receiver.kept(sop_uid(1)) == [encoded(ct_instance()), encoded(other)]
    assert receiver.index.studies.rows()[0].conflicts == 1


@pytest.mark.parametrize(
    ("attributes", "announced", "status", "comment"),
    [
        ({}, {"sop_instance_uid": sop_uid(9)}, 0xA900, "SOP Instance UID of data set and command differ"),
        ({"SOPClassUID": MR_IMAGE}, {"sop_class_uid": CTImageStorage}, 0xA900, "SOP Class UID of data set"),
        ({"StudyInstanceUID": "../../../tmp/evil"}, {}, 0xC000, "Study Instance UID is no UID"),
        ({"SeriesInstanceUID": "Secret^Patient"}, {}, 0xC000, "Series Instance UID is no UID"),
        ({"StudyInstanceUID": None}, {}, 0xC000, "Study Instance UID is missing"),
        ({"SOPInstanceUID": "../../Secret"}, {}, 0xC000, "Affected SOP Instance UID is no UID"),
        ({}, {"data_set": BytesIO(b"this is no data set")}, 0xC000, "Study Instance UID is missing"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # that is what is tested
def test_what_cannot_be_kept_is_refused_by_name_and_the_next_one_still_works(
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    attributes: dict[str, str | None],
    announced: dict[str, Any],
    status: int,
    comment: str,
) -> None:
    bad = received(ct_instance(**attributes), **announced)
    with caplog.at_level(logging.INFO, logger="dicom_node"):
        refused, taken = answers(receiver.entity, bad, received(ct_instance(2)))
    assert (refused.Status, taken.Status) == (status, 0x0000)
    assert str(refused.ErrorComment).startswith(comment)
    assert "Secret" not in str(refused.ErrorComment) + repr([record.__dict__ for record in caplog.records])
    assert len(files_below(receiver.root)) == 1


def test_a_sop_class_that_is_not_its_contexts_is_refused(receiver: Receiver) -> None:
    with associated(receiver.entity, build_context(MR_IMAGE, ExplicitVRLittleEndian)) as association:
        assert c_store(association, received(ct_instance()), context_class=MR_IMAGE).Status == 0x0122
    assert files_below(receiver.root) == []


def test_ten_senders_at_once_lose_nothing(receiver: Receiver) -> None:
    statuses: list[int] = []

    def sender(number: int) -> None:
        instances = [ct_instance(100 * number + n, SeriesInstanceUID=f"1.2.{number}") for n in range(5)]
        statuses.extend(send(receiver.entity, *instances))

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0x0000] * 50
    assert receiver.index.studies.rows()[0].instances == 50
    assert len(files_below(receiver.root)) == 50
