"""Exact bilevel gradients without the second-order graph, in any training loop; needs no Lightning.

One step::

    bilevel = Bilevel(net, outputs, loss, meta_loss)
    result = bilevel.hypergradient(train_batch, meta_batch, list(meta_net.parameters()), lr=optimizer)
    for parameter, gradient in zip(meta_net.parameters(), result.gradients):
        parameter.grad = gradient
    meta_optimizer.step()                                            # θ
    optimizer.zero_grad()
    real = loss(result.training_outputs(), train_batch)              # shares the training forward; θ is new
    real.backward(inputs=list(net.parameters()))                     # else it fills the gradients of θ, too
    optimizer.step()                                                 # w
"""

from lightning_perturb.bilevel.engine import Bilevel, Hypergradient
from lightning_perturb.bilevel.first_order import NotFirstOrderError
from lightning_perturb.bilevel.reduce import mean_over_ranks
from lightning_perturb.bilevel.step import Loss, MetaLoss, Outputs, Reduce

__all__ = [
    "Bilevel",
    "Hypergradient",
    "Loss",
    "MetaLoss",
    "NotFirstOrderError",
    "Outputs",
    "Reduce",
    "mean_over_ranks",
]
