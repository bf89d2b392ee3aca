"""The CIFAR ResNet's train step in PyTorch, for comparison with ours: same network, batch, augmentation and optimizer."""

import re

import torch
from torch import nn
from torch.nn import functional as F

from distill_jax.models.resnet_cifar import DEPTHS


class BasicBlock(nn.Module):
    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)
        self.stride, self.missing = stride, filters - channels

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.missing:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """Depth 6n + 2, 16-32-64 channels, shortcuts without parameters."""

    def __init__(self, depth, num_classes):
        super().__init__()
        channels, layers = 16, [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        for filters in (16, 32, 64):
            for block in range((depth - 2) // 6):
                layers.append(BasicBlock(channels, filters, 2 if filters > 16 and block == 0 else 1))
                channels = filters
        self.body, self.head = nn.Sequential(*layers), nn.Linear(64, num_classes)

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3)))


def augmented(images, device):
    """Random crop (padding 4) and flip of uint8 [B, 3, 32, 32], independently per image, and normalisation."""
    batch = images.shape[0]
    padded = F.pad(images, (4, 4, 4, 4))
    rows = torch.randint(0, 9, (batch, 1), device=device) + torch.arange(32, device=device)
    columns = torch.randint(0, 9, (batch, 1), device=device) + torch.arange(32, device=device)
    columns = torch.where(torch.rand(batch, 1, device=device) < 0.5, columns.flip(1), columns)
    index = torch.arange(batch, device=device)[:, None, None]
    crops = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return (crops.float() / 255 - 0.5).permute(0, 3, 1, 2) / 0.25  # NHWC in memory, as channels_last needs


def block(arguments, data):
    """Returns a function that runs a given number of train steps and waits for the last."""
    depth = re.fullmatch(r"resnet(\d+)", arguments.model)
    if not depth or int(depth[1]) not in DEPTHS:
        raise SystemExit(f"--torch supports only the CIFAR ResNets, not {arguments.model}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    images = torch.tensor(data["image"], device=device).permute(0, 3, 1, 2)
    labels = torch.tensor(data["label"], device=device).long()
    model = ResNet(int(depth[1]), 100).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    compiled = torch.compile(model) if device.type == "cuda" else model

    def run(steps):
        for _ in range(steps):
            ids = torch.randint(0, len(labels), (arguments.batch_size,), device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
                loss = F.cross_entropy(compiled(augmented(images[ids], device)), labels[ids])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run
