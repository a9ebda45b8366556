"""Running a network's forward again: with other parameters, from the same buffers and the same random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Call = Callable[..., Any]
"""Runs the network on an input, as the network itself would."""


def substituted(net: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Call:
    """A callable that runs ``net`` with ``parameters`` and ``buffers`` in place of its own.

    Tied parameters follow the one that is named. The buffers given may be moved by the forward: give copies.
    """
    values = {**parameters, **buffers}
    return lambda *args, **kwargs: functional_call(net, values, args, kwargs)


def copied_buffers(net: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers of ``net``, for a forward that must not move its own."""
    return {name: buffer.detach().clone() for name, buffer in net.named_buffers()}


class Moment:
    """What a forward of ``net`` starts from besides parameters and input: a copy of its buffers and the random state.

    Args:
        net: the network, remembered as it is now.
    """

    def __init__(self, net: nn.Module) -> None:
        self._buffers = copied_buffers(net)
        self._devices = sorted({p.device for p in net.parameters() if p.device.type != "cpu"}, key=str)
        self._random = self._random_state()

    @property
    def on_accelerator(self) -> bool:
        """Whether any parameter is elsewhere than on the CPU."""
        return bool(self._devices)

    def buffers(self) -> dict[str, Tensor]:
        """New copies of the buffers."""
        return {name: buffer.clone() for name, buffer in self._buffers.items()}

    @contextmanager
    def random_state(self) -> Iterator[None]:
        """Draws what was drawn from this moment on; afterwards the random state is what it was on entry."""
        with self.random_state_kept():
            self._set_random_state(self._random)
            yield

    @contextmanager
    def random_state_kept(self) -> Iterator[None]:
        """Whatever is drawn inside leaves no trace in the random state."""
        before = self._random_state()
        try:
            yield
        finally:
            self._set_random_state(before)

    def _random_state(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.get_device_module(d).get_rng_state(d) for d in self._devices)]

    def _set_random_state(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._devices, states[1:], strict=True):
            torch.get_device_module(device).set_rng_state(state, device)


@contextmanager
def differentiable_kernels(net: nn.Module) -> Iterator[None]:
    """Only kernels that have forward rules and second derivatives.

    Attention by its formula instead of the flash kernels, and for networks with recurrent layers neither mkldnn nor
    cuDNN.
    """
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in net.modules()):
            stack.enter_context(_without(torch.backends.mkldnn))
            stack.enter_context(_without(torch.backends.cudnn))
        yield


@contextmanager
def _without(backend: Any) -> Iterator[None]:
    enabled = backend.enabled
    backend.enabled = False
    try:
        yield
    finally:
        backend.enabled = enabled
