"""What cells refuse, where they stand, and what their parts do."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import CSVLogger
from testkit.training import CLASSES, NETS, Recipe, Saves, decaying, fit, sgd, tiny_data, trainer_of

import lightning_perturb
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.core.plain import as_plain
from lightning_perturb.lattice import (
    Adversarial,
    ClassAverage,
    ClassWeight,
    ConfidentClasses,
    Covariance,
    FrequencyBounds,
    FrequentClasses,
    HardestSamples,
    Hyperparameter,
    LargeLosses,
    LogPrior,
    Meta,
    Noise,
    OwnLogit,
    PacedLosses,
    Partner,
    Poly,
    Predicted,
    Prior,
    Redrawn,
    Regularization,
    Relative,
    Shift,
    Slack,
    Taught,
    Uniform,
    Unlikely,
)
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.site import feature_site, label_site, logit_site, loss_site
from lightning_perturb.methods import MetaPerturb, Perturb


def module_of(*cells, method=Perturb, **options):
    seed_everything(0, verbose=False)
    return method(NETS["mlp"](), CLASSES, optimizer=sgd, perturbations=list(cells), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adversarial("feeture"), "target='feeture'"),
        (lambda: Adversarial("logit", "group"), "granularity='group'"),
        (lambda: Adversarial("logit", "sample", "up"), "direction='up'"),
        (lambda: Adversarial("logit", "corpus", "mixed"), "one perturbation for the whole corpus has one direction"),
        (lambda: Adversarial("feature", norm="none"), "norm='none' has no bound"),
        (lambda: Adversarial("label", eps=1.5), "eps=1.5"),
        (lambda: Adversarial("logit", eps=-1.0), "eps=-1"),
        (lambda: Adversarial("logit", steps=-1), "steps=-1"),
        (lambda: Adversarial("logit", "category", "mixed", split=HardestSamples()), "split=HardestSamples tells apart"),
        (lambda: Adversarial("logit", "corpus", "positive", split=FrequentClasses()), "split=FrequentClasses"),
        (lambda: Adversarial("loss", split=HardestSamples()), "weights whose mean is 1"),
        (lambda: Regularization("logit", lam=0.0), "lam=0"),
        (lambda: Regularization("logit", "sample", "negative", penalty="l1"), "without end. Take squared"),
        (lambda: Regularization("label", penalty="l1"), "penalty='l1' is not solved"),
        (lambda: Regularization("loss", "corpus", penalty="squared"), "Take l1"),
        (lambda: Regularization("label", "corpus"), r"has no meaning: the price is on Δy itself"),
        (lambda: Regularization("feature", step_size=0.0), "step_size=0"),
        (lambda: Prior("logit", pattern=Uniform()), "pattern=Uniform perturbs the label, not the logit"),
        (lambda: Prior("label", direction="positive", pattern=Unlikely()), "raises every loss"),
        (lambda: Prior("label", direction="negative", pattern=Predicted()), "lowers every loss"),
        (lambda: Prior("label", direction="mixed", pattern=Predicted()), "moves every loss one way"),
        (lambda: Prior("label", direction="mixed", split=HardestSamples()), "chooses a sign"),
        (lambda: Prior("label", strength=1.5), "strength=1.5 is beyond 1, where Unlikely"),
        (lambda: Prior("logit", power=0.3), "power=0.3 weighs categories"),
        (lambda: Prior("loss", pattern=Relative()), "only changes the learning rate"),
        (lambda: Prior("loss", "corpus", "mixed"), "either raises losses or lowers them"),
        (lambda: Prior("loss", "corpus", "negative", pattern=Slack()), "lowers every loss"),
        (lambda: Hyperparameter("logit", value=-1.0), "value=-1"),
        (lambda: Prior("logit", "corpus", "mixed", pattern=OwnLogit()), "has one sign for the whole corpus"),
        (lambda: Prior("loss", direction="positive", pattern=Poly(), strength=1.5), "beyond 1, where Poly"),
        (lambda: Adversarial("label", steps=3), r"steps is not used by Adversarial\(target=label.*, solved exactly"),
        (lambda: Adversarial("loss", norm="l2"), "norm is not used by"),
        (lambda: Adversarial("logit", space=InputSpace()), "space is not used by .*which acts on no input"),
        (lambda: Adversarial("feature", "corpus", random_start=False), "random_start is not used by"),
        (lambda: Adversarial("logit", norm="none", eps=1.0), "eps is not used by .*it has no ball"),
        (lambda: Adversarial("logit", bounds=FrequencyBounds()), "bounds is not used by .*no balls of categories"),
        (lambda: Adversarial("logit", "category", bounds=FrequencyBounds(), steps=3), "steps is not used"),
        (lambda: Adversarial("logit", "category", bounds=FrequencyBounds()), "needs the length of a step"),
        (lambda: Regularization("logit", steps=3), "steps is not used by .*solved exactly"),
        (lambda: Regularization("loss", step_size=1.0), "step_size is not used by"),
        (lambda: Regularization("logit", penalty="l2", space=InputSpace()), "space is not used by"),
        (lambda: Meta("logit", "category", hidden=7), "hidden=7 contradicts granularity='category'"),
        (lambda: PacedLosses(2.0, 1.0), "last=1.0 must be above first=2.0"),
        (lambda: Covariance(ramp=False, epochs=3), "epochs=3 contradicts ramp=False"),
        (lambda: Hyperparameter("logit", "corpus", value=[1.0, 2.0]), "gives one number for each category"),
        (lambda: Hyperparameter("logit", "corpus", power=1.0), "power=1.0 makes amounts of samples"),
        (lambda: Hyperparameter("loss", "category", value=[0.2, 0.2]), "only changes the learning rate"),
        (lambda: Meta("logit", start=1.0), "start=1.0 is a number of categories"),
        (lambda: Meta("logit", "corpus", start=-1.0), r"start=-1.0 is outside \[0, inf\]"),
        (lambda: Meta("label", "category", start=2.0), r"start=2.0 is outside \[0, 1\]"),
        (lambda: Meta("label", bound=2.0), "bound=2.0 is beyond 1"),
        (lambda: Meta("logit", bound=float("inf")), "without a scale"),
        (lambda: Meta("logit", bound=0.0), "bound=0"),
        (lambda: HardestSamples(1.2), "share=1.2"),
        (lambda: LargeLosses(-1.0), "tau=-1"),
        (lambda: FrequentClasses(-0.1), "share=-0.1"),
        (lambda: Shift(share=2.0), "share=2"),
        (lambda: module_of(Meta("loss")), "which Perturb does not read. Use MetaPerturb"),
        (lambda: module_of(Hyperparameter("logit", "category", value=[1.0, 2.0])), "2 numbers for 10 classes"),
    ],
)  # fmt: skip
def test_contradictions_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_lattice_stands_where_its_cells_stand():
    module = module_of(Prior("label", "sample", "mixed"), Adversarial("feature", "corpus"))
    assert module.coordinates == Coordinates.of(
        ("feature", "label"), ("positive", "negative"), ("prior", "adversarial"), ("sample", "corpus")
    )
    assert module_of(Adversarial("logit", "category", "positive")).coordinates == Coordinates.of(
        "logit", "positive", "adversarial", "category"
    )
    assert module_of(Adversarial("logit")).coordinates != Perturb.coordinates


def batch(size=8):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(size, 1, 8, 8, generator=generator)
    return Batch(x, torch.arange(size) % 4, torch.arange(size))


def test_splits():
    module = module_of()
    module.class_counts.copy_(torch.tensor([50, 40, 3, 2, *[1] * 6]))
    u = torch.zeros(8, CLASSES)
    u[torch.arange(8), batch().y] = torch.tensor([5.0, -1, 2, 0, 4, 0, 3, 1])
    site = logit_site(module, "cell_0", batch(), {"logits": u})
    assert HardestSamples(0.25).positive(u, site).nonzero().flatten().tolist() == [1, 3]
    assert LargeLosses(2.2).positive(u, site).nonzero().flatten().tolist() == [1, 3, 5]
    # classes 0 and 2 have large logits in both of their samples
    assert ConfidentClasses().positive(u, site).tolist() == [True, False, True, False] * 2
    assert FrequentClasses(0.2).positive(u, site).tolist() == [True, True, False, False] * 2
    # hard is what was hard before anything was perturbed; confidence is that of what the cell finds
    assert HardestSamples(0.25).positive(
        u + 100 * torch.eye(CLASSES)[batch().y], site
    ).nonzero().flatten().tolist() == [1, 3]
    assert ConfidentClasses().positive(-u, site).tolist() == [False, True, False, True] * 2


def test_a_split_without_mixture_leaves_the_rest_alone():
    module = module_of()
    u = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0))
    for direction, way in (("positive", -1), ("negative", 1)):
        cell = Adversarial("logit", "sample", direction, split=HardestSamples(0.25))
        site = logit_site(module, "cell_0", batch(), {"logits": u})
        hard = HardestSamples(0.25).positive(u, site)
        chosen = hard if direction == "positive" else ~hard
        change = site.losses(cell(u, site)) - site.losses(u)
        assert bool((way * change[chosen] > 0).all())
        assert not change[~chosen].any()


def test_given_amounts():
    module = module_of(class_counts=list(range(10, 0, -1)))
    module.class_counts.copy_(torch.arange(10, 0, -1))
    u = torch.zeros(8, CLASSES)
    site = logit_site(module, "cell_0", batch(), {"logits": u})
    own = Hyperparameter("logit", "category", "positive", value=[1.0, 2.0, 3.0, 4.0, *[0.0] * 6])(u, site)
    torch.testing.assert_close(own, torch.eye(CLASSES)[batch().y] * (batch().y[:, None] + 1.0))
    corpus = Hyperparameter("logit", "corpus", "negative", value=0.3, pattern=OwnLogit())(u, site)
    torch.testing.assert_close(corpus, -0.3 * torch.eye(CLASSES)[batch().y])
    sample = Hyperparameter("logit", "sample", "negative", value=0.5, power=2.0, pattern=OwnLogit())(u, site)
    torch.testing.assert_close(sample, -0.5 * 0.9**2 * torch.eye(CLASSES)[batch().y])
    rare = Prior("logit", "category", "negative", strength=0.5, power=1.0)(u, site)
    expected = -0.5 * (1 / torch.arange(10.0, 0, -1))[batch().y][:, None] * torch.eye(CLASSES)[batch().y]
    torch.testing.assert_close(rare, expected)
    prior = Prior("logit", "category", "mixed", strength=1.0, power=0, pattern=LogPrior())(u, site)
    torch.testing.assert_close(prior[0], (torch.arange(10.0, 0, -1) / 55).log())


def test_slack_takes_a_constant_off():
    module = module_of()
    loss = torch.tensor([0.1, 0.5, 2.0])
    site = loss_site(module, "cell_0", batch(3), {"logits": torch.zeros(3, CLASSES)})
    found = Hyperparameter("loss", "corpus", "positive", value=0.4, pattern=Slack())(loss, site)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.1, 1.6]))
    quantile = Regularization("loss", "corpus", lam=0.5)(loss, site)
    torch.testing.assert_close(quantile, torch.tensor([0.0, 0.0, 1.5]))


def test_shifts_move_the_same_samples_in_every_epoch(monkeypatch):
    module = module_of(seed=3)
    one = Batch(torch.zeros(200, 2), torch.zeros(200, dtype=torch.int64), torch.arange(200))
    cell = Hyperparameter("feature", "corpus", "mixed", value=1.0, pattern=Shift([1.0, -2.0], share=0.25))
    moved = cell(one.x, feature_site(module, "cell_0", one))
    rows = moved.any(1)
    assert 30 < int(rows.sum()) < 70
    assert torch.equal(moved[rows], torch.tensor([1.0, -2.0]).expand(int(rows.sum()), 2))
    monkeypatch.setattr(Perturb, "current_epoch", 4)
    assert torch.equal(cell(one.x, feature_site(module, "cell_0", one)), moved)
    with pytest.raises(ValueError, match=r"by=\[1.0, 2.0, 3.0\] has 3 numbers for inputs with 2 channels"):
        Shift([1.0, 2.0, 3.0]).unit(one.x, feature_site(module, "cell_0", one))


def test_noise_is_turned_to_go_the_cells_way():
    module = module_of()
    one = batch(64)
    seen = {}
    for direction in ("mixed", "positive", "negative"):
        site = feature_site(module, "cell_0", one.copy())
        moved = Prior("feature", "sample", direction, strength=0.2, pattern=Noise())(one.x, site)
        seen[direction] = moved - one.x, site.losses(moved) - site.losses(one.x)
    noise = seen["mixed"][0]
    assert float(seen["mixed"][1].max()) > 0
    assert float(seen["mixed"][1].min()) < 0
    for direction, sign in (("positive", -1), ("negative", 1)):
        delta, change = seen[direction]
        assert bool((sign * change >= 0).all())
        kept = delta.flatten(1).any(1)
        assert int(kept.sum()) > 50
        same = torch.isclose(delta.abs(), noise.abs(), atol=1e-6).flatten(1).all(1)
        assert torch.equal(same, kept), "noise, its opposite, or nothing"


def test_a_universal_perturbation_grows_over_batches_and_stays_in_its_ball():
    module = module_of(Adversarial("feature", "corpus", eps=0.1, step_size=0.03, steps=1))
    cell, one = module.perturbations[0], batch()
    losses, sizes = [], []
    for _ in range(5):
        site = feature_site(module, "cell_0", one.copy())
        losses.append(float(site.losses(cell(one.x, site)).mean()))
        sizes.append(float(module.cell_0_shared.abs().max()))
    assert sizes == pytest.approx([0.03, 0.06, 0.09, 0.1, 0.1])
    assert losses == sorted(losses)
    assert module.cell_0_shared.shape == (1, 1, 8, 8)
    other = Batch(torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), torch.arange(2))
    with pytest.raises(ValueError, match=r"The inputs have the shape \(1, 4, 4\), the perturbation"):
        cell(other.x, feature_site(module, "cell_0", other))


def test_classes_that_are_absent_keep_their_perturbation():
    module = module_of(Adversarial("feature", "category", eps=0.1, step_size=0.03, steps=1))
    cell = module.perturbations[0]
    one = batch(4)
    cell(one.x, feature_site(module, "cell_0", one))
    first = module.cell_0_shared.clone()
    assert first[:4].flatten(1).any(1).all()
    assert not first[4:].any()
    alone = Batch(one.x[:1], one.y[:1], one.index[:1])
    cell(alone.x, feature_site(module, "cell_0", alone))
    assert not torch.equal(module.cell_0_shared[0], first[0])
    assert torch.equal(module.cell_0_shared[1:], first[1:])


def test_perturbed_images_stay_valid():
    module = module_of()
    one = Batch(torch.rand(8, 1, 8, 8).round(), torch.arange(8), torch.arange(8))
    for granularity in ("sample", "corpus"):
        own = module_of(Adversarial("feature", granularity, eps=0.3))
        moved = own.perturbations[0](one.x, feature_site(own, "cell_0", one.copy()))
        assert float(moved.min()) >= 0
        assert float(moved.max()) <= 1
        assert not torch.equal(moved, one.x)
    with pytest.raises(ValueError, match="clip=True expects pixels"):
        Adversarial("feature")(one.x * 3, feature_site(module, "cell_0", one.copy()))


def test_what_needs_counts_says_so():
    module = module_of(Prior("logit", "corpus", "mixed"))
    assert module.needs_class_counts
    assert not module_of(Prior("logit", "category", "mixed", power=0)).needs_class_counts
    assert module_of(Adversarial("logit", "category", "mixed", split=FrequentClasses())).needs_class_counts
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(torch.rand(8, 64), torch.arange(8)), 4)
    with pytest.raises(ValueError, match=r"Perturb needs the number of training samples of each class"):
        trainer_of(max_epochs=1).fit(module, loader)


def test_a_learned_input_noise_takes_the_reference_engine():
    module = module_of(Meta("feature", "corpus", "mixed", start=0.1), method=MetaPerturb)
    with pytest.warns(UserWarning, match="engine='auto' goes on with engine='higher'"):
        trainer_of(max_epochs=1).fit(module, tiny_data(meta_size=20))
    assert float(module.cell_0_amount.detach()) != pytest.approx(0.1)


def test_without_a_learned_cell_there_is_nothing_to_learn():
    with pytest.raises(ValueError, match="MetaPerturb has nothing to learn"):
        trainer_of(max_epochs=1).fit(module_of(method=MetaPerturb), tiny_data(meta_size=20))


class Towards(Prior):
    """A user's own cell, in the style of the package's methods."""

    def __init__(self, *args, goal=0, **kwargs):
        super().__init__(*args, **kwargs)
        self.goal = goal


LISTED = [
    Adversarial("feature", "corpus", steps=1, space=InputSpace("input", clip=False)),
    Prior("feature", "sample", "mixed", strength=0.3, pattern=Partner(alpha=0.4)),
    Towards("logit", "corpus", "mixed", strength=0.4, pattern=LogPrior(), goal=3),
    Adversarial("logit", "category", "mixed", eps=0.1, step_size=0.1, bounds=FrequencyBounds(0.3), norm="l2"),
    Hyperparameter("label", "category", "mixed", value=[0.01 * c for c in range(10)]),
    Regularization("loss", direction="positive", lam=3.0, split=HardestSamples(0.3)),
]


def test_a_checkpoint_from_python_has_its_cells(tmp_path):
    recipe = Recipe(Perturb, {"perturbations": LISTED}, trainer={"max_epochs": 2})
    trainer = fit(recipe, callbacks=[Saves(tmp_path, "batch", every_n_train_steps=8)])
    (path,) = tmp_path.glob("*=8.ckpt")
    saved = torch.load(path, weights_only=True)["hyper_parameters"]["perturbations"]
    assert saved[1]["init_args"]["pattern"] == {
        "class_path": "lightning_perturb.lattice.pattern.feature.Partner",
        "init_args": {"alpha": 0.4},
    }
    again = lightning_perturb.load(path, net=NETS["mlp"]())
    assert [str(cell) for cell in again.perturbations] == [str(cell) for cell in LISTED]
    assert as_plain(again.perturbations) == as_plain(tuple(LISTED)) == tuple(saved)
    assert again.perturbations[2].goal == 3
    assert float(again.cell_0_shared.abs().max()) > 0
    # a module that was made again trains on as the one that went on
    other = fit_on(again, path)
    for one, two in zip(other.parameters(), trainer.lightning_module.parameters(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(other.cell_0_shared, trainer.lightning_module.cell_0_shared)
    other = lightning_perturb.load(path, net=NETS["mlp"](), perturbations=[*LISTED[:5], Regularization("loss")])
    assert other.perturbations[5].lam == 2.0, "what is given beats what was saved"


def fit_on(module, path):
    module.optimizer, module.lr_scheduler = sgd, decaying
    seed_everything(3, verbose=False)
    trainer_of(max_epochs=2).fit(module, tiny_data(), ckpt_path=path)
    return module


def test_loggers_write_cells_down_as_plain_data(tmp_path):
    logger = CSVLogger(tmp_path)
    recipe = Recipe(Perturb, {"perturbations": LISTED}, trainer={"max_epochs": 1, "logger": logger})
    module = fit(recipe).lightning_module
    written = yaml.safe_load((Path(logger.log_dir) / "hparams.yaml").read_text())
    assert written["perturbations"] == module.hparams["perturbations"]


def test_nothing_is_imported_to_open_a_checkpoint(tmp_path):
    for name in ("os.system", "nowhere.Cell", "lightning_perturb.nets.MLP", "torch.nn.Linear"):
        with pytest.raises(ValueError, match=rf"class_path='{name}' is not imported, or no class that is saved"):
            module_of({"class_path": name, "init_args": {}})
    with pytest.raises(ValueError, match=r"Prior' does not take what was saved: .*'strenght'"):
        module_of({"class_path": "lightning_perturb.lattice.amount.Prior", "init_args": {"strenght": 1.0}})
    with pytest.raises(ValueError, match=r"perturbations lists Uniform\(\), which is no cell"):
        module_of({"class_path": "lightning_perturb.lattice.pattern.Uniform", "init_args": {}})
    with pytest.raises(ValueError, match=r"perturbations lists 'Prior', which is no cell"):
        module_of("Prior")


@pytest.mark.parametrize("place", ["pattern.feature", "pattern", ""])
def test_a_class_is_found_under_every_address_that_it_has(place):
    """Checkpoints hold addresses: a class that moves must not be lost to those from before."""
    module = ".".join(filter(None, ("lightning_perturb.lattice", place)))
    cell = {
        "class_path": "lightning_perturb.lattice.amount.Prior",
        "init_args": {"target": "feature", "direction": "mixed", "pattern": {"class_path": f"{module}.Partner"}},
    }
    (found,) = module_of(cell).perturbations
    assert type(found) is Prior
    assert type(found.pattern) is Partner


def test_two_cells_that_redraw_labels_draw_each_for_itself():
    def labels(number):
        cell = Prior("label", "sample", "mixed", strength=1.0, pattern=Redrawn(1.0))
        module = module_of(*[Prior("loss", "sample", "negative")] * number, cell)
        batch = Batch(torch.zeros(40, 64), torch.zeros(40, dtype=torch.long), torch.arange(40))
        return module.perturb_target(torch.zeros(40, 10), batch).argmax(1)

    assert torch.equal(labels(0), labels(0))
    assert not torch.equal(labels(0), labels(1))


def test_cells_with_a_live_object_are_given_again(tmp_path):
    cells = [Prior("loss", "sample", "negative", strength=1.0, pattern=Taught(NETS["mlp"]()))]
    trainer = fit(Recipe(Perturb, {"perturbations": cells}, trainer={"max_epochs": 1}))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="perturbations=your_perturbations"):
        lightning_perturb.load(tmp_path / "run.ckpt", net=NETS["mlp"]())
    assert lightning_perturb.load(tmp_path / "run.ckpt", net=NETS["mlp"](), perturbations=cells)


def test_cells_can_be_copied():
    for cell in LISTED:
        assert as_plain(copy.deepcopy(cell)) == as_plain(cell) == as_plain(pickle.loads(pickle.dumps(cell)))


def test_a_split_holds_for_patterns_of_one_sign():
    module = module_of()
    u = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0))
    site = label_site(module, "cell_0", batch(), {"logits": u})
    one_hot = torch.eye(CLASSES)[batch().y]
    for direction, pattern in (("positive", Predicted()), ("negative", Unlikely())):
        split = HardestSamples(0.25)
        moved = Prior("label", "sample", direction, pattern=pattern, strength=0.5, split=split)(one_hot, site)
        hard = split.positive(one_hot, site)
        chosen = hard if direction == "positive" else ~hard
        goal = torch.eye(CLASSES)[u.argmax(1) if direction == "positive" else u.argmin(1)]
        torch.testing.assert_close(moved, torch.where(chosen[:, None], one_hot + 0.5 * (goal - one_hot), one_hot))


def test_means_of_groups_are_not_rounded_under_autocast():
    rows = torch.rand(64, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(64) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Groups("category", y).mean(rows)
    torch.testing.assert_close(found, torch.stack([rows[y == c].mean(0) for c in range(3)]), rtol=1e-6, atol=1e-6)


def test_small_perturbations_of_large_half_precision_logits_are_kept():
    module = module_of(Hyperparameter("logit", "corpus", "positive", value=0.01, pattern=OwnLogit()))
    u = torch.full((4, CLASSES), 30.0, dtype=torch.bfloat16)
    moved = module.perturb_logits(u, {"logits": u}, batch(4))
    torch.testing.assert_close(moved[:, :4], 30 + 0.01 * torch.eye(4))
    counted = module_of(Prior("logit", "corpus", "mixed"))
    counted.class_counts.copy_(torch.tensor([5003, *[3] * 9]))
    moved = counted.perturb_logits(u, {"logits": u}, batch(4)) - 30
    torch.testing.assert_close(moved[0], (counted.class_counts / 5030).log(), rtol=0, atol=1e-5)


def test_soft_labels_where_ids_are_needed():
    soft = Batch(torch.rand(4, 1, 8, 8), torch.full((4, CLASSES), 1 / CLASSES), torch.arange(4))
    outputs = {"logits": torch.randn(4, CLASSES)}
    for cell in (
        Prior("label", "sample", "mixed", pattern=ClassAverage()),
        Prior("logit", "sample", "mixed", split=FrequentClasses()),
        Prior("loss", "sample", "mixed", strength=1.0, pattern=ClassWeight()),
        Regularization("logit"),
        Adversarial("logit", "category"),
    ):
        module = module_of(cell, class_counts=[3] * CLASSES)
        module.class_counts.fill_(3)
        values = {"label": soft.y, "loss": torch.ones(4)}
        site = {"label": label_site, "logit": logit_site, "loss": loss_site}[cell.target]
        with pytest.raises(ValueError, match=r"needs class ids \[B\]"):
            cell(values.get(cell.target, outputs["logits"]), site(module, "cell_0", soft, outputs))


def test_a_shift_of_some_samples_needs_to_know_them():
    module = module_of()
    one = Batch(torch.zeros(6, 2), torch.zeros(6, dtype=torch.int64))
    assert Shift(0.5).unit(one.x, feature_site(module, "cell_0", one)).eq(0.5).all()
    with pytest.raises(ValueError, match="needs each sample's index"):
        Shift(share=0.5).unit(one.x, feature_site(module, "cell_0", one))
