"""The configuration of a bundle: the parts that its inference.json describes, built by MONAI's own parser.

A configuration is a program: it names classes and functions by `_target_`, and holds expressions behind `$`. Unless a
person said that this bundle's own code may run, a part is built only if everything that it reaches by reference is a
class or function of MONAI or torch that computes on arrays, and every expression a plain call of such. What no part
needs, as data sets, handlers and the evaluator, is never looked at.
"""

import ast
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from monai.bundle.config_item import ComponentLocator, ConfigComponent, ConfigExpression
from monai.bundle.config_parser import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

import workers.ensemble
import workers.feature_pyramid
from dicom_node.core.errors import BundleInvalid

#: Where classes and functions come from that compute.
_COMPUTING = (
    "monai.apps.detection.",
    "monai.inferers.",
    "monai.losses.",
    "monai.networks.",
    "monai.transforms.",
    "torch.nn.",
)
#: Parts of those that read and write files.
_NOT_COMPUTING = ("monai.transforms.io.", "monai.apps.detection.transforms.box_io")
#: Single ones beside them.
_SINGLE = frozenset({"torch.device", "torch.cuda.is_available", "workers.ensemble.Ensemble"})
#: What may be called of a part that was built.
_METHODS = frozenset(
    {
        "eval",
        "float",
        "set_box_coder_weights",
        "set_box_selector_parameters",
        "set_sliding_window_inferer",
        "set_target_keys",
        "to",
    }
)
_CONSTANTS = (bool, int, float, str, torch.dtype)
_BUILTINS = frozenset({"bool", "dict", "float", "int", "len", "list", "max", "min", "str", "tuple"})
_MODULES = ("monai", "torch", "workers")
_SYNTAX = (
    ast.Expression,
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.Attribute,
    ast.Call,
    ast.keyword,
    ast.UnaryOp,
    ast.unaryop,
    ast.BinOp,
    ast.operator,
    ast.BoolOp,
    ast.boolop,
    ast.Compare,
    ast.cmpop,
    ast.IfExp,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.Subscript,
    ast.Slice,
)
#: What stands in for a reference when an expression is looked at.
_REFERENCE = "_reference_"

#: Functions of MONAI that need torchvision, and ours that build the same without it.
STAND_INS = MappingProxyType(
    {
        "monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor": (
            "workers.feature_pyramid.resnet_fpn_feature_extractor"
        ),
    }
)
#: Switches of published bundles that say what files their author had: what comes from a scanner is not resampled yet.
SWITCHES: Mapping[str, Any] = MappingProxyType({"whether_raw_luna16": True})
_BUILD_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ImportError, SyntaxError)


