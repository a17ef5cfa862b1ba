"""A matrix of written reports for outside judges: `python -m deploy.evidence_matrix FOLDER [--check PROGRAM]`.

Each case is a folder with `source` and `result`. What judges it: our gate when it is written, then dciodvfy, DCMTK's
dsrdump and dcmdump where they are installed, and a program that takes a folder of results and one of sources.
"""

import argparse
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from deploy.bench_evidence import algorithm_of_the_bench, completed_at
from dicom_node.core import codes
from dicom_node.core.finding import Finding
from dicom_node.core.form import STRUCTURED_REPORTS, TRAITS, Form
from dicom_node.core.lung_rads import Category, Composition
from dicom_node.core.outcome import outcome_of_error, outcome_of_reading
from dicom_node.core.uid import derived_uid
from workers.measurement import measure
from workers.reporting.evidence import Evidence
from workers.reporting.passage import check_note, check_objects
from workers.reporting.rejection_note import Rejection, build_rejection_note
from workers.reporting.report import Report, build_report, build_unread_report
from workers.volume import Region, Volume, load_volume

SLICES, ROWS = 24, 96
SPACING_MM = (2.5, 0.8, 0.7)

Directions = tuple[tuple[float, float, float], tuple[float, float, float]]

#: Unit vectors of growing columns and growing rows.
ORIENTATIONS: Mapping[str, Directions] = MappingProxyType(
    {
        "axial": ((1, 0, 0), (0, 1, 0)),
        "axial-prone": ((-1, 0, 0), (0, -1, 0)),
        "axial-mirrored": ((-1, 0, 0), (0, 1, 0)),
        "oblique": ((0.8, 0.6, 0.0), (-0.36, 0.48, 0.8)),
        "sagittal": ((0, 1, 0), (0, 0, -1)),
    }
)
NODULES = (0, 1, 3, 30)

