"""The conformance statement says what the code does."""

import re

import pytest

from deploy.conformance import STATEMENT, parts, storage_statuses
from deploy.marked_text import with_parts
from dicom_node.core import codes, commitment, errors
from dicom_node.core.searchable import SEARCHABLE, Level
from dicom_node.core.uid import is_uid
from dicom_node.promise import GIVEN_UP_AFTER_SECONDS
from dicom_node.scp.application_entity import Timeouts
from dicom_node.scp.notifications import AT_CREATION
from dicom_node.scp.presentation_contexts import TRANSFER_SYNTAXES, VERIFICATION, supported_presentation_contexts
from workers.reporting.gate import RULES

TEXT = STATEMENT.read_text(encoding="utf-8")

#: Value and scheme wherever the text has a code in parentheses.
CODES = sorted(set(re.findall(r"\((\w[^,()]*), (DCM|SCT|LN|UMLS|RADLEX)[,)]", TEXT)))

#: PS3.4 Table B.2-1, PS3.7 Annex C and PS3.18 Table 10.5.3-2, as the statement must list them.
EXPECTED_STATUSES = {0x0000, 0x0111, 0x0122, 0x0124, 0xA700, 0xA900, 0xC000, 0xC0FF, 0xC122}


def test_the_statement_is_what_the_code_writes() -> None:
    assert with_parts(TEXT, parts()) == TEXT, "run python -m deploy.conformance"


def test_every_sop_class_and_transfer_syntax_is_listed_once() -> None:
    table, syntaxes = parts()["storage contexts"], parts()["transfer syntaxes"]
    contexts = supported_presentation_contexts()
    listed = re.findall(r"`([0-9.]+)` \|$", table, flags=re.MULTILINE)
    assert listed == [context.sop_class_uid for context in contexts if context.sop_class_uid != VERIFICATION]
    assert re.findall(r"`([0-9.]+)` \|$", syntaxes, flags=re.MULTILINE) == list(TRANSFER_SYNTAXES)


def test_one_table_of_transfer_syntaxes_serves_every_storage_class() -> None:
    storage = [context for context in supported_presentation_contexts() if context.sop_class_uid != VERIFICATION]
    assert {context.transfer_syntax_uids for context in storage} == {TRANSFER_SYNTAXES}


def test_the_statuses_are_those_of_the_error_tree() -> None:
    assert set(storage_statuses()) == EXPECTED_STATUSES
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IntakeError)]
    assert {kind.status for kind in kinds} <= set(storage_statuses())
    listed = {int(status, 16) for status in re.findall(r"^\| `0x([0-9A-F]{4})` \|", TEXT, flags=re.MULTILINE)}
    assert listed == EXPECTED_STATUSES


def test_no_generated_name_is_a_bare_uid() -> None:
    cells = [cell.strip() for part in parts().values() for line in part.splitlines() for cell in line.split("|")]
    assert not [cell for cell in cells if "." in cell and is_uid(cell) and cell != "0.1.0"]


@pytest.mark.parametrize(("value", "scheme"), CODES)
def test_every_code_of_the_statement_is_one_that_reports_use(value: str, scheme: str) -> None:
    known = {(code.value, code.scheme) for code in vars(codes).values() if isinstance(code, codes.Code)}
    # Written by the library after the templates, not from our table: acquisition equipment, beside the processing one.
    known.add(("109101", "DCM"))
    for one in value.split(" or "):
        assert (one, scheme) in known


def test_the_codes_were_found() -> None:
    assert ("126000", "DCM") in CODES
    assert ("111241 or 111242 or 111243 or 111244 or 111245", "DCM") in CODES


def test_the_times_after_which_an_association_is_given_up_are_the_receivers() -> None:
    waits = Timeouts()
    said = " ".join(TEXT.split())
    assert f"does not come within {waits.acse:g} s" in said
    assert f"stops for {waits.dimse:g} s" in said
    assert f"nothing at all comes for {waits.network:g} s" in said


def test_the_rules_of_every_report_are_said_to_be_checked() -> None:
    said = TEXT.split("#### 8.1.3")[1].split("### 8.2")[0]
    rules = {"equipment": "Contributing Equipment", "tracking": "tracking identifier", "evidence": "evidence"}
    assert set(rules) <= set(RULES)
    assert all(words in said for words in rules.values())


def test_the_reasons_for_what_is_not_kept_are_the_codes() -> None:
    said = TEXT.split("##### 4.2.1.7")[1].split("##### 4.2.1.8")[0]
    listed = re.findall(r"^\| (0x[0-9A-F]{4}, [a-z ]+) \|", said, flags=re.MULTILINE)
    reasons = (commitment.NO_SUCH_INSTANCE, commitment.CLASS_CONFLICT, commitment.PROCESSING_FAILURE)
    assert listed == [commitment.failure_in_words(reason) for reason in reasons]
    assert "seven days" in said
    assert GIVEN_UP_AFTER_SECONDS == 7 * 86400


def test_what_a_new_step_must_say_is_listed() -> None:
    said = "".join(TEXT.split("##### 4.2.1.8")[1].split("##### 4.2.1.9")[0].split())
    names = {"PerformedProcedureStepStartDate": "StartDate", "PerformedProcedureStepStartTime": "StartTime"}
    names["PerformedProcedureStepStatus"] = "Status"
    for keyword in AT_CREATION:
        name = names.get(keyword, keyword).removesuffix("AETitle")
        assert name in said, keyword


def test_every_attribute_that_is_searched_by_is_listed_at_its_level() -> None:
    line = re.search(r"Searched by, of a study: (.*?); of a series: (.*?); of an instance: (.*?)\.", TEXT, re.DOTALL)
    assert line is not None
    for level, words in zip(Level, line.groups(), strict=True):
        named = set(re.findall(r"[A-Z]\w+", words))
        assert named == {attribute.keyword for attribute in SEARCHABLE if attribute.level is level}, level
