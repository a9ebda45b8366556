"""The inner rule: how the virtual step turns the gradient into look-ahead parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer


def looked_ahead(
    net: nn.Module, meta_parameters: Sequence[Tensor], lr: float | Optimizer, names: Sequence[str] | None
) -> dict[str, nn.Parameter]:
    """The parameters of ``net`` that the virtual step moves.

    Args:
        net: the network.
        meta_parameters: never moved, where they are parameters of the network.
        lr: an optimizer here leaves out the parameters that it does not hold.
        names: parameters or modules of the network (``"fc"``, ``"layer3.0"``); ``None`` for all.

    Raises:
        ValueError: if a name fits no parameter, or no parameter is left.
    """
    named = dict(net.named_parameters())
    if names is not None:
        for name in names:
            if not any(_within(parameter, name) for parameter in named):
                raise ValueError(f"look_ahead names {name!r}, neither a parameter nor a module of the network.")
        named = {n: p for n, p in named.items() if any(_within(n, name) for name in names)}
    meta = {id(parameter) for parameter in meta_parameters}
    held = {id(p) for group in lr.param_groups for p in group["params"]} if isinstance(lr, Optimizer) else None
    ahead = {
        name: parameter
        for name, parameter in named.items()
        if parameter.requires_grad and id(parameter) not in meta and (held is None or id(parameter) in held)
    }
    if not ahead:
        raise ValueError("no parameter is left to look ahead on. Check look_ahead, requires_grad and the optimizer.")
    return ahead


def inner_sgd(ahead: Mapping[str, nn.Parameter], lr: float | Optimizer, momentum: bool) -> SGD:
    """A fresh SGD over the parameters of ``ahead``, in the place of the optimizer that makes the real step.

    Args:
        ahead: the parameters that the virtual step moves.
        lr: the rate, or the real optimizer, whose groups give their current rates.
        momentum: take over the real optimizer's momentum, with its buffers, and weight decay. Otherwise plain SGD.

    Raises:
        ValueError: if ``momentum`` is asked of anything but an SGD that minimises.
    """
    if not isinstance(lr, Optimizer):
        if momentum:
            raise ValueError(f"momentum=True needs the optimizer itself, but lr={lr!r}. Give the optimizer as lr.")
        return SGD(list(ahead.values()), lr=lr)
    if momentum and (not isinstance(lr, SGD) or any(group["maximize"] for group in lr.param_groups)):
        raise ValueError(
            f"momentum=True needs torch.optim.SGD with maximize=False, not {type(lr).__name__}. "
            "Leave momentum at False to look ahead by plain SGD at the optimizer's rates."
        )
    chosen = {id(parameter) for parameter in ahead.values()}
    groups = [
        {
            **(group if momentum else {}),
            "lr": float(group["lr"]),
            "params": [p for p in group["params"] if id(p) in chosen],
        }
        for group in lr.param_groups
    ]
    sgd = SGD([group for group in groups if group["params"]], lr=0.0)
    if momentum:
        sgd.state.update({p: lr.state[p] for p in ahead.values() if p in lr.state})
    return sgd


def virtual_step(
    sgd: SGD, ahead: Mapping[str, nn.Parameter], gradients: Sequence[Tensor]
) -> tuple[dict[str, Tensor], list[float]]:
    """The look-ahead parameters ŵ, and for each the slope dŵ/d∇L, a number (-α for plain SGD).

    Neither the parameters nor the state of ``sgd`` are changed.
    """
    group_of = {id(p): group for group in sgd.param_groups for p in group["params"]}
    stepped: dict[str, Tensor] = {}
    slopes: list[float] = []
    with torch.no_grad():
        for (name, parameter), gradient in zip(ahead.items(), gradients, strict=True):
            group = group_of[id(parameter)]
            step = gradient.add(parameter, alpha=group["weight_decay"]) if group["weight_decay"] else gradient
            slope = 1.0
            if group["momentum"]:
                buffer = sgd.state.get(parameter, {}).get("momentum_buffer")
                velocity = step  # the first step of SGD with momentum is not damped
                if buffer is not None:
                    slope = 1.0 - group["dampening"]
                    velocity = buffer * group["momentum"] + step * slope
                if group["nesterov"]:
                    slope = 1.0 + group["momentum"] * slope
                    step = step + velocity * group["momentum"]
                else:
                    step = velocity
            stepped[name] = parameter.sub(step, alpha=group["lr"])
            slopes.append(-group["lr"] * slope)
    return stepped, slopes


def _within(parameter: str, name: str) -> bool:
    return parameter == name or parameter.startswith(f"{name}.")
