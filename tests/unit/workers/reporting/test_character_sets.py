"""A patient's name arrives as it was written: the scripts of PS3.5 Annex H, I, J and K, and single-byte extensions."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.charset import convert_encodings

from dicom_node.core.form import BY_DEFAULT, Form
from tests.unit.workers.reporting.conftest import CENTRES, evidence_of, reading_of
from workers.reporting.gate import check_report
from workers.reporting.report import build_report
from workers.volume import load_volume

#: Script: Specific Character Set and a Person Name in it; the examples of PS3.5 where it has one.
NAMES: dict[str, tuple[str | list[str], str]] = {
    "Latin, no character set": ("", "Doe^Jane"),
    "Latin 1": ("ISO_IR 100", "Buc^Jérôme"),
    "Latin 2": ("ISO_IR 101", "Dvořák^Antonín"),
    "Latin 5, Turkish": ("ISO_IR 148", "Şahin^Ayşe"),
    "Greek": ("ISO_IR 126", "Διονυσιος"),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг"),
    "Arabic": ("ISO_IR 127", "قباني^لنزار"),
    "Hebrew": ("ISO_IR 138", "שרון^דבורה"),
    "Thai": ("ISO_IR 166", "สมชาย^ใจดี"),
    "Greek by code extension": (["", "ISO 2022 IR 126"], "Dionysios=Διονυσιος"),
    "Cyrillic by code extension": (["ISO 2022 IR 6", "ISO 2022 IR 144"], "Luxemburg=Люкceмбypг"),
    "Arabic by code extension": (["ISO 2022 IR 6", "ISO 2022 IR 127"], "Qabbani^Lnzar=قباني^لنزار"),
    "Greek and Cyrillic by code extension": (["ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 126"], "Иван^Διον"),
    "Japanese, Annex H.3.1": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Japanese, Annex H.3.2": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "Japanese, supplementary kanji": (["", "ISO 2022 IR 87", "ISO 2022 IR 159"], "Aihara=藹原^丂"),
    "Korean, Annex I": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "Chinese, Annex J.3": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
    "Chinese, Annex J.4": ("GB18030", "Wang^XiaoDong=王^小东"),
    "Chinese, GBK": ("GBK", "Wang^XiaoDong=王^小东"),
    "every script at once": ("ISO_IR 192", "Ωμέγα^Иван=山田^홍길동=قباني"),
}


#: Of each way to write names one, of which every form is looked at; of the others, segmentation and structured report:
#: all forms take the patient from one place.
IN_EVERY_FORM = (
    "Latin, no character set",
    "Greek",
    "Greek and Cyrillic by code extension",
    "Japanese, Annex H.3.2",
    "Chinese, Annex J.4",
    "every script at once",
)

#: Bytes of a Person Name that pydicom does not read as it should, or that say nothing of their character set.
BYTES: dict[str, tuple[str | list[str] | None, bytes]] = {
    "Chinese, Annex K.2": (["", "ISO 2022 IR 58"], b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
    "Latin 1, as many senders write it without saying so": (None, b"T\xe9st^T\xe8s"),
}


@pytest.mark.parametrize("script", NAMES)
def test_a_name_arrives_as_it_was_written(tmp_path: Path, script: str) -> None:
    character_set, name = NAMES[script]
    reading = reading_of(tmp_path, CENTRES[:1], SpecificCharacterSet=character_set or None, PatientName=name)
    forms = set(Form) if script in IN_EVERY_FORM else BY_DEFAULT
    report = build_report(reading.evidence, reading.findings, reading.labels, forms=forms)
    sent = encoded(reading.evidence.header)
    for file in check_report(report, reading.evidence):
        written = dcmread(BytesIO(file))
        assert written.PatientName == name
        assert written.get("SpecificCharacterSet") == reading.evidence.header.get("SpecificCharacterSet")
        assert encoded(written) == sent


@pytest.mark.parametrize("script", BYTES)
def test_bytes_that_are_not_understood_arrive_as_they_are(tmp_path: Path, script: str) -> None:
    character_set, name = BYTES[script]
    placeholder = "N" * len(name)
    reading = reading_of(tmp_path, CENTRES[:1], SpecificCharacterSet=character_set, PatientName=placeholder)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(placeholder.encode(), name))
    read_again = load_volume(sorted(tmp_path.iterdir()))
    evidence = evidence_of(replace(read_again, voxels=reading.evidence.volume.voxels))
    for file in check_report(build_report(evidence, reading.findings, reading.labels), evidence):
        assert name in file


def encoded(dataset: Dataset) -> bytes:
    """The bytes of a patient's name in a file."""
    encodings = convert_encodings(dataset.get("SpecificCharacterSet") or "ISO_IR 6")
    return bytes(dataset.PatientName.encode(encodings))
