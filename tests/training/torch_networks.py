"""torchvision's ResNets and VGG-16 and the EDSR of its authors, as PyTorch modules with the same names and layouts."""

import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(channels, 4 * width, stride)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def shortcut(channels, features, stride):
    if stride == 1 and channels == features:
        return None
    return nn.Sequential(nn.Conv2d(channels, features, 1, stride, bias=False), nn.BatchNorm2d(features))


BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class ResNet(nn.Module):
    """`forward` returns the pooled features, which `fc` would classify."""

    def __init__(self, depth, width=64, classes=1000):
        super().__init__()
        block = Bottleneck if depth == 50 else BasicBlock
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, count in enumerate(BLOCKS[depth]):
            blocks = []
            for number in range(count):
                blocks.append(block(channels, width * 2**stage, 2 if stage and not number else 1))
                channels = width * 2**stage * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


class VGG16BN(nn.Module):
    """The layers in front of the linear ones: `features`."""

    def __init__(self, width=64):
        super().__init__()
        layers, channels = [], 3
        for stage, count in enumerate((2, 2, 3, 3, 3)):
            for _ in range(count):
                features = min(2**stage, 8) * width
                layers.append(nn.Conv2d(channels, features, 3, padding=1))
                layers += [nn.BatchNorm2d(features), nn.ReLU(inplace=True)]
                channels = features
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)


class ResBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1))

    def forward(self, x):
        return x + self.body(x)


class EDSR(nn.Module):
    """EDSR-baseline x2; its shifts by the mean are parameters of its files, and left out of `forward` as in PSR."""

    def __init__(self, blocks=16, width=64):
        super().__init__()
        self.sub_mean, self.add_mean = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.head = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1))
        self.body = nn.Sequential(*(ResBlock(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, 1, 1))
        upsampler = nn.Sequential(nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2))
        self.tail = nn.Sequential(upsampler, nn.Conv2d(width, 3, 3, 1, 1))

    def forward(self, x):
        x = self.head(x)
        return self.tail(x + self.body(x))


def randomised(network, seed=0):
    """Draws what PyTorch starts at 0 or 1 as well: scales, biases and running statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    return network
