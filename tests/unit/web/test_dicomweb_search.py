"""QIDO-RS: what a search finds, what it answers with, and what it refuses; over a real port."""

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from dicom_node.core.lifecycle import StudyState
from dicom_node.core.uid import derived_uid
from tests.dicomweb_service import Service, dicom_file, serving
from tests.instances import STUDY_UID, ct_instance
from tests.room import Room

OTHER = "1.2.826.0.1.3680043.10.2"

PATIENT = {
    "PatientName": "Müller^Jörg=山田^太郎",
    "PatientID": "P-2",
    "SpecificCharacterSet": "ISO_IR 192",
    "StudyDate": "20240229",
    "StudyTime": "101500",
    "AccessionNumber": "A[1]*",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two studies: three slices of Secret^Patient, and two of another with ideographs."""
    room = Room(tmp_path_factory.mktemp("room"))
    room.receive(1, 2, 3, StudyDate="20230101", StudyTime="235959.5", StudyDescription="CHEST")
    room.receive(1, 2, study=OTHER, **PATIENT)
    with serving(room) as service:
        yield service
    room.index.close()


def found(service: Service, query: str) -> list[str]:
    """UIDs of the studies that a search finds."""
    answer = service.ask(f"/studies?{query}")
    if answer.status == 204:
        return []
    assert answer.status == 200, answer.body
    return [study["0020000D"]["Value"][0] for study in answer.json()]


@pytest.mark.parametrize(
    ("query", "studies"),
    [
        ("", [OTHER, STUDY_UID]),
        ("PatientID=P-2", [OTHER]),
        ("00100020=P-2", [OTHER]),
        ("PatientID=p-2", []),
        ("PatientID=P*", [OTHER]),
        ("PatientID=P?2", [OTHER]),
        ("PatientID=*", [OTHER, STUDY_UID]),
        ("PatientID=", [OTHER, STUDY_UID]),
        # Names: without case and accents, by whole groups.
        ("PatientName=SECRET%5Epatient", [STUDY_UID]),
        ("PatientName=secret", []),
        ("PatientName=secret*", [STUDY_UID]),
        (f"PatientName={quote('muller^jorg')}", [OTHER]),
        (f"PatientName={quote('山田*')}", [OTHER]),
        ("PatientName=mueler&fuzzymatching=true", [OTHER]),
        ("PatientName=pat%20sekret&fuzzymatching=true", [STUDY_UID]),
        ("PatientName=nobody&fuzzymatching=true", []),
        # Dates, times, and both as moments.
        ("StudyDate=20240229", [OTHER]),
        ("StudyDate=20230101-20231231", [STUDY_UID]),
        ("StudyDate=20230102-", [OTHER]),
        ("StudyDate=-20230101", [STUDY_UID]),
        ("StudyTime=1015", [OTHER]),
        ("StudyTime=2300-", [STUDY_UID]),
        ("StudyDate=20230101-20240229&StudyTime=2359-09", [STUDY_UID]),
        ("StudyDate=20230101-20240229&StudyTime=2359-11", [OTHER, STUDY_UID]),
        # Wildcards of the database are none of DICOM's.
        ("AccessionNumber=A%5B1%5D%3F", [OTHER]),
        ("AccessionNumber=%25", []),
        (f"StudyInstanceUID={OTHER},{STUDY_UID}", [OTHER, STUDY_UID]),
        (f"StudyInstanceUID={OTHER}%5C1.2.3", [OTHER]),
        ("ModalitiesInStudy=MR%5CCT", [OTHER, STUDY_UID]),
        ("ModalitiesInStudy=MR", []),
        ("limit=1", [OTHER]),
        ("limit=1&offset=1", [STUDY_UID]),
        ("offset=2", []),
    ],
)
def test_a_search_finds_what_matches(service: Service, query: str, studies: list[str]) -> None:
    assert found(service, query) == studies


@pytest.mark.parametrize(
    "query",
    [
        *("Modality=CT", "SOPInstanceUID=1.2", "PatientWeight=70", "NoSuchKeyword=1", "StudyDate=yesterday"),
        *("StudyDate=2024", "limit=-1", "limit=ten", "offset=x", "fuzzymatching=yes", "StudyInstanceUID=../etc"),
        *("PatientName=a&PatientName=b", "StudyTime=25x", "PatientID=%00", "includefield=nonsense"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_never_ignored(service: Service, query: str) -> None:
    answer = service.ask(f"/studies?{query}")
    assert answer.status == 400
    assert answer.json()["error"]


def test_a_name_of_more_words_than_names_have_is_not_compared_by_sound(service: Service) -> None:
    for words, status in ((["secret"] * 24, 200), (["x"] * 25, 400), (["x"] * 500, 400)):
        for text in ("%20".join(words), "%5E".join(words)):
            answer = service.ask(f"/studies?fuzzymatching=true&PatientName={text}")
            assert answer.status == status
            assert status == 200 or answer.json() == {
                "error": "the value of PatientName has more than 24 words, too many to compare by sound"
            }
    assert service.ask(f"/studies?fuzzymatching=true&PatientName={'x' * 1000}").status == 204


def test_a_study_is_answered_with_what_the_standard_requires(service: Service) -> None:
    (study,) = service.ask(f"/studies?StudyInstanceUID={OTHER}").json()
    assert study["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg", "Ideographic": "山田^太郎"}]
    assert study["00080061"] == {"vr": "CS", "Value": ["CT"]}
    assert study["00201206"] == {"vr": "IS", "Value": [1]}
    assert study["00201208"] == {"vr": "IS", "Value": [2]}
    assert study["00081190"]["Value"] == [f"{service.root}/studies/{OTHER}"]
    # Without a value and yet there.
    assert study["00100040"] == {"vr": "CS"}


def test_series_and_instances_name_what_they_belong_to_only_where_the_path_does_not(service: Service) -> None:
    (first, _) = service.ask("/series").json()
    assert "00100020" in first
    (series,) = service.ask(f"/studies/{OTHER}/series?Modality=CT").json()
    assert "00100020" not in series
    assert series["00201209"]["Value"] == [2]
    instances = service.ask(f"/studies/{OTHER}/instances?InstanceNumber=2").json()
    assert [instance["00200013"]["Value"] for instance in instances] == [[2]]
    assert instances[0]["00280010"]["Value"] == [8]
    assert len(service.ask("/instances?SOPClassUID=1.2.840.10008.5.1.4.1.1.2").json()) == 5


def test_fields_are_included_by_keyword_by_tag_and_all(service: Service) -> None:
    path = f"/studies/{OTHER}/series"
    assert "0020000D" in service.ask(path).json()[0]
    (series,) = service.ask(f"{path}?includefield=PixelSpacing,00280010&includefield=PatientID").json()
    assert series["00280030"]["Value"] == [0.7, 0.8]
    assert series["00280010"]["Value"] == [8]
    assert series["00100020"]["Value"] == ["P-2"]
    (series,) = service.ask(f"{path}?includefield=all").json()
    assert series["00100020"]["Value"] == ["P-2"]


def test_a_page_that_is_not_the_last_says_so(service: Service) -> None:
    assert service.ask("/studies?limit=1").headers["Warning"].startswith("299 ")
    assert service.ask("/studies?limit=2").headers["Warning"] is None
    assert service.ask("/studies?limit=0").status == 204


def test_xml_is_answered_where_it_is_asked_for(service: Service) -> None:
    answer = service.ask("/studies", Accept='multipart/related; type="application/dicom+xml"')
    kinds = [kind for kind, _ in answer.parts()]
    assert kinds == ["application/dicom+xml"] * 2
    assert "<FamilyName>Müller</FamilyName>".encode() in answer.body
    assert service.ask("/studies", Accept="text/html").status == 406


def test_no_log_line_holds_what_was_searched_for(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        service.ask("/studies?PatientName=Secret*&limit=1")
        service.ask("/studies?PatientName=Secret&StudyDate=never")
    assert "Secret" not in caplog.text


def test_what_left_the_disk_is_not_found_and_a_copy_that_conflicts_is_not_counted(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.receive(1, 2)
    room.receive(2, SeriesDescription="other content")
    with serving(room) as service:
        (study,) = service.ask("/studies").json()
        assert study["00201208"]["Value"] == [2]
        with room.index.transactions.write() as connection:
            connection.exec_driver_sql("UPDATE studies SET evicted_at = 1")
        assert service.ask("/studies").status == 204
        assert service.ask(f"/studies/{STUDY_UID}/instances").status == 204
        assert service.ask(f"/studies/{STUDY_UID}").status == 404
    room.index.close()


def test_an_index_of_an_earlier_version_is_completed_from_its_files(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.receive(1, 2)
    room.receive(1, study=OTHER, **PATIENT)
    with room.index.transactions.write() as connection:
        connection.exec_driver_sql("DELETE FROM searched_studies")
        connection.exec_driver_sql("DELETE FROM searched_series")
    with serving(room) as service:
        service.ask("/studies")
        assert found(service, "PatientID=P-2") == [OTHER]
        assert found(service, "ModalitiesInStudy=CT&PatientID=SECRET-1") == [STUDY_UID]
    assert room.state() is StudyState.RECEIVING
    room.index.close()


def test_a_result_is_found_until_it_is_withdrawn(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.receive(1)
    path = room.report()
    # The room's report is none that can be read: here is one.
    room.archive.path_of(path).write_bytes(dicom_file(ct_instance(9, Modality="SR", SeriesNumber=9001)))
    with serving(room) as service:
        modalities = [series["00080060"]["Value"] for series in service.ask(f"/studies/{STUDY_UID}/series").json()]
        assert sorted(modalities) == [["CT"], ["SR"]]
        (study,) = service.ask("/studies?ModalitiesInStudy=SR").json()
        assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [2])
        assert len(service.ask(f"/studies/{STUDY_UID}/instances").json()) == 2
        assert len(service.ask(f"/studies/{STUDY_UID}").parts()) == 2
        with room.index.transactions.write() as connection:
            connection.exec_driver_sql("UPDATE reports SET withdrawn_at = 1")
        (series,) = service.ask(f"/studies/{STUDY_UID}/series").json()
        assert series["00080060"]["Value"] == ["CT"]
        assert len(service.ask(f"/studies/{STUDY_UID}").parts()) == 1
    room.index.close()


@pytest.mark.parametrize("change", ["withdrawn_at = 1", "replaced_at = 1"])
def test_a_result_that_a_peer_sent_back_is_gone_when_it_does_not_stand_any_more(tmp_path: Path, change: str) -> None:
    room = Room(tmp_path)
    room.receive(1)
    room.report()
    uid, series = derived_uid("sr", STUDY_UID), derived_uid("sr series", STUDY_UID)
    address = f"/studies/{STUDY_UID}/series/{series}/instances/{uid}"
    copy = ct_instance(9, SOPInstanceUID=uid, SeriesInstanceUID=series, Modality="SR")
    with serving(room) as service:
        assert service.store([dicom_file(copy)]).status == 200
        answer = service.ask(address)
        assert (answer.status, "immutable" in answer.headers["Cache-Control"]) == (200, False)
        assert service.ask(f"/instances?SOPInstanceUID={uid}").status == 200
        with room.index.transactions.write() as connection:
            connection.exec_driver_sql(f"UPDATE reports SET {change}")
        assert service.ask(address).status == 404
        assert service.ask(f"/instances?SOPInstanceUID={uid}").status == 204
        assert service.ask(f"/series?SeriesInstanceUID={series}").status == 204
        (study,) = service.ask("/studies").json()
        assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([1], [1])
    room.index.close()
