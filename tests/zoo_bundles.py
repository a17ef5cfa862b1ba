"""Bundles as MONAI's Model Zoo publishes them: their configurations typed anew, with weights that a test makes."""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dicom_node.settings import BundleSettings
from workers.bundles import WEIGHTS, Bundle, load_bundle

Content = dict[str, Any]

#: lung_nodule_ct_detection, a RetinaNet over a residual network with 50 layers, trained on LUNA16: its metadata of
#: version 0.6.8, its configuration of one that still names the dictionary of metadata beside the image.
NODULE_METADATA: Content = {
    "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20220324.json",
    "version": "0.6.8",
    "monai_version": "1.4.0",
    "pytorch_version": "2.4.0",
    "numpy_version": "1.24.4",
    "optional_packages_version": {"nibabel": "5.2.1", "pytorch-ignite": "0.4.11", "torchvision": "0.19.0"},
    "name": "Lung nodule CT detection",
    "task": "CT lung nodule detection",
    "description": "volumetric (3D) detection of the lung lesion from CT image on LUNA16 dataset",
    "authors": "MONAI team",
    "copyright": "Copyright (c) MONAI Consortium",
    "intended_use": "This is an example, not to be used for diagnostic purposes",
    "network_data_format": {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude",
                "modality": "CT",
                "num_channels": 1,
                "spatial_shape": ["16*n", "16*n", "8*n"],
                "dtype": "float16",
                "value_range": [0, 1],
                "is_patch_data": True,
                "channel_def": {"0": "image"},
            }
        },
        "outputs": {
            "pred": {
                "type": "object",
                "format": "dict",
                "dtype": "float16",
                "num_channels": 1,
                "spatial_shape": ["n", "n", "n"],
                "value_range": [-10000, 10000],
            }
        },
    },
}
_DETECTION = "monai.apps.detection"
NODULE_CONFIGURATION: Content = {
    "whether_raw_luna16": False,
    "whether_resampled_luna16": "$(not @whether_raw_luna16)",
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "ckpt_dir": "$@bundle_root + '/models'",
    "dataset_dir": "/datasets/LUNA16_Images_resample",
    "data_list_file_path": "$@bundle_root + '/LUNA16_datasplit/dataset_fold0.json'",
    "test_datalist": "$monai.data.load_decathlon_datalist(@data_list_file_path, base_dir=@dataset_dir)",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "amp": True,
    "spatial_dims": 3,
    "num_classes": 1,
    "force_sliding_window": False,
    "size_divisible": [16, 16, 8],
    "infer_patch_size": [512, 512, 192],
    "anchor_generator": {
        "_target_": f"{_DETECTION}.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
        "feature_map_scales": [1, 2, 4],
        "base_anchor_shapes": [[6, 8, 4], [8, 6, 5], [10, 10, 6]],
    },
    "backbone": (
        "$monai.networks.nets.resnet.resnet50"
        "(spatial_dims=3,n_input_channels=1,conv1_t_stride=[2,2,1],conv1_t_size=[7,7,7])"
    ),
    "feature_extractor": (
        f"${_DETECTION}.networks.retinanet_network.resnet_fpn_feature_extractor(@backbone,3,False,[1,2],None)"
    ),
    "network_def": {
        "_target_": "RetinaNet",
        "spatial_dims": "@spatial_dims",
        "num_classes": "@num_classes",
        "num_anchors": 3,
        "feature_extractor": "@feature_extractor",
        "size_divisible": "@size_divisible",
        "use_list_output": False,
    },
    "network": "$@network_def.to(@device)",
    "detector": {
        "_target_": "RetinaNetDetector",
        "network": "@network",
        "anchor_generator": "@anchor_generator",
        "debug": False,
        "spatial_dims": "@spatial_dims",
        "num_classes": "@num_classes",
        "size_divisible": "@size_divisible",
    },
    "detector_ops": [
        "$@detector.set_target_keys(box_key='box', label_key='label')",
        "$@detector.set_box_selector_parameters"
        "(score_thresh=0.02,topk_candidates_per_level=1000,nms_thresh=0.22,detections_per_img=300)",
        "$@detector.set_sliding_window_inferer"
        "(roi_size=@infer_patch_size,overlap=0.25,sw_batch_size=1,mode='constant',device='cpu')",
    ],
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {
                "_target_": "LoadImaged",
                "keys": "image",
                "meta_key_postfix": "meta_dict",
                "_disabled_": "@whether_raw_luna16",
            },
            {
                "_target_": "LoadImaged",
                "keys": "image",
                "meta_key_postfix": "meta_dict",
                "reader": "itkreader",
                "affine_lps_to_ras": True,
                "_disabled_": "@whether_resampled_luna16",
            },
            {"_target_": "EnsureChannelFirstd", "keys": "image", "meta_key_postfix": "meta_dict"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {
                "_target_": "Spacingd",
                "keys": "image",
                "pixdim": [0.703125, 0.703125, 1.25],
                "_disabled_": "@whether_resampled_luna16",
            },
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": -1024.0,
                "a_max": 300.0,
                "b_min": 0.0,
                "b_max": 1.0,
                "clip": True,
            },
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "dataset": {"_target_": "Dataset", "data": "$@test_datalist", "transform": "@preprocessing"},
    "inferer": {
        "_target_": "scripts.detection_inferer.RetinaNetInferer",
        "detector": "@detector",
        "force_sliding_window": "@force_sliding_window",
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {
                "_target_": "ClipBoxToImaged",
                "box_keys": "box",
                "label_keys": "label",
                "box_ref_image_keys": "image",
                "remove_empty": True,
            },
            {
                "_target_": "AffineBoxToWorldCoordinated",
                "box_keys": "box",
                "box_ref_image_keys": "image",
                "image_meta_key_postfix": "meta_dict",
                "affine_lps_to_ras": True,
            },
            {"_target_": "ConvertBoxModed", "box_keys": "box", "src_mode": "xyzxyz", "dst_mode": "cccwhd"},
            {"_target_": "DeleteItemsd", "keys": ["image"]},
        ],
    },
    "handlers": [
        {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
    ],
    "run": ["$@evaluator.run()"],
}

