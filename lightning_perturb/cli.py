"""The command line: a plain LightningCLI over methods and data, with a report after ``fit``."""

import os
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

# imported for their names: a class is legal on the command line by its short name once it is known
import lightning_perturb.callbacks
import lightning_perturb.data
import lightning_perturb.methods
import lightning_perturb.nets  # noqa: F401
from lightning_perturb import __version__
from lightning_perturb.callbacks.predictions import PredictionWriter
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.load import check_whole
from lightning_perturb.figures.command import print_figures
from lightning_perturb.report import print_report
from lightning_perturb.zoo import print_zoo


class ReadableHelp(DefaultHelpFormatter):
    """Lists this package's own classes for an argument that takes a class; PyTorch alone has hundreds."""

    def _expand_help(self, action: Any) -> str:
        return re.sub(r"known subclasses: ([^)]*)", _own_classes, super()._expand_help(action))


class ReadableParser(LightningArgumentParser):
    """A parser whose helps, those of single classes too, are printed by :class:`ReadableHelp`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", ReadableHelp)
        super().__init__(*args, **kwargs)


def _own_classes(match: re.Match[str]) -> str:
    names = [name.strip() for name in match[1].split(",")]
    # a method is a Module too, but no network of a method
    package = "lightning_perturb.nets." if "torch.nn.Module" in names else "lightning_perturb."
    own = sorted({name.rsplit(".", 1)[-1] for name in names if name.startswith(package)})
    rest = len(names) - len(own)
    more = f" and {rest} more by their import path" if rest and own else ""
    return f"one of: {', '.join(own)}{more}" if own else f"{rest} known classes, by their import path"


class PerturbationCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` for any method with any data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links the number of classes, which must never be typed twice."""
        for target in ("model.init_args.num_classes", "model.init_args.net.init_args.num_classes"):
            parser.link_arguments("data.num_classes", target, apply_on="instantiate")

    def before_fit(self) -> None:
        """Lets float32 matrix products use the tensor cores (TF32) where there are any."""
        torch.set_float32_matmul_precision("high")

    def after_fit(self) -> None:
        """Tests the last and the best epoch on clean labels and prints what was found."""
        if not self.trainer.interrupted and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            print_report(self.trainer, self.model, self.datamodule)

    def before_predict(self) -> None:
        """Lets predictions end in a file."""
        if not any(isinstance(callback, PredictionWriter) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            self.trainer.callbacks.append(PredictionWriter())  # type: ignore[attr-defined]


def build(args: ArgsType = None) -> PerturbationCLI:
    """The objects of a configuration, without running anything: ``.model``, ``.datamodule`` and ``.trainer``.

    Args:
        args: Command-line words without a subcommand, such as ``["-c", "configs/quickstart.yaml"]``.
    """
    return _cli(_packaged(args), run=False)


def main(args: ArgsType = None) -> None:
    """Entry point of the ``lightning-perturb`` command.

    Args:
        args: Command-line words; None takes the process' own.
    """
    words: ArgsType = sys.argv[1:] if args is None else args
    if os.getcwd() not in sys.path:
        # a console script does not look for the user's own modules where it is called
        sys.path.insert(0, os.getcwd())
    if isinstance(words, list) and words[:1] == ["zoo"]:
        print_zoo(words[1:])
        return
    if isinstance(words, list) and words[:1] == ["figures"]:
        print_figures(words[1:])
        return
    words = _packaged(words)
    _check_checkpoint(words)
    if args is None and isinstance(words, list):
        # Lightning warns about given words while the process has some of its own
        sys.argv[1:] = words
        _cli(None, run=True)
    else:
        _cli(words, run=True)


def _cli(args: ArgsType, run: bool) -> PerturbationCLI:
    return PerturbationCLI(
        PerturbationModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        # optimizer and scheduler are arguments of the method: a second way to give them would drop the first
        auto_configure_optimizers=False,
        parser_class=ReadableParser,
        parser_kwargs={"version": __version__, "prog": "lightning-perturb"},
        args=args,
        run=run,
    )


def _check_checkpoint(args: ArgsType) -> None:
    """Says that a checkpoint file is cut off before Lightning stumbles over it."""
    if not isinstance(args, list):
        return
    for previous, word in zip([None, *args], args, strict=False):
        flag, _, value = str(word).partition("=")
        path = Path(value if flag == "--ckpt_path" else str(word) if previous == "--ckpt_path" else "")
        if path.is_file():
            check_whole(path)


def _packaged(args: ArgsType) -> ArgsType:
    """Finds configurations that came with the package where the working folder has none of that name."""
    if not isinstance(args, list):
        return args
    shipped = Path(str(files("lightning_perturb"))) / "_configs"
    words = []
    for previous, word in zip([None, *args], args, strict=False):
        flag, equals, name = str(word).partition("=")
        if flag not in ("-c", "--config") or not equals:
            flag, equals, name = "", "", str(word) if previous in ("-c", "--config") else ""
        found = shipped / name.removeprefix("configs/")
        words.append(f"{flag}{equals}{found}" if name and not Path(name).exists() and found.is_file() else word)
    return words
