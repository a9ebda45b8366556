"""The CIFAR ResNets with squeeze-and-excitation (Hu et al., Squeeze-and-Excitation Networks, 2018)."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.nets._blocks import BasicBlock, PadShortcut
from lightning_perturb.nets._pooled import PooledNet
from lightning_perturb.nets.resnet_cifar import cifar_backbone


class SqueezeExcitation(nn.Module):
    """Scales every channel by a number in (0, 1) that a small network, without biases, makes of all channels' means.

    Args:
        channels: number of channels.
        reduction: how many times fewer units the small network's hidden layer has; at least one is left.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, channels, H, W]`` to the same shape."""
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * scale[:, :, None, None]


class SEBasicBlock(BasicBlock):
    """A basic block whose residual branch ends with squeeze-and-excitation (Hu et al., Fig. 3).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution.
        reduction: as of :class:`SqueezeExcitation`.
        dropout: as of :class:`BasicBlock`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, reduction: int, dropout: float = 0.0) -> None:
        super().__init__(in_channels, out_channels, stride, shortcut=PadShortcut, dropout=dropout)
        self.excitation = SqueezeExcitation(out_channels, reduction)

    def residual(self, x: Tensor) -> Tensor:
        """The branch beside the shortcut."""
        scaled: Tensor = self.excitation(super().residual(x))
        return scaled


class CifarSEResNet(PooledNet):
    """The CIFAR ResNet of depth 6n + 2 with squeeze-and-excitation in every block.

    Takes images of any size; 64 features.

    Args:
        depth: number of weighted layers without those of squeeze-and-excitation, 6n + 2 with n blocks a stage.
        num_classes: number of classes.
        in_channels: channels of the images.
        reduction: how many times fewer units than channels the excitation has in between.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.

    Raises:
        ValueError: if ``depth`` is not 6n + 2 with n of at least 1, or ``dropout`` is outside 0..1.
    """

    def __init__(
        self, depth: int, num_classes: int, in_channels: int = 3, reduction: int = 16, dropout: float = 0.0
    ) -> None:
        check_positive("reduction", reduction)
        check_rate("dropout", dropout)
        block = partial(SEBasicBlock, reduction=reduction, dropout=dropout)
        super().__init__(cifar_backbone(depth, in_channels, block), 64, num_classes)


class SEResNet110(CifarSEResNet):
    """The CIFAR ResNet of depth 110 with squeeze-and-excitation: 1.74 M parameters, 64 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        reduction: how many times fewer units than channels the excitation has in between.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, reduction: int = 16, dropout: float = 0.0) -> None:
        super().__init__(110, num_classes, in_channels, reduction, dropout)
