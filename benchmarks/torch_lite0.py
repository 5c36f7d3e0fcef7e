"""EfficientNet-Lite0 with output stride 16 in plain PyTorch, as a classifier of CAMs: what ours is timed against."""

import torch
import torch.nn.functional as F
from torch import nn

STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 1, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
FROZEN_BLOCKS, DILATED = 5, 12  # blocks up to stride 8 do not learn; those from here on are dilated


class Conv(nn.Conv2d):
    """A convolution without bias, its input padded as TensorFlow does."""

    def __init__(self, before, channels, kernel=1, stride=1, groups=1, dilation=1):
        super().__init__(before, channels, kernel, stride, 0, dilation, groups, bias=False)

    def forward(self, x):
        pads = []
        (kernel, _), (stride, _), (dilation, _) = self.kernel_size, self.stride, self.dilation
        for length in reversed(x.shape[2:]):
            total = max(0, (-(-length // stride) - 1) * stride + dilation * (kernel - 1) + 1 - length)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads) if any(pads) else x)


def frozen(channels):
    """A norm with stored statistics whose scale and bias do not learn."""
    return nn.BatchNorm2d(channels, 1e-3).eval().requires_grad_(False)


class Block(nn.Module):
    def __init__(self, before, kernel, stride, expansion, channels, dilation=1):
        super().__init__()
        wide = before * expansion
        layers = [Conv(before, wide), frozen(wide), nn.ReLU6(inplace=True)] if expansion > 1 else []
        layers += [Conv(wide, wide, kernel, stride, wide, dilation), frozen(wide), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, Conv(wide, channels), frozen(channels))
        self.adds = stride == 1 and before == channels

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


class Classifier(nn.Module):
    """Images (n, 3, h, w) to maps (n, 20, h / 16, w / 16); the front is frozen as in training."""

    def __init__(self, num_classes: int = 20):
        super().__init__()
        blocks, before = [], 32
        for count, kernel, first_stride, expansion, channels in STAGES:
            for repeat in range(count):
                dilation = 2 if len(blocks) >= DILATED else 1
                stride = first_stride if repeat == 0 else 1
                blocks.append(Block(before, kernel, stride, expansion, channels, dilation))
                before = channels
        stem = [Conv(3, 32, 3, 2), frozen(32), nn.ReLU6(inplace=True)]
        self.front = nn.Sequential(*stem, *blocks[:FROZEN_BLOCKS]).requires_grad_(False)
        head = [Conv(320, 1280), frozen(1280), nn.ReLU6(inplace=True), nn.Dropout2d(0.5), Conv(1280, num_classes)]
        self.back = nn.Sequential(*blocks[FROZEN_BLOCKS:], *head)

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images):
        with torch.no_grad():
            x = self.front(images)
        return self.back(x)
