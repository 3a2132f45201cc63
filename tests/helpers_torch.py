"""The residual networks once more, in PyTorch, with torchvision's names: twins to compare with."""

import torch
from torch import nn

PLANS = {  # blocks of each stage, bottleneck, groups, channels of a group
    "resnet18": ((2, 2, 2, 2), False, 1, 64),
    "resnet34": ((3, 4, 6, 3), False, 1, 64),
    "resnet50": ((3, 4, 6, 3), True, 1, 64),
    "resnet101": ((3, 4, 23, 3), True, 1, 64),
    "resnet152": ((3, 8, 36, 3), True, 1, 64),
    "resnext50_32x4d": ((3, 4, 6, 3), True, 32, 4),
}


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, incoming, width, stride, groups, group_width):
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(incoming, width, stride)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides) and 1x1 convolutions beside a shortcut."""

    def __init__(self, incoming, width, stride, groups, group_width):
        super().__init__()
        inner = int(width * group_width / 64) * groups
        self.conv1 = nn.Conv2d(incoming, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(incoming, 4 * width, stride)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def shortcut(incoming, outgoing, stride):
    if incoming == outgoing and stride == 1:
        return nn.Identity()
    conv = nn.Conv2d(incoming, outgoing, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outgoing))


class Twin(nn.Module):
    """A residual network; ``features`` leaves out the top."""

    def __init__(self, name):
        super().__init__()
        blocks, bottleneck, groups, group_width = PLANS[name]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, count in enumerate(blocks):
            row = []
            for number in range(count):
                stride = 2 if stage and not number else 1
                kind = Bottleneck if bottleneck else Basic
                row.append(kind(channels, 64 * 2**stage, stride, groups, group_width))
                channels = 64 * 2**stage * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*row))
        self.fc = nn.Linear(channels, 1000)

    def features(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


def random_twin(name, seed=0):
    """A twin whose batch normalisations have the statistics and scales of no untrained network."""
    torch.manual_seed(seed)
    twin = Twin(name)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.4, 1.0)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return twin.eval()