#: Specific Character Set and name, by script (PS3.5 Annex H to K).
SCRIPTS: Mapping[str, tuple[str | list[str], str]] = MappingProxyType(
    {
        "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
        "arabic": ("ISO_IR 127", "قباني^لنزار"),
        "greek": ("ISO_IR 126", "Διονυσιος"),
        "cyrillic": ("ISO_IR 144", "Люкceмбypг"),
        "unicode": ("ISO_IR 192", "Ωμέγα^Иван=山田^홍길동"),
    }
)
#: What is often missing.
OPTIONAL = (
    *("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "SliceThickness", "Manufacturer", "StudyDescription"),
)
#: What scanners often refer to beside images, by sequence: class and instance of an object that is not the series'.
REFERENCES = MappingProxyType(
    {
        "ReferencedStudySequence": ("1.2.840.10008.3.1.2.3.1", "2.25.66"),
        "ReferencedPatientSequence": ("1.2.840.10008.3.1.2.1.1", "2.25.68"),
    }
)

#: What dsrdump can read.
_DOCUMENTS = {form.replace(" ", "-") for form in (*STRUCTURED_REPORTS, Form.UNREAD, Form.KEY_OBJECTS, Form.REJECTION)}
#: What Debian's dciodvfy and dsrdump cannot judge: the class of label maps, and who names segments of one. These lie
#: beside the others, and whatever else judges those judges them too.
_BESIDE = {Form.LABEL_MAP, *(form for form, traits in TRAITS.items() if traits.refers_to is Form.LABEL_MAP)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One study, and how many balls play nodules in it."""

    name: str
    nodules: int = 1
    directions: Directions = ORIENTATIONS["axial"]
    #: Attributes of every image in place of the usual ones; None takes one away.
    attributes: Mapping[str, Any] = field(default_factory=dict)
    write: Callable[[Evidence, tuple[Finding, ...], NDArray[np.uint8]], Report] | None = None


def cases() -> Iterator[Case]:
    """Every case."""
    for (name, directions), nodules in itertools.product(ORIENTATIONS.items(), NODULES):
        yield Case(name=f"{name}-{nodules}", nodules=nodules, directions=directions)
    for script, (character_set, person) in SCRIPTS.items():
        yield Case(name=script, attributes={"SpecificCharacterSet": character_set, "PatientName": person})
    for keyword in OPTIONAL:
        yield Case(name=f"without-{keyword}", attributes={keyword: None})
    for keyword, (sop_class_uid, sop_instance_uid) in REFERENCES.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        yield Case(name=f"with-{keyword}", nodules=1, attributes={keyword: [item]})
    yield Case(name="without-all", attributes=dict.fromkeys(OPTIONAL))
    yield Case(name="long-texts", attributes={"StudyDescription": "d" * 64, "PatientID": "p" * 64, "StudyID": "s" * 16})
    yield Case(name="time-zone", attributes={"TimezoneOffsetFromUTC": "+0530"})
    yield Case(name="told", nodules=3, write=_told)
    yield Case(name="partly-read", nodules=3, write=_partly)
    for error in ("NotApplicable", "InconsistentGeometry", "UnreadableInstance", "BundleInvalid"):
        yield Case(name=f"unread-{error}", nodules=0, write=_unread(error))


def write(case: Case, folder: Path) -> None:
    """The case's images, and the objects of its report in every form, with a note that rejects them."""
    volume = load_volume(_images(case, folder / "source"))
    labels, findings = _findings(volume, case.nodules)
    evidence = Evidence(
        volume=volume, algorithm=algorithm_of_the_bench(), evidence=derived_uid(case.name), completed_at=completed_at()
    )
    report = (case.write or _all_forms)(evidence, findings, labels)
    if not report.ended.was_read:
        evidence = replace(evidence, was_read=False)
    checked = [*check_objects(report, evidence)]
    rejection = Rejection(safety=True, reason="a test of withdrawal", asked_at=completed_at(), number=1)
    rejected = [one.dataset for one in checked if one.form not in _BESIDE]
    checked.append(check_note(build_rejection_note(rejection, rejected), rejected))
    for name in ("result", "beside"):
        (folder / name).mkdir()
    for number, one in enumerate(checked):
        if one.fault:
            raise SystemExit(f"{case.name}: {one.fault}")
        where = folder / ("beside" if one.form in _BESIDE else "result")
        # Of one form there may be several.
        (where / f"{number:02}-{one.form.replace(' ', '-')}.dcm").write_bytes(one.file)


def _all_forms(evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]) -> Report:
    return build_report(evidence, findings, labels, forms=set(Form))


def _told(evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]) -> Report:
    """By an algorithm that tells all it can."""
    rich = tuple(
        replace(
            finding,
            composition=composition,
            solid_diameter_mm=6.4 if composition is Composition.PART_SOLID else None,
            margin=codes.SPICULATED,
            malignancy=0.34,
            lung_rads=Category.SUSPICIOUS_A,
        )
        for finding, composition in zip(findings, Composition, strict=True)
    )
    return _all_forms(evidence, rich, labels)


def _partly(evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]) -> Report:
    outcome = outcome_of_reading(found=True, incomplete="the lowest 40 mm of the lungs are not in the series")
    return build_report(evidence, findings, labels, ("r" * 900,), outcome=outcome, forms=set(Form))


def _unread(error: str) -> Callable[[Evidence, tuple[Finding, ...], NDArray[np.uint8]], Report]:
    def unread(evidence: Evidence, _findings: tuple[Finding, ...], _labels: NDArray[np.uint8]) -> Report:
        outcome = outcome_of_error(error, "3 slices are missing; send the series again. " + "x" * 500)
        return build_unread_report(replace(evidence, was_read=False), outcome, set(Form))

    return unread


def _findings(volume: Volume, count: int) -> tuple[NDArray[np.uint8], tuple[Finding, ...]]:
    """Balls on a grid, measured as an algorithm's findings are."""
    labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
    findings = []
    places = itertools.product((4, 12, 19), (14, 32, 50, 68, 84), (14, 80))
    for number, place in enumerate(itertools.islice(places, count), start=1):
        offsets = np.indices(labels.shape) - np.array(place).reshape(3, 1, 1, 1)
        inside = sum((offset * mm) ** 2 for offset, mm in zip(offsets, SPACING_MM, strict=True)) <= 4.5**2
        labels[inside] = number
        whole = (slice(0, SLICES), slice(0, ROWS), slice(0, ROWS))
        measured = measure(Region(box=whole, mask=inside), volume)
        findings.append(
            Finding(
                number=number,
                concept=codes.NODULE,
                category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
                site=codes.LUNG,
                laterality=(codes.RIGHT, codes.LEFT, None)[number % 3],
                score=0.9,
                **vars(measured),
            )
        )
    return labels, tuple(findings)


