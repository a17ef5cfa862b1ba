"""Bundles: weights and their description on disk, after the MONAI bundle specification.

A bundle is software, not data: its configuration names classes that are built and holds expressions that are run. What
of that may be, `workers.configuration` says; checksums tell whether a bundle is still the one that was installed.
"""

import hashlib
import json
import pickle  # for the name of its error alone: weights are read with weights_only
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.errors import BundleInvalid
from dicom_node.core.uid import derived_uid
from dicom_node.settings import BundleSettings

if TYPE_CHECKING:
    import torch

    from workers.configuration import Configuration

#: Bundles that come with this software.
SHIPPED_BUNDLES = Path(__file__).parent / "shipped_bundles"
#: Those of them that have no algorithm of their own.
SHIPPED_BY_KIND = ("chest_xray_pneumonia",)

METADATA = "configs/metadata.json"
CONFIGURATION = "configs/inference.json"
WEIGHTS = "models/model.pt"
TORCHSCRIPT = "models/model.ts"
SUMS = "SHA256SUMS"

_NEEDED = (METADATA, CONFIGURATION)
_NEEDED_METADATA = ("version", "monai_version", "pytorch_version", "numpy_version", "network_data_format")
_BUILD_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)
#: Under which of these names a checkpoint may hold the weights, beside what training left there.
_WEIGHTS_IN_CHECKPOINTS = ("model", "network", "net", "state_dict")
#: Packages that bundles ask for to train, to read files and to run as programs of their own: nothing here needs them.
_OF_OTHER_USE = frozenset(
    {"einops", "fire", "ignite", "itk", "mlflow", "nibabel", "pytorch-ignite", "tensorboard", "torchvision", "tqdm"}
)
_PACKAGE_OF = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One bundle whose files are what they claim to be."""

    #: The folder's name: what routes call the algorithm.
    name: str
    folder: Path
    version: str
    #: SHA-256 over the names and checksums of all its files, weights and thresholds alike.
    checksum: str
    #: Whether the bundle brought its own checksums, and they agreed.
    verified: bool
    metadata: Mapping[str, Any]
    configuration: Mapping[str, Any]
    #: What the settings say of it.
    settings: BundleSettings = field(default_factory=lambda: BundleSettings(name="any"))

    @property
    def title(self) -> str:
        """The algorithm's name in reports."""
        return str(self.metadata.get("name") or self.name)

    @property
    def intended_use(self) -> str:
        """What its maker says it is for."""
        return str(self.metadata.get("intended_use") or "not stated")

    def number(self, section: str, key: str) -> float:
        """A number from a section of inference.json, such as a threshold."""
        value = (self.configuration.get(section) or {}).get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BundleInvalid(f"bundle {self.name}: {CONFIGURATION} has no number {section}.{key}; add it")
        return float(value)

    def network(self) -> "torch.nn.Module":
        """The network with its weights, on the CPU, in evaluation mode."""
        return self.assembled()[0]

    def assembled(self) -> tuple["torch.nn.Module", "Configuration"]:
        """The network, and the configuration whose further parts refer to this same one."""
        import torch  # here, because listing bundles must not wait for it

        parts = self.parts()
        if self.is_torchscript:
            return self._torchscript(), parts
        network = parts.built("network_def")
        if not isinstance(network, torch.nn.Module):
            raise BundleInvalid(f"bundle {self.name}: network_def in {CONFIGURATION} is no network")
        try:
            weights = torch.load(self.folder / WEIGHTS, map_location="cpu", weights_only=True)
            network.load_state_dict(_weights_in(weights))
        # torch names no narrower classes: a foreign pickle, a cut file and a wrong shape end in these.
        except (*_BUILD_ERRORS, EOFError, OSError, pickle.UnpicklingError) as error:
            reason = f"bundle {self.name}: {WEIGHTS} does not fit network_def ({_first_line(error)})"
            raise BundleInvalid(f"{reason}; export weights and configuration together") from error
        return network.eval(), parts

    @property
    def is_torchscript(self) -> bool:
        """Whether its network is a program of TorchScript, and no weights for one that the configuration describes."""
        return not (self.folder / WEIGHTS).is_file()

    def _torchscript(self) -> "torch.nn.Module":
        import torch

        try:
            return torch.jit.load(self.folder / TORCHSCRIPT, map_location="cpu").eval()
        except (*_BUILD_ERRORS, OSError) as error:
            reason = f"bundle {self.name}: {TORCHSCRIPT} cannot be loaded ({_first_line(error)})"
            raise BundleInvalid(f"{reason}; export it anew") from error

    def inferer(self) -> Any:
        """What runs the network over a volume, as inference.json describes it."""
        inferer = self.parts().built("inferer")
        if not callable(inferer):
            raise BundleInvalid(f"bundle {self.name}: inferer in {CONFIGURATION} is no inferer")
        return inferer

    def parts(self) -> "Configuration":
        """The configuration at work, with nothing built yet."""
        from workers.configuration import Configuration  # here, because listing bundles must not wait for MONAI

        return Configuration(
            self.configuration,
            self.metadata,
            bundle=self.name,
            file=CONFIGURATION,
            folder=self.folder,
            own_code=self.settings.own_code,
        )


