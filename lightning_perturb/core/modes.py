"""Switching a network's mode for a side pass without forgetting what it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; afterwards every submodule has the mode it had, frozen ones included."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def attackable(net: nn.Module) -> Iterator[None]:
    """Evaluation mode in which gradients can be taken.

    Recurrent layers stay in training mode, since cuDNN gives no gradients in evaluation; their dropout is off, which is
    all that the mode means to them.
    """
    recurrent = [(module, module.dropout) for module in net.modules() if isinstance(module, nn.RNNBase)]
    with evaluating(net):
        try:
            for module, _ in recurrent:
                module.train()
                module.dropout = 0.0
            yield
        finally:
            for module, dropout in recurrent:
                module.dropout = dropout


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Normalisation works as it does, in training by the batch, but its running statistics do not move."""
    batch_norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    # these move them whatever they are told of tracking
    instance_norms = [(m, m.momentum) for m in net.modules() if isinstance(m, _InstanceNorm)]
    for module in batch_norms:
        module.track_running_stats = False
    for instance_norm, _ in instance_norms:
        instance_norm.momentum = 0.0
    try:
        yield
    finally:
        for module in batch_norms:
            module.track_running_stats = True
        for instance_norm, momentum in instance_norms:
            instance_norm.momentum = momentum


@contextmanager
def constant(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters through which no gradient flows inside the block; gives those of them that had one before."""
    held = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield held
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
