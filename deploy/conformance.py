"""The conformance statement's tables, written from the code that does what they say: `python -m deploy.conformance`."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydicom.uid import UID

from deploy.marked_text import code, rewrite, table
from deploy.readme import settings_table
from dicom_node import __version__
from dicom_node.core.codes import Code
from dicom_node.core.errors import IntakeError
from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.core.status import SUCCESS, UNEXPECTED
from dicom_node.scp.presentation_contexts import (
    NOTIFICATIONS,
    TRANSFER_SYNTAXES,
    SupportedContext,
    supported_presentation_contexts,
)
from dicom_node.settings import AdmissionSettings, NodeSettings
from workers.reporting.quantities import QUANTITIES

STATEMENT = Path(__file__).with_name("CONFORMANCE.md")

#: Sections of the settings that shape what happens on the wire.
WIRE_SECTIONS = ("node", "admission", "delivery", "peers")


def storage_statuses() -> Mapping[int, str]:
    """Every status of a C-STORE response, and what it says: success, the error tree's, and what nobody foresaw."""
    known = {kind.status: _first_sentence(kind) for kind in _below(IntakeError)}
    success = {SUCCESS: "The instance is on the disk and in the index, or was there already."}
    unforeseen = {UNEXPECTED: "The node itself failed; its log has the place."}
    return success | dict(sorted((known | unforeseen).items()))


def parts() -> Mapping[str, str]:
    """The statement's generated parts by name."""
    verification, *storage = supported_presentation_contexts()
    return {
        "implementation": _implementation(),
        "verification contexts": _contexts(verification),
        "notification contexts": _contexts(*NOTIFICATIONS),
        "storage statuses": _statuses(),
        "transfer syntaxes": _transfer_syntaxes(),
        "storage contexts": _storage(storage),
        "configuration": settings_table(WIRE_SECTIONS),
        "measurements": _measurements(),
    }


def main() -> int:
    """Rewrite the statement."""
    print(f"{STATEMENT.name}: {'rewritten' if rewrite(STATEMENT, parts()) else 'was up to date'}")
    return 0


def _below(kind: type[IntakeError]) -> Iterator[type[IntakeError]]:
    for narrower in kind.__subclasses__():
        yield narrower
        yield from _below(narrower)


def _first_sentence(kind: type[IntakeError]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _implementation() -> str:
    node, admission = NodeSettings(), AdmissionSettings()
    longest = f"{node.maximum_pdu_bytes} bytes (`maximum_pdu_bytes`)"
    rows = (
        ("Product version", __version__),
        ("Implementation Class UID", code(IMPLEMENTATION_CLASS_UID)),
        ("Implementation Version Name", code(IMPLEMENTATION_VERSION_NAME)),
        ("AE title", f"{code(node.ae_title)} (`ae_title`)"),
        ("Listening port", f"{node.port} (`port`)"),
        ("Maximum PDU accepted", longest),
        ("Associations accepted at one time", f"{admission.maximum_associations} (`maximum_associations`)"),
    )
    return table(("What", "Value (setting)"), rows)


def _contexts(*contexts: SupportedContext) -> str:
    rows = [
        (f"{context.name} {code(context.sop_class_uid)}", f"{UID(uid).name} {code(uid)}", "SCP", "none")
        for context in contexts
        for uid in context.transfer_syntax_uids
    ]
    return table(("Abstract syntax", "Transfer syntax", "Role", "Extended negotiation"), rows)


def _storage(contexts: list[SupportedContext]) -> str:
    rows = [(context.name, code(context.sop_class_uid)) for context in contexts]
    return table((f"SOP class ({len(rows)})", "UID"), rows)


def _transfer_syntaxes() -> str:
    rows = [(str(number), UID(uid).name, code(uid)) for number, uid in enumerate(TRANSFER_SYNTAXES, start=1)]
    return table(("Preference", "Transfer syntax", "UID"), rows)


def _statuses() -> str:
    rows = [(code(f"0x{status:04X}"), meaning) for status, meaning in storage_statuses().items()]
    return table(("Status", "Meaning"), rows)


def _measurements() -> str:
    rows = [
        (
            _coded(quantity.name),
            "" if quantity.derivation is None else _coded(quantity.derivation),
            "; ".join(_coded(method) for method in dict.fromkeys(quantity.methods.values())),
            _coded(quantity.unit),
            str(quantity.decimals),
        )
        for quantity in QUANTITIES
    ]
    return table(("Concept", "Derivation", "Method, the one that was used", "Unit", "Decimals"), rows)


def _coded(entry: Code) -> str:
    return f"({entry.value}, {entry.scheme}, {entry.meaning})"


if __name__ == "__main__":
    sys.exit(main())
