"""Every cell with a meaning trains and does to the losses what its direction says; the others are refused."""

import pytest
import torch
from lightning.pytorch import seed_everything
from testkit.training import CLASSES, NETS, digits, sgd, trainer_of

from lightning_perturb.core import Batch
from lightning_perturb.data import Arrays, Exponential, Symmetric
from lightning_perturb.functional import cross_entropy, one_hot
from lightning_perturb.lattice import Adversarial, Hyperparameter, Meta, Prior, Regularization, cells, no_meaning
from lightning_perturb.lattice.site import feature_site, label_site, logit_site, loss_site
from lightning_perturb.methods import MetaPerturb, Perturb

INFERENCES = {cls.inference: cls for cls in (Prior, Hyperparameter, Regularization, Meta, Adversarial)}
LEGAL = [cell for cell in cells() if no_meaning(*cell) is None]
REFUSED = [cell for cell in cells() if no_meaning(*cell) is not None]


def made(cell, **options):
    target, granularity, inference, direction = cell
    return INFERENCES[inference](target, granularity, direction, **options)


def module_of(*cells, **options):
    method = MetaPerturb if any(isinstance(cell, Meta) for cell in cells) else Perturb
    seed_everything(0, verbose=False)
    return method(NETS["mlp"](), CLASSES, optimizer=sgd, perturbations=list(cells), **options)


def data(**options):
    x, y = digits()
    defaults = {"label_noise": Symmetric(0.3), "imbalance": Exponential(5.0), "batch_size": 32, "meta_size": 20}
    return Arrays(x[:500], y[:500], num_classes=CLASSES, **{**defaults, **options})


def test_how_many_cells_have_no_meaning():
    assert len(LEGAL) + len(REFUSED) == 4 * 3 * 5 * 3
    assert len(REFUSED) == 17


@pytest.mark.parametrize("cell", REFUSED, ids=" x ".join)
def test_a_cell_without_a_meaning_is_refused_with_the_reason(cell):
    with pytest.raises(ValueError, match=rf"target={cell[0]}, granularity={cell[1]}, .*has no meaning: ") as error:
        made(cell)
    assert no_meaning(*cell) in str(error.value)


@pytest.fixture(scope="module")
def trained():
    """A network that knows the digits a little, and a batch it has not learnt."""
    module = module_of(class_counts=list(range(20, 120, 10)))
    trainer_of(max_epochs=2).fit(module, data())
    x, y = digits()
    facts = data_facts()
    x = (x[600:664].float() / 255 - facts.mean[0]) / facts.std[0]
    return module.net.state_dict(), Batch(x, y[600:664], torch.arange(64)), facts


#: one class for all lowers the loss of a network alone that knows less than that
UNTRAINED = [("label", "corpus", "adversarial", "positive")]
#: prices at which a batch's mean gradient is worth a perturbation
PRICES = {("feature", "category"): 0.01, ("feature", "corpus"): 0.01, ("logit", "corpus"): 0.02}


def changes(cell, trained, **options):
    """What the cell does to the losses of a batch, and the classes."""
    state, batch, facts = trained
    module = module_of(made(cell, **options), class_counts=list(range(20, 120, 10)))
    module.class_counts.copy_(torch.tensor(list(range(20, 120, 10))))
    module.facts = facts
    if cell not in UNTRAINED:
        module.net.load_state_dict(state)
    module.eval()
    with torch.no_grad():
        logits = module.net(batch.x)
        plain = cross_entropy(logits, batch.y)
        one = batch.copy()
        target = cell[0]
        call = module.perturbations[0]
        if target == "feature":
            found = call
            site = feature_site(module, "cell_0", one)
            if isinstance(call, Meta):
                call.prepare(one.x, site)
                moved = call.enter(one.x, site)
            else:
                # a perturbation that is kept from batch to batch needs some
                for _ in range(3):
                    moved = found(one.x, site)
            after = cross_entropy(module.net(moved), batch.y)
        elif target == "logit":
            after = cross_entropy(call(logits, logit_site(module, "cell_0", one, {"logits": logits})), batch.y)
        elif target == "label":
            soft = call(one_hot(batch.y, CLASSES), label_site(module, "cell_0", one, {"logits": logits}))
            torch.testing.assert_close(soft.sum(1), torch.ones(64))
            assert float(soft.min()) >= 0
            after = cross_entropy(logits, soft)
        else:
            after = call(plain, loss_site(module, "cell_0", one, {"logits": logits}))
            assert float(after.min()) >= 0
    return (after - plain).double(), batch.y


def data_facts():
    source = data()
    source.setup("fit")
    return source.facts


@pytest.mark.parametrize("cell", LEGAL, ids=" x ".join)
def test_losses_go_where_the_direction_says(cell, trained):
    target, granularity, inference, direction = cell
    options = {}
    if inference == "meta" and granularity != "sample":
        options["start"] = 0.3
    if inference == "regularization" and (target, granularity) in PRICES:
        options["lam"] = PRICES[target, granularity]
    change, y = changes(cell, trained, **options)
    if inference == "adversarial" and target == "feature" and granularity == "sample":
        change = change[change.abs() > 1e-9]
    by_group = {
        "sample": change,
        "category": torch.stack([change[y == c].mean() for c in y.unique()]),
        "corpus": change.mean()[None],
    }[granularity]
    if target == "loss" and inference == "adversarial":
        by_group = change.mean()[None]
    assert float(by_group.abs().max()) > 1e-4, "nothing was perturbed"
    tolerance = 1e-6
    if direction == "positive":
        assert float(by_group.max()) <= tolerance
    elif direction == "negative":
        assert float(by_group.min()) >= -tolerance
    elif inference == "meta":
        # which sign is learned
        return
    elif target == "label":
        # the label of a class that is known best cannot lower its loss further
        assert float(change.min()) <= 0 < float(change.max())
    else:
        assert float(change.min()) < 0 < float(change.max())


PLACES = sorted({cell[:3] for cell in LEGAL})


@pytest.mark.parametrize("place", PLACES, ids=" x ".join)
def test_it_trains(place):
    # all directions of a place in one method: listing them is a mixture, too
    inside = {"start": 0.05} if place[2] == "meta" and place[1] != "sample" else {}
    listed = [made(cell, **inside) for cell in LEGAL if cell[:3] == place]
    module = module_of(*listed)
    before = [p.detach().clone() for p in module.net.parameters()]
    trainer = trainer_of(max_epochs=1, limit_train_batches=3)
    trainer.fit(module, data())
    assert trainer.global_step == 3
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    for old, new in zip(before, module.net.parameters(), strict=True):
        assert bool(new.isfinite().all())
        assert not torch.equal(old, new)
    assert module.coordinates.target == (place[0],)
    assert module.coordinates.inference == (place[2],)
    assert len(module.coordinates.direction) == (2 if len(listed) > 1 else 1)
    if place[2] == "meta":
        fresh = dict(module_of(*listed).named_parameters())
        learned = {name: not torch.equal(p, fresh[name]) for name, p in module.named_parameters() if "cell" in name}
        assert len({name.split("_")[1] for name in learned}) == len(listed)
        assert all(learned.values()), f"amounts that were not learned: {learned}"
