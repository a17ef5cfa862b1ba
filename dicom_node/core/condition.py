"""Conditions over header attributes: what an expression is made of, when it holds, and in words why it does not."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicom_node.core.geometry import plane_of
from dicom_node.core.image_type import is_derived, is_localizer
from dicom_node.core.study import Attributes

Scalar = str | float | bool
Value = Scalar | tuple[Scalar, ...]

#: Words are free text that a person typed, perhaps about the patient: no reason repeats them.
_FREE_TEXT = frozenset({"ProtocolName", "SeriesDescription", "StudyDescription"})


def _has_contrast(attributes: Attributes) -> bool:
    agent = str(attributes.get("ContrastBolusAgent") or "").strip().casefold()
    return agent not in ("", "none", "no", "n")


def _in_plane(name: str) -> Callable[[Attributes], bool | None]:
    def ask(attributes: Attributes) -> bool | None:
        plane = plane_of(attributes)
        return None if plane is None else plane == name

    return ask


#: What may be asked of an image by one word.
WORDS: Mapping[str, Callable[[Attributes], bool | None]] = {
    "derived": is_derived,
    "localizer": is_localizer,
    "contrast": _has_contrast,
    "axial": _in_plane("axial"),
    "coronal": _in_plane("coronal"),
    "sagittal": _in_plane("sagittal"),
}


def _in(left: Value, right: Value) -> bool:
    return left in right if isinstance(right, tuple) else str(left) in str(right)


@dataclass(frozen=True)
class Sign:
    """A comparison sign."""

    text: str
    holds: Callable[..., bool]
    #: How a failed comparison with a literal goes on: "Modality is "MR", not "CT"".
    otherwise: str


SIGNS: Mapping[type[ast.cmpop], Sign] = {
    ast.Eq: Sign("==", operator.eq, "not"),
    ast.NotEq: Sign("!=", operator.ne, "which must not be"),
    ast.Lt: Sign("<", operator.lt, "not <"),
    ast.LtE: Sign("<=", operator.le, "not <="),
    ast.Gt: Sign(">", operator.gt, "not >"),
    ast.GtE: Sign(">=", operator.ge, "not >="),
    ast.In: Sign("in", _in, "not in"),
    ast.NotIn: Sign("not in", lambda left, right: not _in(left, right), "which must not be in"),
}


def folded(value: object) -> Value | None:
    """A value as it is compared: text without case and padding; None for an empty one."""
    match value:
        case bool():
            return value
        case int() | float():
            return None if math.isnan(value) else value
        case str():
            return value.strip().casefold() or None
        case tuple() | list():
            parts = (folded(part) for part in value)
            return tuple(part for part in parts if part is not None and not isinstance(part, tuple)) or None
    return None


def _kind(value: Value) -> str:
    if isinstance(value, tuple):
        return "list"
    return "word" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _comparable(left: Value, sign: Sign, right: Value) -> bool:
    kinds = (_kind(left), _kind(right))
    if "in" in sign.text:
        return kinds == ("text", "text") or (kinds[1] == "list" and kinds[0] != "list")
    if kinds[0] != kinds[1] or "list" in kinds:
        return False
    return "word" not in kinds or sign.text in ("==", "!=")


def _single(value: Value) -> Value:
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def _shown(keyword: str, value: object) -> str:
    if isinstance(value, tuple | list):
        return "\\".join(str(part) for part in value)
    if isinstance(value, str):
        return f"a text of {len(value)} characters" if keyword in _FREE_TEXT else f'"{value}"'
    return str(value)


@dataclass(frozen=True)
class Operand:
    """What a comparison compares: a literal, a list of them, an attribute or a word."""

    text: str
    literal: Value | None = None

    def value(self, attributes: Attributes) -> Value | None:
        """The operand's value in a header, or None when it has none there."""
        if self.literal is not None:
            return self.literal
        return WORDS[self.text](attributes) if self.text in WORDS else folded(attributes.get(self.text))

    def fact(self, attributes: Attributes) -> str:
        """The operand's value in words; empty for a literal."""
        if self.literal is not None:
            return ""
        value = self.value(attributes)
        if self.text in WORDS:
            unknown = f"it does not say whether it is {self.text}"
            return unknown if value is None else _WORD_FACTS[self.text][value is True]
        return f"{self.text} is {'absent' if value is None else _shown(self.text, attributes[self.text])}"


