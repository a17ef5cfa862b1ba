"""The small language of a route's `when`: conditions over header attributes, parsed and never evaluated as code.

    Modality == "CT" and SliceThickness <= 5 and not derived and "CHEST" in SeriesDescription

- An attribute is named by its keyword; alone it asks whether it has a value. Literals are numbers, texts, True and
  False.
- == != < <= > >= (also chained), in, not in, and, or, not, parentheses. Texts compare without regard to case.
- `X in ["A", "B"]`: one of a list; `"A" in ImageType`: one of its values; `"CHEST" in SeriesDescription`: a part of it.
- derived, localizer, contrast, axial, coronal, sagittal stand for what the header says of the image.

Logic has three values: a comparison with an absent attribute, or of text with a number, is neither true nor false, and
so is its `not`. Only what is true matches: `not SliceThickness <= 5` does not choose a header without a thickness.
"""

import ast
import difflib
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from dicom_node.core.condition import (
    SIGNS,
    WORDS,
    Comparison,
    Condition,
    Every,
    Not,
    Operand,
    Scalar,
    Some,
    Truth,
    Value,
    folded,
)
from dicom_node.core.errors import ExpressionError
from dicom_node.core.study import KEPT_KEYWORDS, Attributes

#: Longer and deeper than a person writes; keeps any text from exhausting the parser.
MAXIMUM_LENGTH = 1000
MAXIMUM_DEPTH = 20


@dataclass(frozen=True)
class Expression:
    """A parsed `when`; equal when its text is."""

    text: str
    condition: Condition

    def matches(self, attributes: Attributes) -> bool:
        """Whether the expression is true of a header."""
        return self.condition.holds(attributes) is True

    def explain(self, attributes: Attributes) -> str:
        """The first part that failed, in words; empty when the header matches."""
        return "" if self.matches(attributes) else self.condition.failure(attributes)


def parse_expression(
    text: str, *, kept: Collection[str] = KEPT_KEYWORDS, known: Collection[str] = frozenset()
) -> Expression:
    """Parse an expression over the `kept` keywords.

    Raises ExpressionError with column and mend. `known` are further keywords that exist in DICOM, so that one of them
    is refused as not kept and not as misspelt.
    """
    if len(text) > MAXIMUM_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters, more than {MAXIMUM_LENGTH}; split the route")
    source = text.strip()
    return Expression(text=source, condition=_Parser(source, kept, known).condition(_tree(source)))


def _tree(source: str) -> ast.expr:
    if not source:
        raise ExpressionError('the expression is empty; write for example Modality == "CT"')
    try:
        with warnings.catch_warnings():
            # What Python only warns of (`5and`, a stray backslash) is refused here.
            warnings.simplefilter("error")
            return ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(f"column {error.offset or 1}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"the expression cannot be read: {error or type(error).__name__}") from None


class _Parser:
    """Walks a syntax tree and lets through only what the language has."""

    def __init__(self, source: str, kept: Collection[str], known: Collection[str]) -> None:
        self._source = source
        self._kept = frozenset(kept)
        self._known = frozenset(known)

    def condition(self, node: ast.expr, depth: int = 1) -> Condition:
        """The condition that a node stands for."""
        if depth > MAXIMUM_DEPTH:
            raise self._fault(node, f"nested deeper than {MAXIMUM_DEPTH} levels; split the route")
        text = self._text(node)
        match node:
            case ast.BoolOp():
                parts = tuple(self.condition(value, depth + 1) for value in node.values)
                return Every(parts, text) if isinstance(node.op, ast.And) else Some(parts, text)
            case ast.UnaryOp(op=ast.Not()):
                return Not(self.condition(node.operand, depth + 1), text)
            case ast.Compare():
                return self._comparison(node, text)
            case ast.Name() | ast.Constant(value=bool()):
                return Truth(self._operand(node), text)
            case ast.Constant() | ast.UnaryOp():
                raise self._fault(node, f"{text} alone is no condition; compare an attribute with it")
        raise self._foreign(node)

    def _comparison(self, node: ast.Compare, text: str) -> Condition:
        links: list[Condition] = []
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            if type(op) not in SIGNS:
                raise self._fault(node, "`is` is not part of the language; write == or !=")
            sign = SIGNS[type(op)]
            among = "in" in sign.text
            link = text if len(node.ops) == 1 else f"{self._text(left)} {sign.text} {self._text(right)}"
            links.append(Comparison(self._operand(left), sign, self._right(right, among), link))
            left = right
        return links[0] if len(links) == 1 else Every(tuple(links), text)

    def _right(self, node: ast.expr, among: bool) -> Operand:
        """The right side; only `in` takes a list of literals."""
        if not isinstance(node, ast.List | ast.Tuple):
            return self._operand(node)
        if not among:
            raise self._fault(node, "a list stands only after `in` or `not in`")
        values = tuple(self._literal(element) for element in node.elts)
        if not values:
            raise self._fault(node, "the list is empty; nothing is in it")
        return Operand(self._text(node), values)

    def _operand(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.Name):
            return self._named(node)
        return Operand(self._text(node), self._literal(node))

    def _literal(self, node: ast.expr) -> Scalar:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                literal: Value | None = folded(value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                literal = -value
            case _:
                raise self._foreign(node)
        if literal is None or isinstance(literal, tuple):
            raise self._fault(node, "nothing equals an empty text; write `not Keyword` for no value")
        return literal

    def _named(self, node: ast.Name) -> Operand:
        name = node.id
        if name in self._kept or name in WORDS:
            return Operand(name)
        if name in self._known:
            raise self._fault(node, f"{name} is not kept by this node; kept are {', '.join(sorted(self._kept))}")
        near = difflib.get_close_matches(name, [*self._kept, *WORDS, *self._known], n=1)
        mend = f"did you mean {near[0]}?" if near else f"attributes are {', '.join(sorted(self._kept))}"
        raise self._fault(node, f"{name} is no attribute keyword; {mend}")

    def _foreign(self, node: ast.expr) -> ExpressionError:
        reason = _FOREIGN.get(type(node), _allowed)(node)
        return self._fault(node, f"{self._text(node)} is not part of the language; {reason}")

    def _fault(self, node: ast.expr, message: str) -> ExpressionError:
        line = self._source.splitlines()[node.lineno - 1] if self._source.splitlines() else ""
        # Columns of a syntax tree count bytes of UTF-8.
        column = len(line.encode()[: node.col_offset].decode(errors="replace")) + 1
        return ExpressionError(f"column {column}: {message}")

    def _text(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._source, node) or ast.unparse(node)


def _allowed(_: ast.expr) -> str:
    return "it has comparisons, in, and, or, not, numbers, texts and lists"


_FOREIGN: Mapping[type[ast.expr], Callable[[ast.expr], str]] = {
    ast.BinOp: lambda _: "it does not calculate (for `and` and `or` write the words)",
    ast.List: lambda _: "a list stands only after `in` or `not in`",
    ast.Tuple: lambda _: "a list stands only after `in` or `not in`",
    ast.Call: lambda _: "it calls nothing",
}
