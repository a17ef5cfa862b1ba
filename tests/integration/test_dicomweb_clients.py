"""DICOMweb as programs of others speak it: dicomweb-client at every service, DCMTK's files, and schemathesis."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from dicomweb_client.api import DICOMwebClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from tests.dicomweb_service import BOUNDARY, Service, multipart_body, serving
from tests.factories import ct_series
from tests.room import Room

#: Bodies for each address that stores; `make test DICOMWEB_EXAMPLES=2000` takes a longer look.
EXAMPLES = int(os.environ.get("DICOMWEB_EXAMPLES", "25"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    room = Room(tmp_path_factory.mktemp("room"))
    with serving(room) as service:
        yield service
    room.index.close()


@pytest.fixture(scope="module")
def paths(service: Service, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series that dicomweb-client has stored."""
    paths = ct_series(tmp_path_factory.mktemp("ct"), slices=4)
    DICOMwebClient(service.root).store_instances([dcmread(path) for path in paths])
    return paths


def test_dicomweb_client_finds_and_gets_what_it_stored(service: Service, paths: list[Path]) -> None:
    client, first = DICOMwebClient(service.root), dcmread(paths[0])
    uids = (first.StudyInstanceUID, first.SeriesInstanceUID, first.SOPInstanceUID)
    (study,) = client.search_for_studies(search_filters={"PatientName": "test*", "StudyDate": "20240101-"})
    assert study["00201208"]["Value"] == [4]
    assert client.search_for_studies(search_filters={"PatientName": "tesst"}, fuzzymatching=True)
    (series,) = client.search_for_series(uids[0], fields=["SeriesDescription"])
    assert series["0008103E"]["Value"] == ["CHEST 2.5 LUNG"]
    assert len(client.search_for_instances(*uids[:2], limit=3)) == 3
    assert client.retrieve_instance(*uids).PixelData == first.PixelData
    assert len(client.retrieve_study(uids[0])) == len(client.retrieve_series(*uids[:2])) == 4
    metadata = client.retrieve_series_metadata(*uids[:2])
    assert len(metadata) == len(client.retrieve_study_metadata(uids[0])) == 4
    model = client.retrieve_instance_metadata(*uids)
    assert client.retrieve_bulkdata(model["7FE00010"]["BulkDataURI"]) == [first.PixelData]
    assert client.retrieve_instance_frames(*uids, [1]) == [first.PixelData]
    assert client.retrieve_instance_rendered(*uids, media_types=("image/png",)).startswith(b"\x89PNG")
    assert client.retrieve_instance_frames_rendered(*uids, [1], media_types=("image/jpeg",)).startswith(b"\xff\xd8")


def test_files_that_dcmtk_wrote_are_kept_and_decoded(
    service: Service, paths: list[Path], program: Callable[[str], Path], tmp_path: Path
) -> None:
    first = dcmread(paths[0])
    lossless, deflated = tmp_path / "lossless.dcm", tmp_path / "deflated.dcm"
    subprocess.run([program("dcmcjpeg"), "+un", paths[0], lossless], check=True)
    subprocess.run([program("dcmconv"), "+td", paths[1], deflated], check=True)
    for path in (lossless, deflated):
        ds = dcmread(path)
        # Another instance, since its bytes are others.
        uid = f"{ds.SOPInstanceUID[:40]}.7"
        subprocess.run([program("dcmodify"), "-nb", "-m", f"0008,0018={uid}", path], check=True)
        answer = service.store([path.read_bytes()])
        assert answer.status == 200, answer.body
        address = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0].removeprefix(service.root)
        plain = service.ask(address, Accept=f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}")
        (tmp_path / "plain.dcm").write_bytes(plain.body)
        assert np.array_equal(pixel_array(tmp_path / "plain.dcm"), pixel_array(dcmread(path)))
        assert subprocess.run([program("dcmftest"), tmp_path / "plain.dcm"], check=False).returncode == 0
        ((_, frame),) = service.ask(f"{address}/frames/1").parts()
        assert len(frame) == first.Rows * first.Columns * 2
    assert dcmread(lossless).file_meta.TransferSyntaxUID == JPEGLosslessSV1


def test_no_request_that_the_description_allows_is_an_error_of_the_server(service: Service, paths: list[Path]) -> None:
    first = dcmread(paths[0])
    known = {"study": first.StudyInstanceUID, "series": first.SeriesInstanceUID, "instance": first.SOPInstanceUID}
    schema = schemathesis.openapi.from_dict(service.application.openapi())
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.method == "post":
            continue

        @settings(max_examples=8, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            nonlocal asked
            for uids in ({}, known):
                named = {name: uid for name, uid in uids.items() if name in case.path_parameters}
                case.path_parameters = {**case.path_parameters, **named}
                answer = case.call(base_url=service.root.removesuffix("/dicomweb"))
                asked += 1
                assert answer.status_code < 500, (case.method, case.path, answer.status_code)

        ask()
    assert asked > 100


@pytest.fixture
def bodies(paths: list[Path]) -> None:
    """What schemathesis makes of multipart/related, which it cannot by itself: whole parts, cut ones and anything."""
    whole = paths[0].read_bytes()
    part = st.one_of(st.just(whole), st.integers(0, len(whole)).map(lambda end: whole[:end]), st.binary(max_size=300))
    body = st.one_of(st.lists(part, max_size=4).map(multipart_body), st.binary(max_size=300))
    schemathesis.openapi.media_type("multipart/related", body)


@pytest.mark.usefixtures("bodies")
def test_no_body_that_the_description_allows_is_an_error_of_the_server(service: Service, paths: list[Path]) -> None:
    study = dcmread(paths[0]).StudyInstanceUID
    schema = schemathesis.openapi.from_dict(service.application.openapi())
    statuses: set[int] = set()
    operations = [found.ok() for found in schema.get_all_operations() if found.ok().method == "post"]
    for operation in operations:

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None, deadline=None)
        @given(case=operation.as_strategy(), known=st.booleans(), named=st.booleans())
        def ask(case: schemathesis.Case, known: bool, named: bool) -> None:
            if known and "study" in case.path_parameters:
                case.path_parameters = {"study": study}
            kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}' if named else "multipart/related"
            answer = case.call(base_url=service.root.removesuffix("/dicomweb"), headers={"Content-Type": kind})
            assert answer.status_code < 500, (case.method, case.path, answer.status_code)
            statuses.add(answer.status_code)

        ask()
    assert len(operations) == 2
    # Some are kept, whole or in part, and some are no bodies at all.
    assert 400 in statuses
    assert statuses & {200, 202}
