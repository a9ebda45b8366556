import pytest
import torch
from lightning.pytorch import seed_everything
from testkit.script import CLASSES, assert_same, cross_entropy, make, replay, softmax, train
from testkit.training import NETS, Recipe, TinyConv, fit, module_of, tiny_data, trainer_of
from torch import nn

import lightning_perturb
from lightning_perturb.core.teacher import Teacher
from lightning_perturb.methods import BalancedKnowledgeDistillation, CrossEntropy, KnowledgeDistillation


def teacher() -> nn.Module:
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(6, CLASSES), nn.Dropout(0.9)).double()


def test_a_training_by_hand():
    weight, bias = (p.detach().clone() for p in teacher().parameters())

    def loss(logits, batch, *_):
        u = logits(batch[0])
        # evaluation mode: no dropout
        taught, own = softmax((batch[0] @ weight.T + bias) / 3), softmax(u / 3)
        divergence = (taught * (torch.log(taught) - torch.log(own))).sum(1)
        return (cross_entropy(u, batch[1]) + 0.7 * 9 * divergence).mean()

    assert_same(train(make(KnowledgeDistillation, teacher=teacher(), lam=0.7, temperature=3.0)), replay(loss))


def test_without_weight_it_is_cross_entropy():
    assert_same(train(make(KnowledgeDistillation, teacher=teacher(), lam=0.0)), train(make(CrossEntropy)))


def test_the_teacher_is_frozen_and_no_part_of_the_student():
    taught = nn.Sequential(nn.BatchNorm1d(6), teacher()).double()
    module = make(KnowledgeDistillation, teacher=taught)
    before = {name: value.clone() for name, value in taught.state_dict().items()}
    train(module)
    assert all(torch.equal(value, before[name]) for name, value in taught.state_dict().items())
    assert {id(p) for p in module.parameters()} == {id(p) for p in module.net.parameters()}
    assert not [name for name in module.state_dict() if "teacher" in name]
    assert module.teacher is taught


def test_a_method_and_its_checkpoint_teach_alike(tmp_path, monkeypatch):
    seed_everything(0, verbose=False)
    path = tmp_path / "teacher.ckpt"
    trained = fit(Recipe(CrossEntropy, trainer={"max_epochs": 1}))
    trained.save_checkpoint(path)
    # what was trained from Python has its network nowhere in the file
    opened = lightning_perturb.load(path, net=NETS["mlp"]())
    recipe = Recipe(KnowledgeDistillation, {"teacher": opened}, trainer={"max_epochs": 1})
    found = fit(recipe).lightning_module.net.state_dict()
    monkeypatch.setattr(
        "lightning_perturb.core.teacher.load",
        lambda given: lightning_perturb.load(given, net=NETS["mlp"]()),
    )
    again = fit(recipe.but(options={"teacher": str(path)})).lightning_module
    assert all(torch.equal(found[name], value) for name, value in again.net.state_dict().items())
    assert again.hparams["teacher"] == str(path)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, ValueError, "teacher=None has nothing to teach"),
        ("nowhere.ckpt", FileNotFoundError, "teacher='nowhere.ckpt' is not a file"),
        (TinyConv(7), ValueError, r"teacher=TinyConv does not give \(B, 10\)"),
    ],
)
def test_a_teacher_that_does_not_fit(given, error, message):
    module = module_of(Recipe(KnowledgeDistillation, {"teacher": given}))
    with pytest.raises(error, match=message):
        trainer_of(max_epochs=1).fit(module, tiny_data())


def test_options():
    for name in ("lam", "temperature"):
        with pytest.raises(ValueError, match=f"{name}=-1"):
            make(KnowledgeDistillation, teacher=teacher(), **{name: -1.0})


def test_a_teacher_that_was_moved_meanwhile_comes_back():
    student, net = CrossEntropy(NETS["mlp"](), CLASSES).to("meta"), NETS["mlp"]()
    teacher = Teacher(net).on(student)
    net.to_empty(device="cpu")
    assert {p.device.type for p in teacher.on(student).net.parameters()} == {"meta"}


# balanced ---------------------------------------------------------------------------------------------------------


def test_a_balanced_training_by_hand():
    weight, bias = (p.detach().clone() for p in teacher().parameters())
    counts = torch.tensor([40, 12, 5, 2])
    weights = 0.1 / (1 - 0.9 ** counts.double())
    weights = weights * CLASSES / weights.sum()

    def loss(logits, batch, *_):
        u = logits(batch[0])
        taught, own = softmax((batch[0] @ weight.T + bias) / 3) * weights, softmax(u / 3)
        taught = taught / taught.sum(1, keepdim=True)
        divergence = (taught * (torch.log(taught) - torch.log(own))).sum(1)
        return (cross_entropy(u, batch[1]) + 0.7 * 9 * divergence).mean()

    options = {"lam": 0.7, "temperature": 3.0, "beta": 0.9, "class_counts": counts.tolist()}
    assert_same(train(make(BalancedKnowledgeDistillation, teacher=teacher(), **options)), replay(loss))


def test_before_its_weights_begin_it_is_plain_distillation():
    counts = [40, 12, 5, 2]
    found = make(BalancedKnowledgeDistillation, teacher=teacher(), from_epoch=10, class_counts=counts)
    assert_same(train(found), train(make(KnowledgeDistillation, teacher=teacher(), temperature=2.0)))
    with pytest.raises(ValueError, match="beta=1"):
        make(BalancedKnowledgeDistillation, beta=1.0)
