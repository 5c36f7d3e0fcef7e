"""A training step and the CAM of a photo in plain PyTorch eager, for the classifiers beside this file."""

import torch
from torch import nn
from torch.nn import functional as F


def train_step(model: nn.Module):
    """A function of images and labels that does one step of SGD on the soft margin loss."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=5e-4, weight_decay=5e-4)

    def step(images, labels):
        model.train()
        optimizer.zero_grad(set_to_none=True)
        loss = F.multilabel_soft_margin_loss(model(images).mean((2, 3)), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


@torch.no_grad()
def cams(model: nn.Module, photo: torch.Tensor, scales: tuple[float, ...]) -> torch.Tensor:
    """The fused CAM (20, h, w) of a normalised photo (1, 3, h, w), from every scale and its mirror image."""
    model.eval()
    size, total = photo.shape[2:], 0.0
    for scale in scales:
        view = photo if scale == 1 else F.interpolate(photo, scale_factor=scale, mode="bicubic", align_corners=False)
        maps = model(torch.cat([view, view.flip(3)]))
        maps = F.relu(F.interpolate(maps, size=size, mode="bilinear", align_corners=False))
        total = total + maps[0] + maps[1].flip(2)
    return total / total.amax((1, 2), keepdim=True).clamp(min=1e-5)
