"""Independent PyTorch twins of the lecture's networks, written from the papers and from torchvision's published layout.

Nothing here imports minidl or models. The twins own modules in network order, so weights can be copied by name where
the names are torchvision's, and by order of the state_dict elsewhere. The second half lists the names and shapes of
torchvision's weight files, and shares no table and no code with the first.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

VARIANTS = ("paper", "torchvision")


def network(**modules):
    return nn.Sequential(OrderedDict(modules))


class ResponseNorm(nn.Module):
    """Krizhevsky 2012, section 3.3: x / (k + alpha · sum of x² over the 5 channels around)^0.75.

    By hand, because torch's own local_response_norm divides alpha by the size.
    """

    def __init__(self, k, alpha):
        super().__init__()
        self.k, self.alpha = k, alpha

    def forward(self, x):
        squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
        total = sum(squares[:, shift:shift + x.shape[1]] for shift in range(5))
        return x / (self.k + self.alpha * total) ** 0.75


# AlexNet, ZFNet, VGG: a row is a convolution (filters, kernel, stride, padding, groups), or a layer by its name

LAYERS = {
    "norm": partial(ResponseNorm, 2, 1e-4),
    "pool": partial(nn.MaxPool2d, 3, 2),
    "ceil": partial(nn.MaxPool2d, 3, 2, ceil_mode=True),
    "half": partial(nn.MaxPool2d, 2, 2),
}

ALEXNET = {
    "paper": [
        (96, 11, 4, 0, 1), "norm", "pool",
        (256, 5, 1, 2, 2), "norm", "pool",
        (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2), "pool",
    ],
    "torchvision": [
        (64, 11, 4, 2, 1), "pool",
        (192, 5, 1, 2, 1), "pool",
        (384, 3, 1, 1, 1), (256, 3, 1, 1, 1), (256, 3, 1, 1, 1), "pool",
    ],
}

ZFNET_STEM = [(96, 7, 2, 1, 1), "norm", "ceil", (256, 5, 2, 0, 1), "norm", "ceil"]

VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def features(rows, channels, batch_norm=False):
    layers = []
    for row in rows:
        if isinstance(row, str):
            layers.append(LAYERS[row]())
            continue
        filters, kernel, stride, padding, groups = row
        layers.append(nn.Conv2d(channels, filters, kernel, stride, padding, groups=groups))
        layers += [nn.BatchNorm2d(filters)] if batch_norm else []
        layers.append(nn.ReLU())
        channels = filters
    return nn.Sequential(*layers), channels


def chain(rows, size, num_classes, in_channels, batch_norm=False, dropout_first=False):
    """Convolutions, a map of size × size, and three linear layers."""
    body, channels = features(rows, in_channels, batch_norm)
    hidden = [[nn.Linear(width, 4096), nn.ReLU()] for width in (channels * size * size, 4096)]
    for layers in hidden:
        layers.insert(0 if dropout_first else 2, nn.Dropout(0.5))
    return network(
        features=body,
        avgpool=nn.AdaptiveAvgPool2d(size),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(*hidden[0], *hidden[1], nn.Linear(4096, num_classes)),
    )


def alexnet(variant, num_classes=1000, in_channels=3):
    return chain(ALEXNET[variant], 6, num_classes, in_channels, dropout_first=variant == "torchvision")


def zfnet(num_classes=1000, in_channels=3, filters=(512, 1024, 512)):
    return chain([*ZFNET_STEM, *((f, 3, 1, 1, 1) for f in filters), "pool"], 6, num_classes, in_channels)


def vgg(depth, num_classes=1000, in_channels=3, batch_norm=False):
    rows = []
    for filters, repeats in zip((64, 128, 256, 512, 512), VGG[depth], strict=True):
        rows += [(filters, 3, 1, 1, 1)] * repeats + ["half"]
    return chain(rows, 7, num_classes, in_channels, batch_norm)


# GoogLeNet

INCEPTION = {  # Szegedy 2014, table 1: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool proj
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def unit(variant, channels, filters, kernel, stride=1):
    convolution = partial(nn.Conv2d, channels, filters, kernel, stride, kernel // 2)
    if variant == "paper":
        return network(conv=convolution(), relu=nn.ReLU())
    return network(conv=convolution(bias=False), bn=nn.BatchNorm2d(filters, eps=0.001), relu=nn.ReLU())


class Inception(nn.Module):
    def __init__(self, variant, channels, one, reduce3, three, reduce5, five, proj):
        super().__init__()
        conv = partial(unit, variant)
        # torchvision's "5×5" branch is 3×3: a known slip, kept because its weights were trained that way.
        large = 5 if variant == "paper" else 3
        self.branch1 = conv(channels, one, 1)
        self.branch2 = nn.Sequential(conv(channels, reduce3, 1), conv(reduce3, three, 3))
        self.branch3 = nn.Sequential(conv(channels, reduce5, 1), conv(reduce5, five, large))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, proj, 1))

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def head(variant, channels, num_classes):
    return network(
        avgpool=nn.AvgPool2d(5, 3) if variant == "paper" else nn.Identity(),
        adaptive=nn.AdaptiveAvgPool2d(4),
        conv=unit(variant, channels, 128, 1),
        flatten=nn.Flatten(),
        fc1=nn.Linear(2048, 1024),
        relu=nn.ReLU(),
        dropout=nn.Dropout(0.7),
        fc2=nn.Linear(1024, num_classes),
    )


class GoogLeNet(nn.Module):
    def __init__(self, variant, num_classes=1000, in_channels=3, aux_logits=True):
        super().__init__()
        paper = variant == "paper"
        norm = partial(ResponseNorm, 1, 1e-4 / 5) if paper else nn.Identity
        self.heads = {"inception4a": "aux1", "inception4d": "aux2"} if aux_logits else {}
        self.conv1 = unit(variant, in_channels, 64, 7, 2)
        self.maxpool1 = LAYERS["ceil"]()
        self.norm1 = norm()
        self.conv2 = unit(variant, 64, 64, 1)
        self.conv3 = unit(variant, 64, 192, 3)
        self.norm2 = norm()
        self.maxpool2 = LAYERS["ceil"]()
        channels = 192
        for name, widths in INCEPTION.items():
            if name == "4a":
                self.maxpool3 = LAYERS["ceil"]()
            if name == "5a":
                self.maxpool4 = LAYERS["ceil"]() if paper else nn.MaxPool2d(2, 2, ceil_mode=True)
            self.add_module(f"inception{name}", Inception(variant, channels, *widths))
            one, _, three, _, five, proj = widths
            channels = one + three + five + proj
        if aux_logits:
            self.aux1 = head(variant, 512, num_classes)
            self.aux2 = head(variant, 528, num_classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(0.4 if paper else 0.2)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        aux = []
        for name, layer in self.named_children():
            if name in self.heads.values():
                continue
            x = layer(x)
            if self.training and name in self.heads:
                aux.append(getattr(self, self.heads[name])(x))
        return (x, *aux) if aux else x


# ResNet, and its plain counterpart

RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
PLAIN = (18, 34)
CIFAR = (20, 32, 44, 56, 110)
CIFAR_PLAIN = (20, 32, 44, 56)


class Block(nn.Module):
    """Convolutions (filters, kernel, stride), each with its batch norm, and around them a shortcut, or None."""

    def __init__(self, channels, rows, shortcut):
        super().__init__()
        self.depth = len(rows)
        for i, (filters, kernel, stride) in enumerate(rows, 1):
            self.add_module(f"conv{i}", nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(filters))
            channels = filters
        self.downsample = shortcut

    def forward(self, x):
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = F.relu(out) if i < self.depth else out
        return F.relu(out if self.downsample is None else out + self.downsample(x))


class PaddedShortcut(nn.Module):
    """He 2015, option A: every other pixel, and zeros for the new channels."""

    def __init__(self, planes):
        super().__init__()
        self.margin = planes // 4

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.margin, self.margin))


def projection(channels, filters, stride):
    return nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))


def residual(variant, depth, shortcuts=True, num_classes=1000, in_channels=3):
    stages, channels = OrderedDict(), 64
    for stage, blocks in enumerate(RESNET[depth]):
        width = 64 * 2**stage
        stages[f"layer{stage + 1}"] = nn.Sequential()
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            if depth < 50:
                rows = [(width, 3, stride), (width, 3, 1)]
            else:
                first, second = (stride, 1) if variant == "paper" else (1, stride)
                rows = [(width, 1, first), (width, 3, second), (4 * width, 1, 1)]
            filters = rows[-1][0]
            same = (channels, stride) == (filters, 1)
            shortcut = nn.Identity() if same else projection(channels, filters, stride)
            stages[f"layer{stage + 1}"].append(Block(channels, rows, shortcut if shortcuts else None))
            channels = filters
    return network(
        conv1=nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, 1),
        **stages,
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, num_classes),
    )


def cifar(depth, shortcuts=True, num_classes=10, in_channels=3):
    stages, channels = OrderedDict(), 16
    for stage, width in enumerate((16, 32, 64), 1):
        stages[f"layer{stage}"] = nn.Sequential()
        for _ in range((depth - 2) // 6):
            stride = 1 if channels == width else 2
            shortcut = nn.Identity() if stride == 1 else PaddedShortcut(width)
            rows = [(width, 3, stride), (width, 3, 1)]
            stages[f"layer{stage}"].append(Block(channels, rows, shortcut if shortcuts else None))
            channels = width
    return network(
        conv1=nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False),
        bn1=nn.BatchNorm2d(16),
        relu=nn.ReLU(),
        **stages,
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        linear=nn.Linear(64, num_classes),
    )


TWINS = {
    ("zfnet", "paper"): zfnet,
    **{("alexnet", variant): partial(alexnet, variant) for variant in VARIANTS},
    **{("googlenet", variant): partial(GoogLeNet, variant) for variant in VARIANTS},
    **{(f"vgg{depth}", variant): partial(vgg, depth) for variant in VARIANTS for depth in VGG},
    **{(f"resnet{depth}", variant): partial(residual, variant, depth) for variant in VARIANTS for depth in RESNET},
    **{(f"plain{depth}", variant): partial(residual, variant, depth, False) for variant in VARIANTS for depth in PLAIN},
    **{(f"resnet{depth}", variant): partial(cifar, depth) for variant in VARIANTS for depth in CIFAR},
    **{(f"plain{depth}", variant): partial(cifar, depth, False) for variant in VARIANTS for depth in CIFAR_PLAIN},
}


def twin(name: str, variant: str = "paper", **options) -> nn.Module:
    """The network by its name; where the paper and torchvision agree, both variants are the same network."""
    return TWINS[name, variant](**options)


# What torchvision's weight files hold: names and shapes, without the modules above

ALEXNET_SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (1000, 4096),
}

VGG_POSITIONS = {  # where the convolutions of the 5 stages stand in `features`
    "vgg11": [(0,), (3,), (6, 8), (11, 13), (16, 18)],
    "vgg13": [(0, 2), (5, 7), (10, 12), (15, 17), (20, 22)],
    "vgg16": [(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)],
    "vgg19": [(0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34)],
    "vgg11_bn": [(0,), (4,), (8, 11), (15, 18), (22, 25)],
    "vgg13_bn": [(0, 3), (7, 10), (14, 17), (21, 24), (28, 31)],
    "vgg16_bn": [(0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40)],
    "vgg19_bn": [(0, 3), (7, 10), (14, 17, 20, 23), (27, 30, 33, 36), (40, 43, 46, 49)],
}

GOOGLENET_BRANCHES = {  # (output, input) channels of branch1, branch2.0, branch2.1, branch3.0, branch3.1, branch4.1
    "inception3a": [(64, 192), (96, 192), (128, 96), (16, 192), (32, 16), (32, 192)],
    "inception3b": [(128, 256), (128, 256), (192, 128), (32, 256), (96, 32), (64, 256)],
    "inception4a": [(192, 480), (96, 480), (208, 96), (16, 480), (48, 16), (64, 480)],
    "inception4b": [(160, 512), (112, 512), (224, 112), (24, 512), (64, 24), (64, 512)],
    "inception4c": [(128, 512), (128, 512), (256, 128), (24, 512), (64, 24), (64, 512)],
    "inception4d": [(112, 512), (144, 512), (288, 144), (32, 512), (64, 32), (64, 512)],
    "inception4e": [(256, 528), (160, 528), (320, 160), (32, 528), (128, 32), (128, 528)],
    "inception5a": [(256, 832), (160, 832), (320, 160), (32, 832), (128, 32), (128, 832)],
    "inception5b": [(384, 832), (192, 832), (384, 192), (48, 832), (128, 48), (128, 832)],
}
GOOGLENET_KERNELS = {"branch1": 1, "branch2.0": 1, "branch2.1": 3, "branch3.0": 1, "branch3.1": 3, "branch4.1": 1}

RESNET_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


def biased(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def batch_norm(name, channels):
    vectors = dict.fromkeys([f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")], (channels,))
    return {**vectors, f"{name}.num_batches_tracked": ()}


def normed(conv, norm, *shape):
    """A convolution without bias, and its batch norm."""
    return {f"{conv}.weight": shape, **batch_norm(norm, shape[0])}


def alexnet_shapes():
    return {key: shape for name, full in ALEXNET_SHAPES.items() for key, shape in biased(name, *full).items()}


def vgg_shapes(name):
    shapes, depth = {}, 3
    for filters, positions in zip((64, 128, 256, 512, 512), VGG_POSITIONS[name], strict=True):
        for position in positions:
            shapes |= biased(f"features.{position}", filters, depth, 3, 3)
            if name.endswith("_bn"):
                shapes |= batch_norm(f"features.{position + 1}", filters)
            depth = filters
    for position, rows, columns in ((0, 4096, 25088), (3, 4096, 4096), (6, 1000, 4096)):
        shapes |= biased(f"classifier.{position}", rows, columns)
    return shapes


def googlenet_shapes():
    def basic(name, filters, depth, kernel):
        return normed(f"{name}.conv", f"{name}.bn", filters, depth, kernel, kernel)

    shapes = basic("conv1", 64, 3, 7) | basic("conv2", 64, 64, 1) | basic("conv3", 192, 64, 3)
    for module, branches in GOOGLENET_BRANCHES.items():
        for (branch, kernel), (filters, depth) in zip(GOOGLENET_KERNELS.items(), branches, strict=True):
            shapes |= basic(f"{module}.{branch}", filters, depth, kernel)
    for aux, depth in (("aux1", 512), ("aux2", 528)):
        shapes |= basic(f"{aux}.conv", 128, depth, 1)
        shapes |= biased(f"{aux}.fc1", 1024, 2048) | biased(f"{aux}.fc2", 1000, 1024)
    return shapes | biased("fc", 1000, 1024)


def resnet_shapes(name):
    bottleneck = name in ("resnet50", "resnet101", "resnet152")
    shapes, depth = normed("conv1", "bn1", 64, 3, 7, 7), 64
    for layer, (width, blocks) in enumerate(zip((64, 128, 256, 512), RESNET_BLOCKS[name], strict=True), 1):
        filters = width * 4 if bottleneck else width
        for block in range(blocks):
            prefix = f"layer{layer}.{block}"
            if bottleneck:
                convs = [(width, depth, 1), (width, width, 3), (filters, width, 1)]
            else:
                convs = [(width, depth, 3), (width, width, 3)]
            for i, (outputs, inputs, kernel) in enumerate(convs, 1):
                shapes |= normed(f"{prefix}.conv{i}", f"{prefix}.bn{i}", outputs, inputs, kernel, kernel)
            if depth != filters:
                shapes |= normed(f"{prefix}.downsample.0", f"{prefix}.downsample.1", filters, depth, 1, 1)
            depth = filters
    return shapes | biased("fc", 1000, depth)


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """torchvision's state_dict of `name`, in order: key → shape."""
    if name == "alexnet":
        return alexnet_shapes()
    if name == "googlenet":
        return googlenet_shapes()
    return resnet_shapes(name) if name in RESNET_BLOCKS else vgg_shapes(name)