#: spleen_ct_segmentation: a UNet in sliding windows, softmax and the most probable class.
SPLEEN_METADATA: Content = {
    **{key: NODULE_METADATA[key] for key in ("monai_version", "pytorch_version", "numpy_version", "intended_use")},
    "version": "0.5.7",
    "name": "Spleen CT segmentation",
    "task": "Decathlon spleen segmentation",
    "description": "volumetric (3D) segmentation of the spleen from CT image",
    "authors": "MONAI team",
    "network_data_format": {
        "inputs": {
            "image": {"type": "image", "format": "hounsfield", "num_channels": 1, "spatial_shape": [96, 96, 96]}
        },
        "outputs": {
            "pred": {
                "type": "image",
                "format": "segmentation",
                "num_channels": 2,
                "channel_def": {"0": "background", "1": "spleen"},
            }
        },
    },
}
SPLEEN_CONFIGURATION: Content = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "dataset_dir": "/workspace/data/Task09_Spleen",
    "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [16, 32, 64, 128, 256],
        "strides": [2, 2, 2, 2],
        "num_res_units": 2,
        "norm": "batch",
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": -57,
                "a_max": 164,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "sw_batch_size": 4, "overlap": 0.5},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred"},
        ],
    },
    "initialize": ["$monai.utils.set_determinism(seed=123)"],
    "run": ["$@evaluator.run()"],
}


def published(
    folder: Path,
    metadata: Mapping[str, Any],
    configuration: Mapping[str, Any],
    change: Callable[[Content, Content], object] = lambda _metadata, _configuration: None,
) -> Path:
    """Write a bundle without weights and without checksums, as it is before its large files were fetched."""
    described, configured = deepcopy(dict(metadata)), deepcopy(dict(configuration))
    change(described, configured)
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(described))
    (folder / "configs" / "inference.json").write_text(json.dumps(configured))
    return folder


def with_weights(
    folder: Path, settings: BundleSettings | None = None, change: Callable[[nn.Module], object] = lambda _network: None
) -> Bundle:
    """The bundle loaded, after weights were made for the network that it describes, the same each time, and changed."""
    (folder / WEIGHTS).touch()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = load_bundle(folder, settings).parts().built("network_def")
    with torch.no_grad():
        change(network)
    torch.save(network.state_dict(), folder / WEIGHTS)
    return load_bundle(folder, settings)


def sees_bright(network: nn.Module) -> None:
    """Make a RetinaNet see nothing but how bright it is: its first channel carries a blurred image to every head."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
    body, pyramid = network.feature_extractor.body, network.feature_extractor.fpn
    body.conv1.weight[0, 0] = 1.0 / body.conv1.weight[0, 0].numel()
    body.layer1[0].downsample[0].weight[0, 0] = 1.0
    pyramid.inner_blocks[0].weight[0, 0] = 1.0
    for head in (pyramid.layer_blocks[0], *(layer for layer in network.classification_head.conv if _is_conv(layer))):
        head.weight[0, 0, 1, 1, 1] = 1.0
    logits = network.classification_head.cls_logits
    # Of the anchors the last one alone; what is brighter than half of full white, after normalisation.
    logits.weight[2, 0, 1, 1, 1] = 1.0
    logits.bias.fill_(-1000.0)
    logits.bias[2] = -20.0
    # Anchors stand in the middle of a cell of features, what was seen at its first voxel: half a cell of 4 x 4 x 2
    # back, of anchors of 10 x 10 x 6.
    network.regression_head.bbox_reg.bias.view(3, 6)[2, :3] = torch.tensor([-0.2, -0.2, -1.0 / 6.0])


def _is_conv(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv3d)
