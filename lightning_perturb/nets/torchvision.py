"""The classification models of torchvision, by name."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torchvision import models

from lightning_perturb.checks import check_positive

# with their auxiliary heads these models return tuples in training
_WITHOUT_AUXILIARY_HEADS: dict[str, dict[str, bool | None]] = {
    "googlenet": {"aux_logits": False, "aux1": None, "aux2": None},
    "inception_v3": {"aux_logits": False, "AuxLogits": None},
}

# densenet files from before 2018 write "denselayer1.norm.1" for what is now "denselayer1.norm1"
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


class TorchvisionNet(nn.Module):
    """A classification model of torchvision with ``num_classes`` outputs.

    Its last layer is an ``nn.Linear``, but for SqueezeNet, which ends with a 1x1 convolution. Auxiliary heads
    (GoogLeNet, Inception) are left out, so the output is always the logits. The size and the normalisation of the
    images are the model's own: see its page in torchvision's documentation.

    Args:
        name: name of the model, as in ``torchvision.models.list_models()``: resnet50, vgg19_bn, vit_b_16, ...
        num_classes: number of classes. With ``weights``, a last layer of another width is replaced by a fresh one.
        weights: None for random weights; or the name of torchvision's trained weights (DEFAULT, IMAGENET1K_V1),
            fetched once; or the path of a file with a state dict of this model, with any last layer.
        frozen: modules of the model that stay as they are, such as ``[conv1, bn1, layer1]`` of a ResNet: their weights
            take no gradient, and they run as in evaluation, so that batch statistics stay, too. None freezes nothing.

    Raises:
        ValueError: if the model or the weights are unknown, the file does not fit the model, or it has no such module.
        RuntimeError: if the weights cannot be fetched; the message says where a file would be looked for.
    """

    def __init__(
        self, name: str, num_classes: int, weights: str | None = None, frozen: list[str] | None = None
    ) -> None:
        check_positive("num_classes", num_classes)
        if isinstance(frozen, str):
            raise ValueError(f"frozen={frozen!r} is one name, not a list of them. Give frozen=[{frozen!r}].")
        name = _known_name(name)
        super().__init__()
        if weights is None:
            self.model = _build(name, num_classes)
        elif weights in models.get_model_weights(name).__members__:
            self.model = _fetch(name, weights)
            _fit_classifier(self.model, num_classes)
        else:
            path = _existing_file(name, weights)
            self.model = _build(name, num_classes)
            _load(self.model, name, path)
        self.frozen = [_module(self.model, name, part) for part in frozen or []]
        for part in self.frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> "TorchvisionNet":
        """Sets all but the frozen modules to train mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``[B, 3, H, W]`` to logits ``[B, num_classes]``."""
        logits: Tensor = self.model(x)
        return logits


def _known_name(name: str) -> str:
    known = models.list_models(module=models)
    if name.lower() in known:
        return name.lower()
    near = get_close_matches(name.lower(), known, n=5, cutoff=0.5)
    remedy = f"Near matches: {', '.join(near)}." if near else "torchvision.models.list_models() lists the names."
    raise ValueError(f"name={name!r} is no classification model of torchvision. {remedy}")


def _module(net: nn.Module, name: str, part: str) -> nn.Module:
    try:
        # the empty name is the whole model
        return net.get_submodule(part or "''")
    except AttributeError as error:
        known = ", ".join(child for child, _ in net.named_children())
        raise ValueError(f"frozen names {part!r}, but {name} has no such module. It has: {known}.") from error


def _build(name: str, num_classes: int) -> nn.Module:
    # init_weights is named because these two models warn about a coming change of its default
    options = {"aux_logits": False, "init_weights": True} if name in _WITHOUT_AUXILIARY_HEADS else {}
    net: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return net


def _fetch(name: str, weights: str) -> nn.Module:
    member = models.get_model_weights(name)[weights]
    try:
        net: nn.Module = models.get_model(name, weights=member)
    except (OSError, HTTPException, RuntimeError, EOFError, UnpicklingError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
        raise RuntimeError(
            f"The weights {weights!r} of {name} could not be fetched or read ({type(error).__name__}: {error}). "
            f"Download {member.url} on a machine with access and save it as {file}, "
            "or save it anywhere and give its path as weights."
        ) from error
    # not by an argument as in _build: GoogLeNet refuses it beside weights
    for attribute, off in _WITHOUT_AUXILIARY_HEADS.get(name, {}).items():
        setattr(net, attribute, off)
    return net


def _classifier(net: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The last layer; SqueezeNet's is a 1x1 convolution."""
    layers = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    return layers[-1]


def _fit_classifier(net: nn.Module, num_classes: int) -> None:
    name, old = _classifier(net)
    if old.weight.shape[0] == num_classes:
        return
    width, bias = old.weight.shape[1], old.bias is not None
    is_linear = isinstance(old, nn.Linear)
    net.set_submodule(name, nn.Linear(width, num_classes, bias) if is_linear else nn.Conv2d(width, num_classes, 1))


def _existing_file(name: str, weights: str) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        named = ", ".join(models.get_model_weights(name).__members__)
        raise ValueError(f"weights={weights!r} is neither a file nor one of {name}'s trained weights: {named}.")
    return path


def _load(net: nn.Module, name: str, path: Path) -> None:
    """Loads a file into ``net``; the last layer keeps its fresh weights where the file has none of its width."""
    state = _read(path)
    state = {_OLD_DENSENET_KEY.sub(r"\1\2", key): value for key, value in state.items()}
    left_out = _WITHOUT_AUXILIARY_HEADS.get(name, {})
    state = {key: value for key, value in state.items() if key.split(".")[0] not in left_out}
    prefix, classifier = _classifier(net)
    own = {f"{prefix}.{key}" for key in classifier.state_dict()}
    weight = state.get(f"{prefix}.weight")
    if weight is None or len(weight) != len(classifier.weight):
        state = {key: value for key, value in state.items() if key not in own}
    try:
        # not strict, so that the message can leave out what is meant to be missing
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"weights={str(path)!r} does not fit {name}: {error}") from error
    # a file for another model often shares some names: a partial load would be silent
    missing = [key for key in missing if key not in own]
    if missing or unexpected:
        raise ValueError(
            f"weights={str(path)!r} does not fit {name}: {len(missing)} entries are missing {missing[:3]} and "
            f"{len(unexpected)} are unknown {unexpected[:3]}. Give a file with the state dict of {name} itself."
        )


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"weights={str(path)!r} cannot be read as tensors ({error}). "
            "Save it with torch.save(net.state_dict(), path)."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"weights={str(path)!r} holds no state dict but a {type(state).__name__} of other things. "
            "Save it with torch.save(net.state_dict(), path)."
        )
    return state
