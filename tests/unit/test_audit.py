"""The audit trail: messages by PS3.15 Section A.5.1, in a file and at a syslog receiver, with nothing of a patient."""

import socket
import ssl
import stat
import subprocess
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dicom_node.audit import CHANGED, LOGIN, AuditFile, AuditTrail, Happening, hash_key, syslog_line, xml_of
from dicom_node.core.errors import SettingsError
from dicom_node.syslog import Syslog, SyslogAddress
from dicom_node.telemetry import hashed

NOW = 1709201700.0
SAW = Happening(event=CHANGED, at=NOW, user="ann", address="10.0.0.7", description="read again", studies=["1.2.3"])


def trail(*sinks: object) -> AuditTrail:
    return AuditTrail(sinks, source="TRIAGE", patient=lambda _study: hashed("PAT-4711", b"key"))  # type: ignore[arg-type]  # sinks


def test_a_message_says_who_did_what_when_and_from_where() -> None:
    root = ElementTree.fromstring(xml_of(SAW, "TRIAGE", {}))
    event = root.find("EventIdentification")
    assert event is not None
    assert event.attrib == {
        "EventActionCode": "U",
        "EventDateTime": "2024-02-29T10:15:00.000Z",
        "EventOutcomeIndicator": "0",
    }
    assert event.find("EventID").attrib == {  # type: ignore[union-attr]  # it is there
        "csd-code": "110103",
        "codeSystemName": "DCM",
        "originalText": "DICOM Instances Accessed",
    }
    who = root.find("ActiveParticipant")
    assert who is not None
    assert (who.get("UserID"), who.get("NetworkAccessPointID"), who.get("UserIsRequestor")) == (
        "ann",
        "10.0.0.7",
        "true",
    )
    assert [part.tag for part in root] == [
        "EventIdentification",
        "ActiveParticipant",
        "AuditSourceIdentification",
        "ParticipantObjectIdentification",
    ]


def test_of_the_patient_there_is_a_keyed_hash_alone(tmp_path: Path) -> None:
    trail(AuditFile(tmp_path / "audit")).note(SAW)
    text = (tmp_path / "audit" / "2024-02-29.xml").read_text()
    assert "PAT-4711" not in text
    assert hashed("PAT-4711", b"key") in text
    assert text.count("\n") == 1


def test_what_a_user_typed_cannot_become_markup_or_a_second_message() -> None:
    happening = Happening(event=LOGIN, at=NOW, user='"/><AuditMessage>', description="a\nb", succeeded=False)
    root = ElementTree.fromstring(xml_of(happening, "TRIAGE", {}))
    assert root.find("ActiveParticipant").get("UserID") == '"/><AuditMessage>'  # type: ignore[union-attr]  # it is there
    assert len(root.findall(".//AuditMessage")) == 0


def test_the_key_is_made_once_and_is_the_nodes_alone(tmp_path: Path) -> None:
    key = hash_key(tmp_path)
    assert len(key) == 32
    assert hash_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "hash.key").stat().st_mode) == 0o600


def test_a_message_that_cannot_be_written_is_counted_and_the_others_still_go(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    both = trail(AuditFile(tmp_path / "file"), AuditFile(tmp_path / "audit"))
    both.note(SAW)
    assert both.lost == 1
    assert (tmp_path / "audit" / "2024-02-29.xml").is_file()


def test_a_syslog_message_has_the_head_of_its_standard() -> None:
    line = syslog_line("<AuditMessage/>", NOW, host="node1", process=42)
    assert line == b"<85>1 2024-02-29T10:15:00.000Z node1 dicom-node 42 DICOM+RFC3881 - \xef\xbb\xbf<AuditMessage/>"


@pytest.mark.parametrize("url", ["", "host", "http://host", "udp://", "tls:///x"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(SettingsError, match="audit_syslog"):
        SyslogAddress.of(url)


def received(server: socket.socket, context: ssl.SSLContext | None, found: list[bytes]) -> None:
    connection, _ = server.accept()
    with context.wrap_socket(connection, server_side=True) if context else connection as stream:
        stream.settimeout(20)
        data = b""
        while b"</AuditMessage>" not in data and (part := stream.recv(65536)):
            data += part
        found.append(data)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_messages_arrive_over_tcp_and_tls_each_with_its_length(tmp_path: Path, kind: str) -> None:
    context, authority = None, None
    if kind == "tls":
        authority, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run([*command, "-keyout", str(key), "-out", str(authority)], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority, key)
    found: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        taking = threading.Thread(target=received, args=(server, context, found))
        taking.start()
        address = SyslogAddress(kind=kind, host="localhost", port=server.getsockname()[1])
        syslog = Syslog(address, authority=authority)
        syslog.start()
        trail(syslog).note(SAW)
        taking.join(30)
        syslog.stop()
    length, _, message = found[0].partition(b" ")
    assert int(length) == len(message)
    assert message.startswith(b"<85>1 ")


def test_a_receiver_whose_certificate_nobody_signed_gets_nothing(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(SyslogAddress(kind="tls", host="localhost", port=server.getsockname()[1]))
        syslog.start()
        trail(syslog).note(SAW)
        connection, _ = server.accept()
        with connection, pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_side=True).recv(1)
        syslog.stop()


def test_messages_arrive_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        syslog = Syslog(SyslogAddress(kind="udp", host="127.0.0.1", port=server.getsockname()[1]))
        syslog.start()
        trail(syslog).note(SAW)
        assert server.recv(65536).endswith(b"</AuditMessage>")
        syslog.stop()
