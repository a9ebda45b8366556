import json

import pytest
import speed
import torch
from speed_contenders import MEAN, PLAIN, STD, Contender, Options, contenders, make_batches
from speed_probes import Passes, counted
from speed_tables import Row, table

from lightning_perturb import methods
from lightning_perturb.core.manual import ManualModule

SMALL = Options(net="ConvNet", batch=8)


def passes_of(name, steps=2, **arguments):
    stepper = Contender(lambda **rest: contenders()[name](**rest, **arguments), SMALL)
    (batch,) = make_batches(SMALL, count=1)
    for _ in range(steps):
        with counted(stepper.module.net, SMALL.batch) as passes:
            stepper.step(batch)
    return passes


def test_every_method_is_found():
    # methods on a second stream of batches are timed by bilevel.py; those that make steps of their own have no floor
    all_of_them = {name: getattr(methods, name) for name in methods.__all__}
    plain = {name for name, cls in all_of_them.items() if not (cls.needs.meta or issubclass(cls, ManualModule))}
    others = {"KnowledgeDistillation", "BalancedKnowledgeDistillation", "TransferredRobustLoss", "OracleRobustLoss"}
    # they go through the training set between steps
    others |= {"RISDA", "D2L"}
    assert plain - others <= set(contenders())
    assert next(iter(contenders())) == PLAIN


@pytest.mark.parametrize("name", sorted(set(contenders()) - {"PGDTraining", "DLB", "MixPert eps2=8/255"}))
def test_methods_on_logits_labels_and_losses_make_no_extra_pass(name):
    assert passes_of(name).plain


def test_passes_are_counted():
    # five steps of an attack and one training pass
    pgd = passes_of("PGDTraining", steps=1)
    assert pgd == Passes(6, 5, 1)
    assert pgd.units == 5 * 2 + 3
    # the batch before comes again from the second step on
    assert passes_of("DLB", steps=1) == Passes(1, 0, 1)
    assert passes_of("DLB", steps=2) == Passes(2, 0, 2)
    # a ranking pass without gradient, five attacks on the easy part of the batch, one training pass
    mixed = passes_of("MixPert eps2=8/255", share=0.25)
    assert mixed == Passes(1 + 5 * 0.75 + 1, 5 * 0.75, 1)


def test_the_floor_adds_up():
    times = {"forward": 1.0, "attack": 20.0, "training": 300.0, "optimizer": 4000.0}
    assert Passes(1, 0, 1).floor(times) == 4300
    assert Passes(6, 5, 1).floor(times) == 5 * 20 + 300 + 4000
    assert Passes(2, 0, 2).floor(times) == 2 * 300 + 4000
    assert Passes(3, 1, 1).floor(times) == 1 + 20 + 300 + 4000


def test_a_step_trains():
    stepper = Contender(contenders()["MixPert"], SMALL)
    (batch,) = make_batches(SMALL, count=1)
    before = [weight.detach().clone() for weight in stepper.module.parameters()]
    stepper.step(batch)
    assert set(batch.extra) == {"domain"}
    assert any(not torch.equal(a, b) for a, b in zip(before, stepper.module.parameters(), strict=True))


def test_images_have_the_statistics_of_pixels():
    (batch,) = make_batches(Options(batch=64), count=1)
    x = batch.view
    assert x.mean().abs() < 0.1
    assert 0.8 < float(x.std()) < 1.1
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    pixels = (x * std + mean) * 255
    torch.testing.assert_close(pixels, pixels.round().clamp(0, 255), atol=1e-3, rtol=0)


def test_a_measurement_is_stored_and_shown(tmp_path, monkeypatch, capsys):
    few = {name: make for name, make in contenders().items() if name in (PLAIN, "LogPert", "PGDTraining")}
    monkeypatch.setattr(speed, "contenders", lambda: few)
    arguments = ["--net", "ConvNet", "--batch", "8", "--rounds", "2", "--threads", "1", "--results", str(tmp_path)]
    assert speed.main([*arguments, "--no-memory"]) == 0
    printed = capsys.readouterr().out
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert [row["name"] for row in stored["rows"]] == list(few)
    assert stored["about"]["rounds"] == 2
    plain = stored["rows"][0]
    assert plain["ratio"] == plain["ratio_low"] == plain["ratio_high"] == 1.0
    assert len((tmp_path / "speed.csv").read_text().splitlines()) == 4
    assert "| PGDTraining | feature | 6 F + 5 X + 1 W = 13 |" in printed
    assert speed.main(["--results", str(tmp_path), "--only-table"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("passes", "ratio", "of_floor", "shown"),
    [
        (Passes(1, 0, 1), 1.04, 1.2, "1.05 of CE: met"),
        (Passes(1, 0, 1), 1.06, 1.0, "1.05 of CE: MISSED"),
        (Passes(6, 5, 1), 4.0, 1.04, "1.05 of floor: met"),
        (Passes(6, 5, 1), 1.0, 1.06, "1.05 of floor: MISSED"),
    ],
)
def test_limits_are_shown(passes, ratio, of_floor, shown):
    about = {"net": "n", "batch": 1, "precision": "32", "channels_last": False, "device": "x", "rounds": 2}
    about |= {"versions": {"torch": "1"}, "commit": "abc"}
    row = Row("A", "logit", passes, 1.0, ratio, ratio, ratio, 1.0, of_floor, 12.3)
    assert f"| {shown} | 12 |" in table(about, [row])


def test_peak_memory_of_a_step():
    class Sent(list):
        send = list.append

    sent = Sent()
    speed._peak("LogPert", SMALL, 1, sent)
    assert sent[0] >= 0
