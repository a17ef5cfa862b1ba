"""Who is let in, and how many at once, over real sockets."""

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicom_node.scp.application_entity import ApplicationEntity
from tests.instances import ct_instance, received, write_instance
from tests.receivers import SECONDS, Dcmtk, associated, c_store, eventually, receiving, send

# pydicom says what is odd about a data set; some odd ones are sent here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def test_a_caller_that_is_not_on_the_list_is_rejected(tmp_path: Path, dcmtk: Dcmtk) -> None:
    with receiving(tmp_path, calling_ae_titles=("CT1", "PACS")) as receiver:
        with associated(receiver.entity, calling="STRANGER") as association:
            assert association.is_rejected
            answer = association.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 3)
        with associated(receiver.entity, calling="CT1") as association:
            assert association.is_established
        source = write_instance(tmp_path / "1.dcm", ct_instance())
        said = dcmtk("storescu", "-aec", "TRIAGE", "-aet", "STRANGER", "127.0.0.1", receiver.entity.port, source)
        assert said.returncode != 0
        assert "Calling AE Title Not Recognized" in said.stderr


def test_a_call_for_another_title_is_rejected_unless_the_settings_allow_it(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver, associated(receiver.entity, called="OTHER") as association:
        assert association.is_rejected
        answer = association.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 7)
    (tmp_path / "open").mkdir()
    anyone = receiving(tmp_path / "open", called_ae_title_must_match=False)
    with anyone as receiver, associated(receiver.entity, called="OTHER") as association:
        assert association.is_established


def test_one_association_too_many_is_rejected_for_now(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_associations=1) as receiver, associated(receiver.entity) as first:
        with associated(receiver.entity) as second:
            assert second.is_rejected
            answer = second.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        assert c_store(first, received(ct_instance())).Status == 0x0000


def test_silent_connections_keep_no_peer_out_and_are_ended_when_there_are_too_many(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_associations=2) as receiver, ExitStack() as stack:
        place = ("127.0.0.1", receiver.entity.port)
        silent = [stack.enter_context(socket.create_connection(place, timeout=SECONDS)) for _ in range(16)]
        time.sleep(0.3)
        assert send(receiver.entity, ct_instance()) == [0x0000]
        for number in range(17, 20):
            stack.enter_context(socket.create_connection(place, timeout=SECONDS))
            assert silent[number - 17].recv(1) == b"", "the oldest has made room"
        assert send(receiver.entity, ct_instance(2)) == [0x0000]


def test_a_connection_that_only_opens_and_closes_is_forgotten_at_once(tmp_path: Path) -> None:
    with receiving(tmp_path, acse=30.0) as receiver:
        for _ in range(5):
            socket.create_connection(("127.0.0.1", receiver.entity.port), timeout=SECONDS).close()
        assert eventually(lambda: receiver.entity._ae.active_associations == [])


def test_one_peer_alone_takes_no_more_than_its_share(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_associations_per_peer=1) as receiver, associated(receiver.entity) as first:
        with associated(receiver.entity) as second:
            assert second.is_rejected
            answer = second.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        with associated(receiver.entity, calling="OTHER") as third:
            assert third.is_established
        assert c_store(first, received(ct_instance())).Status == 0x0000
        first.release()
        assert eventually(lambda: is_let_in(receiver.entity))


def is_let_in(entity: ApplicationEntity) -> bool:
    with associated(entity) as association:
        return bool(association.is_established)