def load_bundle(folder: Path, settings: BundleSettings | None = None) -> Bundle:
    """Check a bundle's files and description without building its network; BundleInvalid names file and mend."""
    settings = settings or BundleSettings(name=folder.name)
    name = settings.name
    for needed in _NEEDED:
        if not (folder / needed).is_file():
            raise BundleInvalid(f"bundle {name}: {needed} is missing; install the bundle again")
    _check_weights(folder, settings)
    sums = _checksums(folder)
    verified = (folder / SUMS).is_file()
    if verified:
        _verify(name, sums, _claimed(folder))
    elif folder.resolve().is_relative_to(SHIPPED_BUNDLES.resolve()):
        raise BundleInvalid(f"bundle {name}: {SUMS} is missing; install this software again")
    metadata = _json(folder, METADATA)
    for key in _NEEDED_METADATA:
        if key not in metadata:
            raise BundleInvalid(f"bundle {name}: {METADATA} has no {key}; add it")
    _check_packages(name, metadata)
    listing = "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items()))
    return Bundle(
        name=name,
        folder=folder,
        version=str(metadata["version"]),
        checksum=hashlib.sha256(listing.encode()).hexdigest(),
        verified=verified,
        metadata=metadata,
        configuration=_json(folder, CONFIGURATION),
        settings=settings,
    )


def _check_weights(folder: Path, settings: BundleSettings) -> None:
    """Raise BundleInvalid unless there are weights, or a program that may be run in their place."""
    if (folder / WEIGHTS).is_file():
        return
    if not (folder / TORCHSCRIPT).is_file():
        mend = "fetch the weights, which the Model Zoo keeps apart (large_files.yml), or install the bundle again"
        raise BundleInvalid(f"bundle {settings.name}: {WEIGHTS} is missing; {mend}")
    if not settings.torchscript:
        reason = f"bundle {settings.name}: {WEIGHTS} is missing, and {TORCHSCRIPT} is a program"
        raise BundleInvalid(f"{reason}; if it may run, set torchscript = true for it in [[bundles]]")


def _weights_in(checkpoint: Any) -> Any:
    """The weights by name: a checkpoint is them, or holds them beside what training left."""
    if isinstance(checkpoint, Mapping):
        for name in _WEIGHTS_IN_CHECKPOINTS:
            if isinstance(checkpoint.get(name), Mapping):
                return checkpoint[name]
    return checkpoint


