"""A layer of the network whose output is perturbed, such as the embedding of words, instead of the input."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn


class PerturbedLayer:
    """The output of a layer, to which a perturbation is added inside the network.

    The network may be called directly or through ``torch.func.functional_call``: the layer is found by a hook. Padding
    of an ``nn.Embedding`` that knows its ``padding_idx`` is never moved.

    Args:
        net: The network.
        name: Dotted name of the layer in the network; or ``embeddings``, the layer that embeds words or tokens: what
            ``get_input_embeddings()`` of the network gives, or else its only ``nn.Embedding``.

    Raises:
        ValueError: If the network has no such layer.
    """

    def __init__(self, net: nn.Module, name: str) -> None:
        self.name = name
        self._layer = (_embedding(net),) if name == "embeddings" else (_named(net, name),)

    def output(self, call: Callable[[], Any]) -> Tensor:
        """What the layer gives when the network runs ``[B, ...]``, without gradient.

        Args:
            call: Runs the network.

        Raises:
            ValueError: If the layer is not run exactly once, or gives no float tensor.
        """
        seen: list[Any] = []
        handle = self._layer[0].register_forward_hook(lambda layer, args, output: seen.append(output))
        try:
            with torch.no_grad():
                call()
        finally:
            handle.remove()
        # older versions of PyTorch reuse the weights that autocast cast here, which carry no history
        torch.clear_autocast_cache()
        if len(seen) != 1:
            raise ValueError(
                f"perturb_at={self.name!r} is run {len(seen)} times in a forward of the network, where it must be once "
                "to be perturbed. Name another layer."
            )
        return self._checked(seen[0])

    @contextmanager
    def moved(self, delta: Tensor) -> Iterator[None]:
        """Adds a perturbation to the layer's output in the forwards inside the ``with`` block; gradients flow.

        Args:
            delta: The perturbation, of the output's shape.
        """

        def add(layer: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
            x = self._checked(output)
            if x.shape != delta.shape:
                raise ValueError(
                    f"perturb_at={self.name!r} gives {tuple(x.shape)} where its perturbation has {tuple(delta.shape)}. "
                    "Name a layer whose output has one row for each sample."
                )
            shift = delta.to(x.dtype)
            if isinstance(layer, nn.Embedding) and layer.padding_idx is not None and args:
                shift = shift.masked_fill((args[0] == layer.padding_idx).unsqueeze(-1), 0.0)
            return x + shift

        handle = self._layer[0].register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def _checked(self, output: Any) -> Tensor:
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim >= 2:
            return output
        kind = f"{output.dtype} of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"perturb_at={self.name!r} gives {kind}, which no perturbation can be added to. Name a layer that gives "
            "one float tensor [B, ...]."
        )


def _named(net: nn.Module, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = {dotted: layer for dotted, layer in net.named_modules() if dotted}
    if name in layers:
        return layers[name]
    near = get_close_matches(name, layers, n=5, cutoff=0.4) or list(layers)[:10]
    raise ValueError(
        f"perturb_at={name!r} is no layer of {type(net).__name__}. Name one of its layers ({', '.join(near)}, ...), "
        "embeddings, or input."
    )


def _embedding(net: nn.Module) -> nn.Module:
    own: Any = getattr(net, "get_input_embeddings", None)
    if callable(own):
        layer: nn.Module = own()
        return layer
    found = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Embedding)}
    if len(found) == 1:
        return next(iter(found.values()))
    has = f"several: {', '.join(found)}" if found else "none"
    raise ValueError(
        f"perturb_at='embeddings' looks for the one nn.Embedding of {type(net).__name__}, which has {has}. Name the "
        "layer that embeds the input, or set perturb_at to input."
    )
