"""Nets, losses and the reference for the bilevel engines: ``higher``'s own patched network and inner loop."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import higher
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.models import VisionTransformer

from lightning_perturb.nets.resnet_cifar import ResNet20

CLASSES = 3


class Classified(nn.Module):
    """Features and a last linear layer; gives everything a loss may ask for."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone, self.fc = backbone, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        return {"logits": self.fc(features), "features": features, "weight": self.fc.weight}


class Mean(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        out = self.module(x)
        return (out[0] if isinstance(out, tuple) else out).mean(1)


class Tied(nn.Module):
    """An autoencoder whose decoder is the encoder's matrix, registered twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.two(torch.tanh(self.one(x))))


class LogitsOnly(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(x)}


def conv_bn() -> nn.Module:
    first = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)]
    second = [nn.Conv2d(6, 8, 3, stride=2, groups=2, bias=False), nn.BatchNorm2d(8), nn.GELU()]
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mlp(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 9), nn.ReLU(), nn.Dropout(dropout), nn.Linear(9, 7), nn.Tanh(), nn.Dropout(dropout)
    )


def encoder(dropout: float = 0.0) -> nn.Module:
    return Mean(nn.TransformerEncoderLayer(6, 2, 12, dropout=dropout, batch_first=True))


def vit() -> nn.Module:
    net = VisionTransformer(8, 4, 1, 2, 8, 16, dropout=0.1, attention_dropout=0.1, num_classes=CLASSES)
    nn.init.normal_(net.heads.head.weight)  # zeros otherwise
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: Classified(mlp(), 7), (6,)),
    "conv-bn": (lambda: Classified(conv_bn(), 8), (3, 7, 7)),
    "lstm": (lambda: Classified(Mean(nn.LSTM(6, 4, bidirectional=True, batch_first=True)), 8), (5, 6)),
    "transformer": (lambda: Classified(encoder(), 6), (5, 6)),
    "dropout": (lambda: Classified(mlp(0.3), 7), (6,)),
    "transformer-dropout": (lambda: Classified(encoder(0.3), 6), (5, 6)),
    "tied": (lambda: Classified(Tied(), 6), (6,)),
    "vit": (lambda: LogitsOnly(vit()), (3, 8, 8)),
    "resnet20": (lambda: LogitsOnly(ResNet20(CLASSES)), (3, 16, 16)),
}


def mw_net(theta: list[Tensor], outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """MW-Net: a weight from a small network on the detached loss of the sample."""
    losses = F.cross_entropy(outputs["logits"], batch[1], reduction="none")
    first, second = theta
    return (torch.sigmoid(torch.tanh(losses.detach()[:, None] * first) @ second) * losses).mean()


def logit_adjustment(theta: list[Tensor], outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """A learned τ_c for each class."""
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=theta[0].dtype).log()
    return F.cross_entropy(outputs["logits"] + theta[0] * prior, batch[1])


def shrinkage(theta: list[Tensor], outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """A learned number λ before a penalty on the logits."""
    return F.cross_entropy(outputs["logits"], batch[1]) + theta[0].exp() * outputs["logits"].square().mean()


def iada(theta: list[Tensor], outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """Covariances, learned, and a strategy, learned, act on logits, features and the classifier's weight."""
    covariance, strategy = theta
    logits, weight, y = outputs["logits"], outputs["weight"], batch[1]
    apart = weight[None] - weight[:, None]
    quadratic = 0.5 * torch.einsum("kja,kab,kjb->kj", apart, covariance, apart)
    sign = ((logits.softmax(-1) - F.one_hot(y, CLASSES)) @ weight).sign().detach()
    epsilon = torch.tanh(F.cross_entropy(logits, y, reduction="none").detach() * strategy)
    pushed = logits + epsilon[:, None] * (sign @ weight.T) + 0.5 * quadratic[y]
    return F.cross_entropy(pushed, y) + 0.01 * (strategy * outputs["features"].square()).mean()


LOSSES = {"mw-net": mw_net, "logit-adjustment": logit_adjustment, "lambda": shrinkage, "iada": iada}


def draw_theta(loss: str, width: int, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
    shapes = {
        "mw-net": [(8,), (8,)], "logit-adjustment": [(CLASSES,)], "lambda": [()], "iada": [(CLASSES, width, width), ()],
    }[loss]  # fmt: skip
    return [(0.5 * torch.randn(s, generator=generator, dtype=dtype)).requires_grad_() for s in shapes]


@pytest.fixture
def make() -> Callable[..., SimpleNamespace]:
    """Builds a bilevel problem by the names of its net and loss."""

    def build(
        net: str, loss: str, dtype: torch.dtype = torch.float64, batch: int = 6, seed: int = 0
    ) -> SimpleNamespace:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        builder, shape = NETS[net]
        module = builder().to(dtype)
        width = module.fc.in_features if isinstance(module, Classified) else 0
        theta = draw_theta(loss, width, generator, dtype)

        def pair() -> tuple[Tensor, Tensor]:
            x = torch.randn((batch, *shape), generator=generator, dtype=dtype)
            return x, torch.randint(CLASSES, (batch,), generator=generator)

        return SimpleNamespace(
            net=module, theta=theta, train=pair(), meta=pair(),
            outputs=lambda call, batch: call(batch[0]),
            loss=lambda outputs, batch: LOSSES[loss](theta, outputs, batch),
            meta_loss=lambda call, batch: F.cross_entropy(call(batch[0])["logits"], batch[1]),
        )  # fmt: skip

    return build


@pytest.fixture
def reference() -> Callable[..., tuple[list[Tensor], Tensor]]:
    """dM/dθ and M by ``higher.innerloop_ctx``."""

    def run(problem: SimpleNamespace, lr: float = 0.3, optimizer: torch.optim.Optimizer | None = None, steps: int = 1):
        optimizer = optimizer or torch.optim.SGD(problem.net.parameters(), lr=lr)
        recurrent = any(isinstance(module, nn.RNNBase) for module in problem.net.modules())
        plain = torch.backends.mkldnn.flags(enabled=False, allow_tf32=False) if recurrent else nullcontext()
        with sdpa_kernel(SDPBackend.MATH), plain, higher.innerloop_ctx(problem.net, optimizer) as (net, inner):
            for _ in range(steps):
                inner.step(problem.loss(problem.outputs(net, problem.train), problem.train))
            meta_loss = problem.meta_loss(net, problem.meta)
            return list(torch.autograd.grad(meta_loss, problem.theta)), meta_loss.detach()

    return run


@pytest.fixture
def assert_equal() -> Callable[[list[Tensor], list[Tensor], float], None]:
    """Relative difference of each tensor at most the tolerance, and nothing trivially zero."""

    def check(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            assert other.norm() > 0
            assert (one - other).norm() <= tolerance * other.norm()

    return check
