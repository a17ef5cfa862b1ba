"""A bundle's configuration builds what computes, and nothing else unless a person trusts its code."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dicom_node.core.errors import BundleInvalid
from workers.configuration import Configuration

RETINA = "monai.apps.detection.networks.retinanet_network"


def configuration(content: dict[str, Any], folder: Path = Path("/nowhere"), own_code: bool = False) -> Configuration:
    return Configuration(content, {}, bundle="zoo", file="inference.json", folder=folder, own_code=own_code)


def test_parts_that_refer_to_the_same_part_share_it() -> None:
    parts = configuration({"network_def": {"_target_": "torch.nn.Identity"}, "network": "$@network_def.to('cpu')"})

    assert parts.built("network") is parts.built("network_def")


@pytest.mark.parametrize(
    "content",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "builtins.eval"},
        {"_target_": "subprocess.run", "args": ["true"]},
        {"_target_": "torch.load", "f": "weights"},
        {"_target_": "torch.hub.load"},
        {"_target_": "monai.transforms.io.array.os.system", "command": "true"},
        {"_target_": "monai.transforms.SaveImage"},
        {"_target_": "SaveImage"},
        {"_target_": "monai.apps.utils.download_url", "url": "http://nowhere"},
        {"_target_": "scripts.network.Network"},
        {"_target_": "$__import__('os').system"},
        {"_target_": "torch.nn.Sequential", "args": "$__import__('os').system('true')"},
        {"_target_": "torch.nn.Identity", "given": {"deep": ["@other"]}},
        "$open('/etc/passwd').read()",
        "$().__class__",
        "$(lambda: 1)()",
        "$[x for x in (1, 2)]",
        "$torch.load('weights')",
        "$torch.os.system('true')",
        "$torch.os",
        "$torch",
        "$monai.bundle.run()",
        "$workers.configuration.sys.exit()",
        "$torch.nn.Identity().to('cpu').__reduce__",
        "$'{0.__class__}'.format(1)",
        "$@other",
    ],
)
def test_what_does_more_than_compute_is_refused_with_the_mend(content: Any) -> None:
    parts = configuration({"part": content, "other": "$__import__('os').getcwd()"})

    with pytest.raises(BundleInvalid, match="own_code = true"):
        parts.built("part")


def test_what_no_part_needs_is_never_looked_at(tmp_path: Path) -> None:
    told = tmp_path / "told"
    parts = configuration(
        {
            "imports": ["$import os", f"$__import__('pathlib').Path('{told}').touch()"],
            "nested": {"deep": ["$import antigravity"]},
            "evaluator": {"_target_": "scripts.evaluator.Evaluator", "run": f"$open('{told}', 'w')"},
            "network_def": {
                "_target_": "torch.nn.Conv3d",
                "in_channels": 1,
                "out_channels": "$1 + 1",
                "kernel_size": 1,
            },
        }
    )

    assert parts.built("network_def").out_channels == 2
    assert not told.exists()


def test_a_bundles_own_code_runs_where_a_person_trusts_it_and_two_do_not_mix(tmp_path: Path) -> None:
    for name, value in (("first", 1), ("second", 2)):
        scripts = tmp_path / name / "scripts"
        scripts.mkdir(parents=True)
        (scripts / "__init__.py").touch()
        (scripts / "net.py").write_text(f"def built():\n    return {value}\n")
        parts = configuration({"network_def": {"_target_": "scripts.net.built"}}, tmp_path / name, own_code=True)
        assert parts.built("network_def") == value

    with pytest.raises(BundleInvalid, match=r"scripts\.net\.built"):
        configuration({"network_def": {"_target_": "scripts.net.built"}}, tmp_path / "first").built("network_def")


def test_where_networks_compute_is_not_the_bundles_to_say() -> None:
    parts = configuration({"device": "$torch.device('cuda:0')", "there": "$torch.zeros", "at": "@device"})

    assert parts.built("at") == torch.device("cpu")


def test_a_feature_pyramid_is_built_without_torchvision() -> None:
    """Its weights bear the names that they have with it; a residual network of one layer is as good as one of fifty."""
    parts = configuration(
        {
            "backbone": (
                "$monai.networks.nets.resnet.ResNet('basic',[1,1,1,1],[8,16,32,64],"
                "spatial_dims=3,n_input_channels=1,conv1_t_stride=[2,2,1])"
            ),
            "extractor": f"${RETINA}.resnet_fpn_feature_extractor(@backbone,3,False,[1,2],None)",
            "same": {"_target_": f"{RETINA}.resnet_fpn_feature_extractor", "backbone": "@backbone", "spatial_dims": 3},
        }
    )
    extractor = parts.built("extractor").eval()
    levels = extractor(torch.zeros(1, 1, 32, 32, 16))

    assert [tuple(level.shape) for level in levels.values()] == [
        (1, 256, 8, 8, 8),
        (1, 256, 4, 4, 4),
        (1, 256, 2, 2, 2),
    ]
    assert {name.split(".")[0] for name in extractor.state_dict()} == {"body", "fpn"}
    assert len(parts.built("same")(torch.zeros(1, 1, 32, 32, 16))) == 4


def test_a_part_that_is_missing_or_broken_is_named() -> None:
    parts = configuration({"network_def": {"_target_": "UNet", "spatial_dims": 3}})

    with pytest.raises(BundleInvalid, match="has no inferer"):
        parts.built("inferer")
    with pytest.raises(BundleInvalid, match=r"network_def in inference\.json: .*in_channels"):
        parts.built("network_def")
