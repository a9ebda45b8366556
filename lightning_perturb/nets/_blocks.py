"""The residual blocks: after-activation with either shortcut, and pre-activation."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_perturb.nets._pooled import conv1x1, conv3x3


class PadShortcut(nn.Module):
    """Option A of He et al.: takes every ``stride``-th pixel and pads the new channels with zeros, on both sides.

    It has no parameters. Slicing and channel padding both keep the ``channels_last`` layout, so no copy into
    another layout is made.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, at least ``in_channels``.
        stride: step between the pixels taken.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        extra = out_channels - in_channels
        self.padding = (0, 0, 0, 0, extra // 2, extra - extra // 2)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, in_channels, H, W]`` to ``[B, out_channels, ceil(H / stride), ceil(W / stride)]``."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class ProjectionShortcut(nn.Sequential):
    """Option B of He et al.: a strided 1x1 convolution with batch norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut, the last ReLU after the sum (He et al., Fig. 2).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution.
        shortcut: makes the shortcut from the same three numbers where the shape changes; elsewhere it is the identity.
        dropout: rate of the dropout between the two convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut: Callable[[int, int, int], nn.Module],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, in_channels, H, W]`` to ``[B, out_channels, ceil(H / stride), ceil(W / stride)]``."""
        return F.relu(self.residual(x) + self.shortcut(x))

    def residual(self, x: Tensor) -> Tensor:
        """The branch beside the shortcut."""
        branch: Tensor = self.norm2(self.conv2(self.dropout(F.relu(self.norm1(self.conv1(x))))))
        return branch


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions (He et al., Identity Mappings, Fig. 1b).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input; elsewhere it is the identity.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution.
        dropout: rate of the dropout between the two convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels)
        same_shape = stride == 1 and in_channels == out_channels
        self.projection = None if same_shape else conv1x1(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, in_channels, H, W]`` to ``[B, out_channels, ceil(H / stride), ceil(W / stride)]``."""
        activated = F.relu(self.norm1(x))
        hidden: Tensor = self.conv2(self.dropout(F.relu(self.norm2(self.conv1(activated)))))
        return hidden + (x if self.projection is None else self.projection(activated))
