"""Hard values: data sets that are difficult to write, by a name each; made anew by each call."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydicom import DataElement, Dataset

#: Specific Character Set, and a text in it (PS3.5 Annexes H to K).
TEXTS: tuple[tuple[str | list[str] | None, str], ...] = (
    (None, "Ae"),
    ("ISO_IR 100", "Jérôme"),
    ("ISO_IR 144", "Люкceмбypг"),
    ("ISO_IR 126", "Διονυσιος"),
    ("ISO_IR 127", "قباني^لنزار"),
    ("ISO_IR 166", "นามสกุล"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ"),
    ("ISO_IR 13", "ascii with \\ and ~"),
    (["", "ISO 2022 IR 87"], "山田太郎"),
    (["", "ISO 2022 IR 87"], "ascii only"),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东="),
    ("GB18030", "Wang^XiaoDong=王^小东="),
    ("GBK", "王小东"),
    (["ISO 2022 IR 6", "ISO 2022 IR 100"], "Buc^Jérôme"),
)


def _of(*elements: tuple[int, str, Any]) -> Callable[[], Dataset]:
    def made() -> Dataset:
        ds = Dataset()
        for tag, vr, value in elements:
            ds.add(DataElement(tag, vr, value))
        return ds

    return made


def _in_an_item(*elements: tuple[int, str, Any], **outside: Any) -> Callable[[], Dataset]:
    def made() -> Dataset:
        ds = Dataset()
        for keyword, value in outside.items():
            setattr(ds, keyword, value)
        ds.ContentSequence = [_of(*elements)(), Dataset()]
        return ds

    return made


def in_character_set(character_set: str | list[str] | None, text: str) -> Dataset:
    """A text in elements of several VRs, in an item, and beside items that have character sets of their own."""
    ds = _of((0x00100010, "PN", text), (0x0008103E, "LO", text), (0x00204000, "LT", text), (0x0040A160, "UT", text))()
    ds.SpecificCharacterSet = character_set
    if character_set is None:
        del ds.SpecificCharacterSet
    own, plain, inner = Dataset(), Dataset(), Dataset()
    own.SpecificCharacterSet, own.CodeMeaning, inner.CodeMeaning = "ISO_IR 192", "é山", "山"
    own.ContentSequence = [inner]
    plain.SpecificCharacterSet, plain.CodeMeaning = "", "abc"
    ds.ContentSequence = [_of((0x00100010, "PN", text), (0x00080104, "LO", text))(), own, plain]
    return ds


PRIVATE = (0x00090010, "LO", "MAKER")
HARD: Mapping[str, Callable[[], Dataset]] = MappingProxyType(
    {
        "OB of odd length": _of((0x00420011, "OB", b"abc")),
        "OW of odd length": _of((0x00280100, "US", 8), (0x7FE00010, "OW", b"abc")),
        "UN of odd length": _of(PRIVATE, (0x00091001, "UN", b"abc")),
        "private": _of(PRIVATE, (0x00091001, "LO", "odd"), (0x00091002, "SV", -5), (0x00091003, "UV", [5, 6])),
        "private in an item": _in_an_item(PRIVATE, (0x00091002, "UC", ["a", "bb"])),
        "sequence without items": _of((0x0040A730, "SQ", [])),
        "group length": _of((0x00080000, "UL", 12), (0x00080060, "CS", "CT")),
        "group length in an item": _in_an_item((0x00080000, "UL", 12), (0x00080104, "LO", "x")),
        "signed": _in_an_item((0x00280106, "US or SS", -5), PixelRepresentation=1),
        "signed, but not in the item": _in_an_item(
            (0x00280103, "US", 0), (0x00280106, "US or SS", 5), PixelRepresentation=1
        ),
        "table of words": _in_an_item((0x00283002, "US", [4, 0, 16]), (0x00283006, "US or OW", b"\1\0\2\0\3\0\4\0")),
        "bytes or words": _of(
            *((tag, "US", 1) for tag in (0x00280010, 0x00280011)),
            (0x00280100, "US", 16),
            (0x7FE00010, "OB or OW", b"ab"),
        ),
        "long LO": _of((0x00081030, "LO", "x" * 70000)),
        "LO as long as may be": _of((0x00081030, "LO", "x" * 65534)),
        "LO of one more": _of((0x00081030, "LO", "x" * 65535)),
        "long LT": _of((0x00204000, "LT", "x" * 70001)),
        "long UT": _of((0x0040A160, "UT", "x" * 70001)),
        "long CS": _of((0x00080060, "CS", "X" * 70000)),
        "many CS": _of((0x00080008, "CS", ["ABCDEFGH"] * 9000)),
        "many DS": _of((0x30060050, "DS", [f"{i / 3:.4f}" for i in range(9000)])),
        "many IS": _of((0x00081160, "IS", [123456] * 12000)),
        "many US": _of((0x00280010, "US", [5] * 40000)),
        "many UL": _of((0x00209157, "UL", [5] * 20000)),
        "IS as it came": _of((0x00200013, "IS", "+0005 ")),
        "UI that is too long": _of((0x00200052, "UI", "1." * 40 + "1")),
        "UI that is no ASCII": _of((0x00200052, "UI", "1.2é")),
        "CS that is no ASCII": _of((0x00080060, "CS", "é")),
        "floats": _of((0x00700022, "FL", [1.5, 2.5, 1e30]), (0x00189087, "FD", 1.1)),
        "tags": _of((0x00209165, "AT", [0x00200052, 0x00080018])),
        "control characters": _of((0x00204000, "LT", "a\r\nb\x1b\x07c")),
        "parts that are empty": _of((0x00181020, "LO", ["", "a", ""]), (0x00181021, "LO", ["a"])),
        "nothing": _of(*((0x00100010, "PN", None), (0x00200013, "IS", None), (0x00180050, "DS", None))),
        "a list of nothing": _of((0x00280030, "DS", []), (0x00209157, "UL", []), (0x00700022, "FL", [])),
    }
)