def _images(case: Case, folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    row, column = (np.array(direction, dtype=float) for direction in case.directions)
    paths = []
    for k in range(SLICES):
        ds = _image(case.name, k)
        place = np.array([-30.0, -40.0, 10.0]) + k * SPACING_MM[0] * np.cross(row, column)
        ds.ImagePositionPatient = [_decimal(value) for value in place]
        ds.ImageOrientationPatient = [_decimal(value) for value in (*row, *column)]
        for keyword, value in case.attributes.items():
            if value is None:
                ds.pop(keyword, None)
            else:
                setattr(ds, keyword, value)
        path = folder / f"{k}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _image(case: str, k: int) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, derived_uid(case, "image", str(k))
    ds.StudyInstanceUID, ds.SeriesInstanceUID = derived_uid(case, "study"), derived_uid(case, "series")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = derived_uid(case, "frame"), ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20240229", "101500", "1", "A1"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Matrix^Max", "MATRIX", "19610412", "O"
    ds.ReferringPhysicianName, ds.StudyDescription = "Referrer^Rita", "CT CHEST"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "Factory", "Scanner"
    ds.Rows = ds.Columns = ROWS
    ds.PixelSpacing, ds.SliceThickness = [_decimal(mm) for mm in SPACING_MM[1:]], _decimal(SPACING_MM[0])
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    ds.InstanceNumber = k + 1
    ds.add_new("PixelData", "OW", np.full((ROWS, ROWS), 174, dtype="<u2").tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _decimal(value: float) -> str:
    return format_number_as_ds(round(float(value), 9) + 0.0)


def judge(folder: Path, check: Path | None) -> list[str]:
    """What outside judges find wrong with a case."""
    found = []
    dciodvfy = shutil.which("dciodvfy")
    for file in sorted((*(folder / "result").iterdir(), *(folder / "beside").iterdir())):
        programs: list[list[str]] = [["/usr/bin/dcmdump", "-q"]]
        if file.stem[3:] in _DOCUMENTS and file.parent.name == "result":
            programs.append(["/usr/bin/dsrdump", "-q"])
        for program in programs:
            if Path(program[0]).exists() and subprocess.run([*program, str(file)], capture_output=True).returncode:
                found.append(f"{file.name}: {Path(program[0]).name} cannot read it")
        if dciodvfy and file.parent.name == "result":
            run = subprocess.run([dciodvfy, "-new", str(file)], capture_output=True)
            lines = (run.stdout + run.stderr).decode("ascii", "replace").splitlines()
            found += [f"{file.name}: {line}" for line in lines if line.startswith("Error")]
    if check is not None:
        found += _checked(check, folder / "result", folder / "source")
        if any((folder / "beside").iterdir()):
            lines = _checked(check, folder / "beside", folder / "source")
            found += [line for line in lines if ": " in line and ": iod: " not in line]
    return found


def _checked(check: Path, results: Path, sources: Path) -> list[str]:
    """What a program says of results where it finds something wrong."""
    command = [sys.executable, str(check), str(results), "--sources", str(sources)]
    run = subprocess.run(command, capture_output=True, text=True)
    return run.stdout.splitlines() if run.returncode else []


def main(arguments: list[str] | None = None) -> int:
    """Write every case and have it judged; 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", type=Path, metavar="PROGRAM", help="takes RESULTS --sources SOURCES")
    options = parser.parse_args(arguments)
    faults = count = 0
    for case in cases():
        folder = options.folder / case.name
        write(case, folder)
        found = judge(folder, options.check)
        count, faults = count + 1, faults + len(found)
        for line in found:
            print(f"{case.name}: {line}", flush=True)
    print(f"{count} studies, {faults} fault(s)")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
