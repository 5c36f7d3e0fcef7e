"""ResNet-38's classifier written plainly in PyTorch, to time against; needs the extra `torch`."""

import torch
from torch import nn
from torch.nn import functional as F


class Frozen(nn.Module):
    """A batch norm with stored statistics."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels).requires_grad_(False)

    def forward(self, x):
        norm = self.norm
        return F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False))


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False)


class Basic(nn.Module):
    def __init__(self, inputs, middle, outputs, stride=1, first_dilation=1, dilation=1):
        super().__init__()
        self.norm1, self.norm2 = Frozen(inputs), Frozen(middle)
        self.conv1 = conv(inputs, middle, 3, stride, first_dilation)
        self.conv2 = conv(middle, outputs, 3, 1, dilation)
        self.shortcut = None if inputs == outputs and stride == 1 else conv(inputs, outputs, 1, stride)

    def forward(self, x):
        active = self.norm1(x)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(self.norm2(self.conv1(active)))


class Bottleneck(nn.Module):
    def __init__(self, inputs, outputs, dropout):
        super().__init__()
        quarter, half = outputs // 4, outputs // 2
        self.norm1, self.norm2, self.norm3 = Frozen(inputs), Frozen(quarter), Frozen(half)
        self.conv1, self.conv2 = conv(inputs, quarter, 1), conv(quarter, half, 3, dilation=4)
        self.conv3, self.shortcut = conv(half, outputs, 1), conv(inputs, outputs, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x):
        active = self.norm1(x)
        y = self.dropout(self.norm2(self.conv1(active)))
        return self.shortcut(active) + self.conv3(self.dropout(self.norm3(self.conv2(y))))


class Classifier(nn.Module):
    """Images (n, 3, h, w) to maps (n, 20, h / 8, w / 8); the front is frozen as in training."""

    def __init__(self, width: float = 1.0, num_classes: int = 20):
        super().__init__()

        def c(channels):
            return max(1, round(channels * width))

        front = [conv(3, c(64), 3), Basic(c(64), c(128), c(128), 2), *(Basic(c(128), c(128), c(128)) for _ in range(2))]
        self.front = nn.Sequential(*front).requires_grad_(False)
        self.back = nn.Sequential(
            Basic(c(128), c(256), c(256), 2),
            *(Basic(c(256), c(256), c(256)) for _ in range(2)),
            Basic(c(256), c(512), c(512), 2),
            *(Basic(c(512), c(512), c(512)) for _ in range(5)),
            Basic(c(512), c(512), c(1024), dilation=2),
            *(Basic(c(1024), c(512), c(1024), first_dilation=2, dilation=2) for _ in range(2)),
            Bottleneck(c(1024), c(2048), 0.3),
            Bottleneck(c(2048), c(4096), 0.5),
            Frozen(c(4096)),
            nn.Dropout2d(0.5),
            conv(c(4096), num_classes, 1),
        )

    def forward(self, images):
        with torch.no_grad():
            x = self.front(images)
        return self.back(x)
