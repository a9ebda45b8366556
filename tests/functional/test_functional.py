"""The package as a whole: what it exports and how every per-sample function treats hard numbers."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch

import lightning_perturb.functional as functional

MODULES = [m.name for m in pkgutil.iter_modules(functional.__path__) if not m.name.startswith("_")]


def test_all_is_sorted_and_exists():
    assert list(functional.__all__) == sorted(set(functional.__all__))
    for name in functional.__all__:
        assert callable(getattr(functional, name)), name


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_is_exported_and_typed(name):
    module = importlib.import_module(f"lightning_perturb.functional.{name}")
    own = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    for function in own:
        if not function.__name__.startswith("_"):
            assert getattr(functional, function.__name__, None) is function, function.__name__
            assert function.__doc__
            assert "return" in function.__annotations__


@pytest.mark.parametrize("path", sorted(Path(functional.__path__[0]).glob("*.py")), ids=lambda p: p.name)
def test_no_lightning_import(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {n.split(".")[0] for n in names} & {"lightning", "pytorch_lightning", "lightning_fabric"}


SOFT = torch.full((5, 5), 0.2)
LOSSES = {
    "cross_entropy": lambda u, y: functional.cross_entropy(u, y),
    "cross_entropy soft": lambda u, y: functional.cross_entropy(u, functional.smooth(y, 5, 0.1)),
    "binary_cross_entropy": lambda u, y: functional.binary_cross_entropy(u, functional.one_hot(y, 5)),
    "margin": functional.margin,
    "probability_margin": functional.probability_margin,
    "logpert_loss": lambda u, y: functional.logpert_loss(u, y, 0.3),
    "logpert_loss lam 1": lambda u, y: functional.logpert_loss(u, y, 1.0),
    "mixpert": lambda u, y: functional.cross_entropy(u + functional.positive_perturbation(u, y, 3.0), y),
    "loss_ratio": lambda u, y: functional.loss_ratio(u, y, 3.0, 1.0),
    "soft bootstrapping": lambda u, y: functional.cross_entropy(u, functional.soft_bootstrapping_target(u, y)),
    "hard bootstrapping": lambda u, y: functional.cross_entropy(u, functional.hard_bootstrapping_target(u, y)),
    "mix bootstrapping": lambda u, y: functional.cross_entropy(
        u, functional.mix_bootstrapping_target(u, y, SOFT, 0.3, 0.5)
    ),
    "proselflc": lambda u, y: functional.cross_entropy(u, functional.proselflc_target(u, y, 0.7)),
    "dlb": lambda u, y: functional.dlb_loss(u, u.flip(0), 3.0),
    "mbls": lambda u, y: functional.mbls_penalty(u),
    "gce": functional.gce_loss,
    "gce q 0": lambda u, y: functional.gce_loss(u, y, 0.0),
    "truncated gce": functional.truncated_gce_loss,
    "mae": functional.mae_loss,
    "rce": functional.rce_loss,
    "sl": functional.sl_loss,
    "polysoft": lambda u, y: functional.polysoft_loss(u, y, 2.0, 1.5),
    "js": functional.js_loss,
    "js pi1 0": lambda u, y: functional.js_loss(u, y, 0.0),
    "js pi1 1": lambda u, y: functional.js_loss(u, y, 1.0),
    "normalized ce": functional.normalized_cross_entropy,
    "normalized focal": functional.normalized_focal_loss,
    "forward": lambda u, y: functional.forward_corrected_loss(u, y, 0.6 * torch.eye(5) + 0.08),
    "iada": lambda u, y: functional.cross_entropy(
        functional.iada_logits(u, y, torch.eye(5), 0.3, torch.ones(5, 5), log_prior=torch.zeros(5)), y
    ),
    "focal": functional.focal_loss,
    "focal gamma .5": lambda u, y: functional.focal_loss(u, y, 0.5),
    "binary focal": lambda u, y: functional.binary_focal_loss(u, functional.one_hot(y, 5)),
    "class balanced focal": lambda u, y: functional.class_balanced_focal_loss(u, y, torch.ones(5)),
    "distribution balanced": lambda u, y: functional.distribution_balanced_loss(
        u, functional.one_hot(y, 5), lam=5.0, gamma=2.0
    ),
    "logit compensation": lambda u, y: functional.logit_compensation_loss(
        u, functional.one_hot(y, 5), *torch.ones(4, 5)
    ),
    "logit adjustment": lambda u, y: functional.cross_entropy(functional.logit_adjustment(u, torch.arange(5.0)), y),
    "ldam": lambda u, y: functional.cross_entropy(functional.ldam_logits(u, y, torch.ones(5)), y),
    "adversarial label smoothing": lambda u, y: functional.cross_entropy(
        u, functional.adversarial_label_smoothing_target(u, y, 0.3)
    ),
    "confidence penalty": lambda u, y: functional.confidence_penalty(u, 1.0),
    "poly": functional.poly_loss,
    "knowledge distillation": lambda u, y: functional.knowledge_distillation_loss(u, y, torch.ones_like(u)),
    "disturb label": lambda u, y: functional.cross_entropy(
        u, functional.disturb_label(y, torch.full((len(y),), 0.1), 5)
    ),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_finite_in_value_and_gradient(name, dtype, scale):
    torch.manual_seed(0)
    u = (torch.randn(6, 5).clamp(-3, 3) * scale).to(dtype).requires_grad_()
    y = torch.tensor([0, 1, 2, 3, 4, 0])
    before = u.detach().clone()
    loss = LOSSES[name](u, y)
    assert loss.shape == (6,)
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert torch.equal(u, before)
    if loss.requires_grad:
        loss.sum().backward()
        assert u.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_samples_are_independent_and_batches_may_be_empty(name):
    torch.manual_seed(1)
    u, y = torch.randn(6, 5, dtype=torch.float64) * 3, torch.tensor([0, 1, 2, 3, 4, 0])
    if name != "dlb":
        alone = torch.cat([LOSSES[name](u[i : i + 1], y[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(LOSSES[name](u, y), alone)
    assert LOSSES[name](u[:0], y[:0]).shape == (0,)
    assert LOSSES[name](u, y).dtype == torch.float64
