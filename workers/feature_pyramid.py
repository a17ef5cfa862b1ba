"""A feature pyramid over a residual network: what MONAI builds with torchvision's help, built without it.

Modules bear the names of MONAI's own, so that weights of published bundles fit: `body` is the residual network as far
as its last returned layer, `fpn` the pyramid.
"""

from collections import OrderedDict
from collections.abc import Sequence

from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

#: Channels of every level of the pyramid, as MONAI's own has them.
_OUT_CHANNELS = 256


class ResNetBody(nn.ModuleDict):
    """The layers of a residual network up to the last that is asked for; gives the outputs of those asked for."""

    def __init__(self, backbone: ResNet, returned_layers: Sequence[int]) -> None:
        last = f"layer{max(returned_layers)}"
        children = list(backbone.named_children())
        wanted = [name for name, _ in children].index(last) + 1
        super().__init__(OrderedDict(children[:wanted]))
        self._levels = {f"layer{number}": str(level) for level, number in enumerate(returned_layers)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps by level, the finest first."""
        found: dict[str, Tensor] = {}
        for name, layer in self.items():
            images = layer(images)
            if name in self._levels:
                found[self._levels[name]] = images
        return found


class ResNetPyramid(nn.Module):
    """A residual network with a feature pyramid above it."""

    def __init__(self, backbone: ResNet, spatial_dims: int, returned_layers: Sequence[int]) -> None:
        super().__init__()
        first = backbone.in_planes // 8
        self.out_channels = _OUT_CHANNELS
        self.body = ResNetBody(backbone, returned_layers)
        self.fpn = FeaturePyramidNetwork(
            spatial_dims=spatial_dims,
            in_channels_list=[first * 2 ** (number - 1) for number in returned_layers],
            out_channels=self.out_channels,
            extra_blocks=LastLevelMaxPool(spatial_dims),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of equal depth by level, the finest first, and one coarser than all of them."""
        levels: dict[str, Tensor] = self.fpn(self.body(images))
        return levels


def resnet_fpn_feature_extractor(
    backbone: ResNet,
    spatial_dims: int,
    pretrained_backbone: bool = False,
    returned_layers: Sequence[int] = (1, 2, 3),
    trainable_backbone_layers: int | None = None,
) -> ResNetPyramid:
    """As MONAI's function of this name is called; which layers could be trained makes no difference to a reading."""
    del pretrained_backbone, trainable_backbone_layers
    if not returned_layers or min(returned_layers) < 1 or max(returned_layers) > 4:
        raise ValueError(f"returned_layers are {list(returned_layers)}; a residual network has layers 1 to 4")
    return ResNetPyramid(backbone, spatial_dims, tuple(returned_layers))