_WORD_FACTS: Mapping[str, tuple[str, str]] = {
    word: (f"it is not {phrase or word}", f"it is {phrase or word}")
    for word, phrase in (dict.fromkeys(WORDS, "") | {"localizer": "a localizer", "contrast": "with contrast"}).items()
}


@dataclass(frozen=True)
class Truth:
    """An attribute or a word standing alone: has it a value, is it so."""

    operand: Operand
    text: str

    def holds(self, attributes: Attributes) -> bool | None:
        """True, false, or None for neither."""
        value = self.operand.value(attributes)
        if self.operand.text in WORDS or self.operand.literal is not None:
            return value is True if value is not None else None
        return value is not None

    def operands(self) -> tuple[Operand, ...]:
        """What the condition asks for."""
        return (self.operand,)

    def failure(self, attributes: Attributes) -> str:
        """Why it does not hold."""
        return self.operand.fact(attributes) or f"{self.text} never holds"


@dataclass(frozen=True)
class Comparison:
    """One comparison of two operands."""

    left: Operand
    sign: Sign
    right: Operand
    text: str

    def holds(self, attributes: Attributes) -> bool | None:
        """True, false, or None for neither."""
        left, right = self.left.value(attributes), self.right.value(attributes)
        if left is None or right is None:
            return None
        left = _single(left)
        right = right if "in" in self.sign.text else _single(right)
        return self.sign.holds(left, right) if _comparable(left, self.sign, right) else None

    def operands(self) -> tuple[Operand, ...]:
        """What the condition asks for."""
        return (self.left, self.right)

    def failure(self, attributes: Attributes) -> str:
        """Why it does not hold: "SliceThickness is 7.5, not <= 5"."""
        left, right = self.left.value(attributes), self.right.value(attributes)
        facts = _facts(self, attributes)
        if left is None or right is None or not facts:
            return facts or f"{self.text} never holds"
        if self.holds(attributes) is None:
            return f"{facts}, which {self.text} cannot compare"
        if self.left.literal is None and self.right.literal is not None:
            return f"{facts}, {self.sign.otherwise} {self.right.text}"
        return f"{facts}, so {self.text} does not hold"


@dataclass(frozen=True)
class Not:
    """A negation."""

    part: "Condition"
    text: str

    def holds(self, attributes: Attributes) -> bool | None:
        """True, false, or None for neither."""
        held = self.part.holds(attributes)
        return None if held is None else not held

    def operands(self) -> tuple[Operand, ...]:
        """What the condition asks for."""
        return self.part.operands()

    def failure(self, attributes: Attributes) -> str:
        """Why it does not hold."""
        facts = _facts(self, attributes)
        if isinstance(self.part, Truth) and facts:
            return facts
        return f"{facts}, so {self.text} does not hold" if facts else f"{self.text} never holds"


@dataclass(frozen=True)
class Every:
    """Parts joined by `and`."""

    parts: tuple["Condition", ...]
    text: str

    def holds(self, attributes: Attributes) -> bool | None:
        """False if one part is, else None if one is neither, else true."""
        held = [part.holds(attributes) for part in self.parts]
        return False if False in held else None if None in held else True

    def operands(self) -> tuple[Operand, ...]:
        """What the condition asks for."""
        return tuple(operand for part in self.parts for operand in part.operands())

    def failure(self, attributes: Attributes) -> str:
        """Why the first part that does not hold does not."""
        return next(part.failure(attributes) for part in self.parts if part.holds(attributes) is not True)


@dataclass(frozen=True)
class Some:
    """Parts joined by `or`."""

    parts: tuple["Condition", ...]
    text: str

    def holds(self, attributes: Attributes) -> bool | None:
        """True if one part is, else None if one is neither, else false."""
        held = [part.holds(attributes) for part in self.parts]
        return True if True in held else None if None in held else False

    def operands(self) -> tuple[Operand, ...]:
        """What the condition asks for."""
        return tuple(operand for part in self.parts for operand in part.operands())

    def failure(self, attributes: Attributes) -> str:
        """Why no part holds."""
        return "; and ".join(dict.fromkeys(part.failure(attributes) for part in self.parts))


Condition = Truth | Comparison | Not | Every | Some


def _facts(condition: Condition, attributes: Attributes) -> str:
    """The values of all that a condition asks for, once each."""
    facts = dict.fromkeys(operand.fact(attributes) for operand in condition.operands())
    return " and ".join(fact for fact in facts if fact)
