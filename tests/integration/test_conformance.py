"""The conformance statement against a real application entity: what it lists is negotiated and answered."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from deploy.conformance import STATEMENT, storage_statuses
from dicom_node.core.errors import AssociationRejected, IntakeError
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.core.status import SUCCESS, UNEXPECTED
from dicom_node.scp.application_entity import ApplicationEntity
from dicom_node.scu.storage import FileToSend, store
from dicom_node.scu.verification import echo
from dicom_node.settings import NodeSettings, Peer, Settings
from tests.instances import ct_instance, write_instance
from tests.requesting import Requestor

SECONDS = 30.0
MAXIMUM_CONTEXTS = 128
VERIFICATION = "1.2.840.10008.1.1"
SEGMENTATION, STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

TEXT = STATEMENT.read_text(encoding="utf-8")
KINDS = sorted(IntakeError.__subclasses__(), key=lambda kind: kind.status)


def part(name: str) -> str:
    """What stands between the marks of a generated part."""
    return TEXT.split(f"<!-- generated: {name} -->")[1].split(f"<!-- end: {name} -->")[0]


def section(number: str) -> str:
    """The text below a numbered heading, up to the next heading."""
    return re.split(r"^#", TEXT.split(f"# {number} ")[1], maxsplit=1, flags=re.MULTILINE)[0]


def uids(text: str) -> list[str]:
    return re.findall(r"`([0-9]+\.[0-9.]+)`", text)


STORAGE_CLASSES = uids(part("storage contexts"))
TRANSFER_SYNTAXES = uids(part("transfer syntaxes"))
VERIFICATION_CLASS, *VERIFICATION_SYNTAXES = dict.fromkeys(uids(part("verification contexts")))


class Answering:
    """A reception that keeps nothing and ends every C-STORE as it is told to."""

    def __init__(self) -> None:
        self.raising: Exception | None = None

    def store(self, _received: ReceivedInstance) -> None:
        if self.raising is not None:
            raise self.raising

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        """Nothing to remember."""

    def association_ended(self, association_id: str, ending: str) -> None:
        """Nothing to remember."""

    def free_bytes(self) -> int:
        return 1 << 50


@pytest.fixture(scope="module")
def reception() -> Answering:
    return Answering()


@pytest.fixture(scope="module")
def entity(reception: Answering) -> Iterator[ApplicationEntity]:
    entity = ApplicationEntity(Settings(node=NodeSettings(host="127.0.0.1", port=0)), reception)
    entity.start()
    yield entity
    entity.stop()


@contextmanager
def associated(entity: ApplicationEntity, contexts: Sequence[PresentationContext]) -> Iterator[Association]:
    ae = Requestor(ae_title="SCANNER")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = SECONDS
    association = ae.associate("127.0.0.1", entity.port, contexts=list(contexts), ae_title="TRIAGE")
    try:
        assert association.is_established
        yield association
    finally:
        if association.is_established:
            association.release()
        association.join(SECONDS)


def accepted(entity: ApplicationEntity, proposed: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, str]]:
    """Abstract and transfer syntax of each accepted context, over as many associations as are needed."""
    answers = []
    for start in range(0, len(proposed), MAXIMUM_CONTEXTS):
        some = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in proposed[start:][:MAXIMUM_CONTEXTS]]
        with associated(entity, some) as association:
            answers += [(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts]
    return answers


def test_every_listed_sop_class_is_accepted_in_the_preferred_transfer_syntax(entity: ApplicationEntity) -> None:
    # Least preferred first: the answer must follow the statement's order and not ours.
    offered = [TRANSFER_SYNTAXES[place] for place in (-1, 20, 8, 1)]
    answers = accepted(entity, [(uid, offered) for uid in STORAGE_CLASSES])
    assert sorted(answers) == sorted((uid, TRANSFER_SYNTAXES[1]) for uid in STORAGE_CLASSES)


def test_every_listed_transfer_syntax_is_accepted(entity: ApplicationEntity) -> None:
    answers = accepted(entity, [(CTImageStorage, [syntax]) for syntax in TRANSFER_SYNTAXES])
    assert sorted(answers) == sorted((CTImageStorage, syntax) for syntax in TRANSFER_SYNTAXES)


def test_verification_is_accepted_as_listed_and_answered(entity: ApplicationEntity) -> None:
    answers = accepted(entity, [(VERIFICATION_CLASS, [syntax]) for syntax in VERIFICATION_SYNTAXES])
    assert answers == [(VERIFICATION, syntax) for syntax in VERIFICATION_SYNTAXES]
    with associated(entity, [build_context(VERIFICATION, EXPLICIT_LITTLE)]) as association:
        assert association.send_c_echo().Status == SUCCESS


def test_what_is_not_listed_is_not_accepted(entity: ApplicationEntity) -> None:
    commitment, find, private = "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.1.2.2.1", "1.2.3.4.5"
    proposed = [(uid, [EXPLICIT_LITTLE]) for uid in (VERIFICATION, commitment, find, private)]
    assert accepted(entity, proposed) == [(VERIFICATION, EXPLICIT_LITTLE)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_intake_is_answered_with_its_listed_status(
    tmp_path: Path, entity: ApplicationEntity, reception: Answering, kind: type[IntakeError]
) -> None:
    assert status_when(tmp_path, entity, reception, kind("what is wrong")) == kind.status
    assert kind.status in storage_statuses()


def test_success_and_what_nobody_foresaw_are_answered_as_listed(
    tmp_path: Path, entity: ApplicationEntity, reception: Answering
) -> None:
    assert status_when(tmp_path, entity, reception, None) == SUCCESS
    assert status_when(tmp_path, entity, reception, RuntimeError("a fault of ours")) == UNEXPECTED
    assert {SUCCESS, UNEXPECTED} <= set(storage_statuses())


def status_when(tmp_path: Path, entity: ApplicationEntity, reception: Answering, raising: Exception | None) -> int:
    reception.raising = raising
    path = write_instance(tmp_path / "instance.dcm", ct_instance())
    with associated(entity, [build_context(CTImageStorage, EXPLICIT_LITTLE)]) as association:
        return int(association.send_c_store(path).Status)


def test_our_answer_names_what_the_statement_names(entity: ApplicationEntity) -> None:
    with associated(entity, [build_context(VERIFICATION, EXPLICIT_LITTLE)]) as association:
        answer = association.acceptor
        said = part("implementation")
        assert f"`{answer.implementation_class_uid}`" in said
        assert f"`{answer.implementation_version_name}`" in said
        assert f"{answer.maximum_length} bytes" in said
        assert answer.asynchronous_operations == (1, 1)


def test_our_requests_propose_and_name_what_the_statement_says(tmp_path: Path) -> None:
    requests: list[Any] = []
    listener = AE(ae_title="PACS")
    listener.add_supported_context("1.2.840.10008.1.20.1")
    handler = (evt.EVT_REQUESTED, lambda event: requests.append(event.assoc.requestor.primitive))
    server = listener.start_server(("127.0.0.1", 0), block=False, evt_handlers=[handler])
    peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=server.server_address[1], results=True)
    files = [
        FileToSend(
            path=tmp_path / "absent", sop_class_uid=uid, sop_instance_uid="1.2", transfer_syntax_uid=EXPLICIT_LITTLE
        )
        for uid in (SEGMENTATION, STRUCTURED_REPORT)
    ]
    try:
        with pytest.raises(AssociationRejected):
            list(store(peer, files, ae_title="TRIAGE", timeout_seconds=SECONDS))
        with pytest.raises(AssociationRejected):
            echo(peer, ae_title="TRIAGE", timeout_seconds=SECONDS)
    finally:
        server.shutdown()
    said = section("4.2.1.2")
    delivered, verified = requests
    assert {c.abstract_syntax for c in delivered.presentation_context_definition_list} == {
        SEGMENTATION,
        STRUCTURED_REPORT,
    }
    for request in (delivered, verified):
        for context in request.presentation_context_definition_list:
            assert {str(context.abstract_syntax), *map(str, context.transfer_syntax)} <= set(uids(said))
        items = {type(item).__name__: item for item in request.user_information}
        assert f"`{items['ImplementationClassUIDNotification'].implementation_class_uid}`" in said
        assert f"`{items['ImplementationVersionNameNotification'].implementation_version_name}`" in said
        assert f"{request.maximum_length_received} bytes" in said