def find_bundles(folders: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Folders that hold a bundle: in the given folders, then those shipped; of one name the first is taken."""
    found: dict[str, Path] = {}
    for parent in (*folders, SHIPPED_BUNDLES):
        for description in sorted(parent.glob(f"*/{METADATA}")):
            folder = description.parents[1]
            found.setdefault(folder.name, folder)
    return tuple(found.values())


def listed_bundles(listed: Sequence[BundleSettings]) -> tuple[BundleSettings, ...]:
    """What the settings list, and the shipped ones that are read by their kind of output without that."""
    names = {settings.name for settings in listed}
    return (*listed, *(BundleSettings(name=name) for name in SHIPPED_BY_KIND if name not in names))


def named_bundles(folders: Iterable[Path], listed: Iterable[BundleSettings]) -> dict[str, tuple[Path, BundleSettings]]:
    """Every bundle by the name that routes call it: those that the settings list, those found, and those shipped."""
    found = {folder.name: (folder, BundleSettings(name=folder.name)) for folder in find_bundles(folders)}
    for settings in listed:
        if settings.folder:
            found[settings.name] = (Path(settings.folder).expanduser(), settings)
        else:
            # One that is nowhere stays in the list, and says so when it is loaded.
            folder, _ = found.get(settings.name, (Path(settings.name), settings))
            found[settings.name] = (folder, settings)
    return found


def transform_name(content: Mapping[str, Any]) -> str:
    """A transform's name without its path, and without what tells that it takes a dictionary."""
    name = str(content.get("_target_", "")).rpartition(".")[2]
    return re.sub("(d|D|Dict)$", "", name)


def identification(bundle: Bundle, parameters: tuple[tuple[str, str], ...] = ()) -> AlgorithmIdentification:
    """The bundle as DICOM names the algorithm; the same UID wherever the same bundle is installed."""
    return AlgorithmIdentification(
        name=bundle.title,
        version=bundle.version,
        manufacturer=str(bundle.metadata.get("authors") or bundle.metadata.get("copyright") or "unknown"),
        device_uid=derived_uid("algorithm", bundle.title, bundle.version, bundle.checksum),
        checksum=bundle.checksum,
        parameters=parameters,
    )


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path of every file in the bundle but the list of checksums itself."""
    sums = {}
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if not path.resolve().is_relative_to(root):
            raise BundleInvalid(f"bundle {folder.name}: {relative} leads out of the bundle; replace it by a plain file")
        if path.is_file() and relative != SUMS and "__pycache__" not in path.parts:
            with path.open("rb") as file:
                sums[relative] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _claimed(folder: Path) -> dict[str, str]:
    """The checksums that the bundle brought, in the form of sha256sum."""
    claimed = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, path = line.partition(" ")
        path = path.lstrip(" *").removeprefix("./")
        pure = PurePosixPath(path)
        if len(digest) != 64 or not path or pure.is_absolute() or ".." in pure.parts:
            raise BundleInvalid(f"bundle {folder.name}: {SUMS} has an unusable line; write it with sha256sum")
        claimed[pure.as_posix()] = digest.lower()
    return claimed


def _verify(name: str, sums: Mapping[str, str], claimed: Mapping[str, str]) -> None:
    for path, digest in claimed.items():
        if path not in sums:
            raise BundleInvalid(f"bundle {name}: {path} is missing; install the bundle again")
        if sums[path] != digest:
            raise BundleInvalid(f"bundle {name}: {path} was altered (its checksum differs); install the bundle again")
    for path in sums:
        if path not in claimed:
            raise BundleInvalid(f"bundle {name}: {path} is not in {SUMS}; remove it or list it")


def _json(folder: Path, relative: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / relative).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleInvalid(f"bundle {folder.name}: {relative} is no JSON ({_first_line(error)}); mend it") from error
    if not isinstance(content, dict):
        raise BundleInvalid(f"bundle {folder.name}: {relative} is no JSON object; mend it")
    return content


def _check_packages(name: str, metadata: Mapping[str, Any]) -> None:
    """Raise BundleInvalid for a package that is missing, or older than the one the bundle was made with."""
    wanted = {package: metadata[key] for key, package in _PACKAGE_OF.items()}
    for package, needed in (metadata.get("required_packages_version") or {}).items():
        if package.lower() not in _OF_OTHER_USE:
            wanted[package] = needed
    for package, needed in wanted.items():
        try:
            there = version(package)
            # The local part tells the build (+cpu), not the version.
            fits = Version(there) >= Version(Version(str(needed)).public)
        except PackageNotFoundError as error:
            raise BundleInvalid(f"bundle {name} needs {package} {needed}, not installed here; install it") from error
        except InvalidVersion as error:
            raise BundleInvalid(f"bundle {name}: {METADATA} has no usable version of {package}: {needed!r}") from error
        if not fits:
            raise BundleInvalid(f"bundle {name} needs {package} {needed} or newer; installed is {there}: upgrade it")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
