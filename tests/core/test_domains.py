"""What methods for subpopulation shift are told, and what they say where it lacks."""

import pytest
import torch
from testkit.script import CLASSES, make, train
from testkit.training import Recipe, fit, module_of, tiny_data, trainer_of
from torch import nn
from torch.utils.data import DataLoader

from lightning_perturb.core import Batch
from lightning_perturb.core.domains import DomainModule, DomainPenaltyModule
from lightning_perturb.methods import UW, GroupDRO


class Domains(DomainModule):
    """Cross-entropy that wants to know."""


def served(domain, y=(0, 1, 3)):
    return Batch(torch.zeros(3, 6), torch.tensor(y), None, {"domain": torch.tensor(domain)})


def test_group_is_class_times_domains_and_domain():
    module = make(Domains, num_domains=3)
    assert module.group(served([2, 0, 1])).tolist() == [2, 3, 10]
    soft = served([2, 0, 1])
    soft.y = torch.tensor([[0.6, 0.4, 0, 0], [0, 0, 0, 1.0], [0.1, 0.2, 0.7, 0]])
    assert module.group(soft).tolist() == [2, 9, 7]


def test_the_data_tells_domains_and_counts():
    module = fit(Recipe(UW, data={"domains": 3}, trainer={"max_epochs": 1})).lightning_module
    assert module.known_domains() == 3
    assert torch.equal(module.group_counts.sum(1), module.class_counts)
    weights = module.group_weight.reshape(10, 3)
    present = module.group_counts > 0
    parts = (weights * module.group_counts)[present]
    torch.testing.assert_close(parts, parts[:1].expand(len(parts)))


def test_faults():
    for options, message in (
        ({"num_domains": 0}, "num_domains=0"),
        ({"num_domains": 2, "group_counts": [[1, 2, 3]] * CLASSES}, r"must be 4 rows, one a class, of 2 numbers"),
        ({"group_counts": [[1, 2]] * 3}, "must be 4 rows, one a class, of D numbers"),
        ({"group_counts": [[1, 2]] * 3 + [[1]]}, "must be 4 rows"),
        ({"group_counts": [[1, -2]] * CLASSES}, "at least 0"),
        ({"group_counts": [[0, 0]] * CLASSES}, "not all 0"),
        ({"adjustment": -1.0}, r"adjustment=-1\.0"),
        ({"step_size": -1.0}, r"step_size=-1\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make(GroupDRO, **options)
    for options, message in (
        ({"weight": -1.0}, r"weight=-1\.0"),
        ({"anneal_steps": -1}, "anneal_steps=-1"),
        ({"risk": "worst"}, "risk='worst'"),
        ({"environments": "class"}, "environments='class'"),
    ):
        with pytest.raises(ValueError, match=message):
            make(DomainPenaltyModule, **options)
    with pytest.raises(ValueError, match=r"A domain is 2, outside 0\.\.1 for num_domains=2 of Domains"):
        make(Domains, num_domains=2).domains(served([0, 1, 2]))
    with pytest.raises(ValueError, match=r"A domain is -1, outside 0\.\.1"):
        make(Domains, num_domains=2).domains(served([0, -1, 1]))


def test_without_sizes_where_they_are_needed():
    for method, options, message in (
        (GroupDRO, {}, "GroupDRO needs the number of domains.*num_domains="),
        (UW, {}, "UW needs the number of domains.*num_domains="),
        (UW, {"num_domains": 3}, r"UW needs the number of training samples of each group.*group_counts="),
        (GroupDRO, {"num_domains": 3, "adjustment": 1.0}, r"adjustment=1\.0 of GroupDRO needs .*group_counts="),
    ):
        with pytest.raises(ValueError, match=message):
            train(make(method, **options))
    train(make(GroupDRO, num_domains=3), epochs=1)


def test_the_data_and_the_argument_must_agree():
    module = module_of(Recipe(GroupDRO, {"num_domains": 3}))
    with pytest.raises(ValueError, match=r"num_domains=3 of GroupDRO disagrees .* 2 domains"):
        trainer_of(max_epochs=1).fit(module, tiny_data(domains=2))


def test_another_number_of_groups_at_a_resume(tmp_path):
    samples = [{"x": torch.randn(6), "y": i % 4, "domain": i % 2} for i in range(24)]

    def trained(domains, path=None, epochs=1):
        module = GroupDRO(nn.Linear(6, CLASSES), CLASSES, num_domains=domains)
        trainer = trainer_of(max_epochs=epochs)
        trainer.fit(module, DataLoader(samples, 8), ckpt_path=path)
        return trainer

    trained(2).save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="holds the weights of 8 groups, the data now has 12"):
        trained(3, tmp_path / "run.ckpt", epochs=2)


def test_given_counts_beat_those_of_a_checkpoint(tmp_path):
    samples = [{"x": torch.randn(6), "y": i % 4, "domain": i % 3 // 2} for i in range(24)]

    def trained(counts, path=None, epochs=1):
        module = UW(nn.Linear(6, CLASSES), CLASSES, group_counts=counts)
        trainer = trainer_of(max_epochs=epochs)
        trainer.fit(module, DataLoader(samples, 8), ckpt_path=path)
        return trainer

    trained([[4, 2]] * 4).save_checkpoint(tmp_path / "run.ckpt")
    module = trained([[9, 1]] * 4, tmp_path / "run.ckpt", 2).lightning_module
    assert module.group_counts.tolist() == [[9, 1]] * 4
    assert module.group_weight.tolist() == pytest.approx([5 / 9, 5.0] * 4)


def test_tokenised_text_keeps_its_domain_out_of_the_input():
    batch = Batch.of({"input_ids": torch.zeros(2, 5), "labels": torch.tensor([0, 1]), "domain": torch.tensor([1, 0])})
    assert set(batch.x) == {"input_ids"}
    assert batch.extra["domain"].tolist() == [1, 0]
