"""Every cell with a meaning takes a batch of one sample, one class, and two classes in all."""

import pytest
import torch
from lightning.pytorch import seed_everything

from lightning_perturb.core import Batch
from lightning_perturb.lattice import Adversarial, Hyperparameter, Meta, Prior, Regularization, cells, no_meaning
from lightning_perturb.methods import MetaPerturb, Perturb
from lightning_perturb.nets import MLP

INFERENCES = {cls.inference: cls for cls in (Prior, Hyperparameter, Regularization, Meta, Adversarial)}
LEGAL = [cell for cell in cells() if no_meaning(*cell) is None]


@pytest.mark.parametrize("y", [[1], [0, 0, 0], [0, 1, 1]], ids=str)
@pytest.mark.parametrize("at", ["input", "deep"])
def test_losses_are_finite_and_have_a_gradient(y, at):
    for target, granularity, inference, direction in LEGAL:
        if at == "deep" and target != "feature":
            continue
        place = {"at": at} if target == "feature" else {}
        cell = INFERENCES[inference](target, granularity, direction, **place)
        seed_everything(0, verbose=False)
        method = MetaPerturb if inference == "meta" else Perturb
        module = method(MLP(2, 4, (3,)), 2, perturbations=[cell], class_counts=[5, 2])
        module.class_counts.copy_(torch.tensor([5, 2]))
        # as a plain (x, y) loader gives it
        batch = module.perturb_input(Batch(torch.rand(len(y), 4), torch.tensor(y)))
        outputs = module.outputs(module.net, batch)
        loss = module.loss(outputs, batch)
        loss.backward()
        module.update_state(outputs, batch)
        assert torch.isfinite(loss), cell
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in module.parameters()), cell