class Configuration:
    """One bundle's configuration at work: parts that refer to the same part share it."""

    def __init__(
        self,
        content: Mapping[str, Any],
        metadata: Mapping[str, Any],
        *,
        bundle: str,
        file: str,
        folder: Path,
        own_code: bool = False,
    ) -> None:
        """`file` names it in messages; `own_code` allows whatever the configuration says."""
        self._bundle, self._file, self._folder, self._own_code = bundle, file, folder, own_code
        given = {"_meta_": dict(metadata), **deepcopy(dict(content))}
        # Where networks compute is the settings' to say, and not the bundle's.
        given |= {"bundle_root": str(folder)} | ({"device": "$torch.device('cpu')"} if "device" in given else {})
        given |= {key: value for key, value in SWITCHES.items() if key in given}
        self._parser = ConfigParser(
            _replaced(given if own_code else _without_imports(given)), globals={"workers": workers}
        )
        self._locator = ComponentLocator()
        try:
            # Once: to parse again would build every part again.
            self._parser.parse()
        except (*_BUILD_ERRORS, OSError) as error:
            raise BundleInvalid(f"bundle {bundle}: {file} cannot be parsed ({_cause(error)}); mend it") from error

    def __contains__(self, key: str) -> bool:
        return key in self._parser

    def raw(self, key: str) -> Any:
        """What stands under a key ("network_def::channels"), not built; None where nothing does."""
        return self._parser.get(key)

    def built(self, key: str) -> Any:
        """The part of this name; BundleInvalid where there is none, it is not allowed, or it cannot be built."""
        if key not in self._parser:
            raise BundleInvalid(f"bundle {self._bundle}: {self._file} has no {key}; add it")
        try:
            with self._own_imports(), warnings.catch_warnings():
                # What MONAI means to change tells the bundle's author, and nobody here.
                warnings.simplefilter("ignore", FutureWarning)
                if not self._own_code:
                    self._check(key, set())
                return self._parser.get_parsed_content(key, instantiate=True)
        except _BUILD_ERRORS as error:
            raise BundleInvalid(f"bundle {self._bundle}: {key} in {self._file}: {_cause(error)}") from error

    @contextmanager
    def _own_imports(self) -> Iterator[None]:
        """Where the bundle's own code may run, its modules can be imported; two bundles may both have `scripts`."""
        if not self._own_code:
            yield
            return
        root = str(self._folder.resolve())
        sys.path.insert(0, root)
        try:
            yield
        finally:
            sys.path.remove(root)
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None) or "").startswith(root):
                    del sys.modules[name]

    def _check(self, key: str, seen: set[str]) -> None:
        """Raise BundleInvalid unless all that a part reaches is allowed."""
        key = ReferenceResolver.normalize_id(key)
        if key in seen or key not in self._parser:
            return
        seen.add(key)
        content = self._parser.get(key)
        if ConfigComponent.is_instantiable(content):
            self._check_target(key, content["_target_"])
        elif ConfigExpression.is_expression(content):
            self._check_expression(key, content[len(ConfigExpression.prefix) :])
        for reached in ReferenceResolver.find_refs_in_config(content, key):
            self._check(reached, seen)

    def _check_target(self, key: str, target: Any) -> None:
        if not isinstance(target, str) or target.startswith(("$", "@", "%")):
            raise self._refused(key, "a class that is computed")
        homes = self._locator.get_component_module_name(target)
        paths = [f"{home}.{target}" for home in homes] if isinstance(homes, list) else [f"{homes}.{target}"]
        for path in paths if homes else [target]:
            if not _computes(path):
                raise self._refused(key, path)

    def _check_expression(self, key: str, text: str) -> None:
        tree = ast.parse(re.sub(r"@\w+(?:(?:::|#)\w+)*", _REFERENCE, text).strip(), mode="eval")
        nodes = list(ast.walk(tree))
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if not isinstance(node, _SYNTAX):
                raise self._refused(key, f"an expression with {type(node).__name__}")
            if isinstance(node, ast.Name) and node.id not in {_REFERENCE, *_MODULES, *_BUILTINS}:
                raise self._refused(key, node.id)
            if isinstance(node, ast.Name) and node.id in _MODULES and id(node) not in inner:
                raise self._refused(key, f"the module {node.id}")
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                self._check_attribute(key, node, called=id(node) in called)
            if isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute | ast.Name):
                raise self._refused(key, f"a call of {ast.unparse(node.func)}")

    def _check_attribute(self, key: str, node: ast.Attribute, *, called: bool) -> None:
        """A dotted path from a module on, or one method of a part."""
        root, path = node.value, [node.attr]
        while isinstance(root, ast.Attribute):
            path.insert(0, root.attr)
            root = root.value
        dotted = ast.unparse(node)
        if not (isinstance(root, ast.Name) and root.id in _MODULES):
            if len(path) > 1 or path[0] not in _METHODS or not called:
                raise self._refused(key, dotted.replace(_REFERENCE, "a part's "))
        elif not (_computes(dotted) or (not called and isinstance(_located(dotted), _CONSTANTS))):
            raise self._refused(key, dotted)

    def _refused(self, key: str, what: str) -> BundleInvalid:
        reason = f"bundle {self._bundle}: {key} in {self._file} needs {what}, which is not of what MONAI computes with"
        mend = "if you trust this bundle as you trust a program, set own_code = true for it in [[bundles]]"
        return BundleInvalid(f"{reason}; {mend}")


def _computes(path: str) -> bool:
    """Whether a dotted path is a class or function that only computes, wherever the path leads through."""
    if path in _SINGLE or path in STAND_INS.values():
        return True
    found = _located(path)
    home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    return home.startswith(_COMPUTING) and not home.startswith(_NOT_COMPUTING)


def _located(path: str) -> Any:
    """What a dotted path names: a module that is loaded already, and from there attribute by attribute."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        found = sys.modules.get(".".join(parts[:end]))
        if found is None:
            continue
        for name in parts[end:]:
            if name.startswith("_") or not hasattr(found, name):
                return None
            found = getattr(found, name)
        return found
    return None


def _replaced(content: Any) -> Any:
    """The content with our stand-ins in place of what needs a package that is not here."""
    if isinstance(content, Mapping):
        return {key: _replaced(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_replaced(value) for value in content]
    if isinstance(content, str):
        for theirs, ours in STAND_INS.items():
            content = content.replace(theirs, ours)
    return content


def _without_imports(content: Any) -> Any:
    """The content without its import statements, which the parser would run wherever they stand."""
    if isinstance(content, Mapping):
        return {key: _without_imports(value) for key, value in content.items() if not _imports(value)}
    if isinstance(content, list):
        return [_without_imports(value) for value in content if not _imports(value)]
    return content


def _imports(value: Any) -> bool:
    if not ConfigExpression.is_expression(value):
        return False
    try:
        body = ast.parse(value[len(ConfigExpression.prefix) :]).body
    except (SyntaxError, ValueError):
        # What is no statement is refused where a part needs it, and not looked at where none does.
        return "import" in value
    return any(isinstance(node, ast.Import | ast.ImportFrom) for statement in body for node in ast.walk(statement))


def _cause(error: BaseException) -> str:
    """The first line of the innermost reason: MONAI wraps what went wrong in what it was doing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
