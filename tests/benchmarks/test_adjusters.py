"""What the maker of the shipped adjusters asks for."""

import sys

import adjusters
import pytest


def test_images_that_are_not_there_are_named_before_anything_trains(monkeypatch, capsys):
    monkeypatch.delenv("LIGHTNING_PERTURB_CIFAR10_JPEG", raising=False)
    monkeypatch.setattr(sys, "argv", ["adjusters.py", "make"])
    monkeypatch.setattr(adjusters, "make", lambda *_: pytest.fail("it trains"))
    with pytest.raises(SystemExit):
        adjusters.main()
    assert "${LIGHTNING_PERTURB_CIFAR10_JPEG}, which is not set" in capsys.readouterr().err
