"""``lightning-perturb figures``: the papers' figures that need no run of one's own, by name."""

from __future__ import annotations

import argparse
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from matplotlib.figure import Figure

from lightning_perturb.figures import papers
from lightning_perturb.figures.save import save


def paper_figures() -> dict[str, Callable[[], Figure]]:
    """Every figure's ``draw`` by its name: found in the package, not listed anywhere."""
    names = sorted(module.name for module in pkgutil.iter_modules(papers.__path__) if not module.name.startswith("_"))
    return {name: import_module(f"{papers.__name__}.{name}").draw for name in names}


def print_figures(words: Sequence[str] = ()) -> list[Path]:
    """Draws figures, or lists them where none is named.

    Args:
        words: Further words of the command line: names of figures or ``all``, and ``--out FOLDER``.

    Returns:
        The files that were written.

    Raises:
        SystemExit: If there are other words.
    """
    figures = paper_figures()
    parser = argparse.ArgumentParser("lightning-perturb figures", description="Figures of the papers, as PNG files.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to draw, or all; none lists them")
    parser.add_argument(
        "--out", type=Path, default=Path("figures"), metavar="FOLDER", help="where they go: %(default)s"
    )
    asked = parser.parse_args(list(words))
    unknown = [name for name in asked.names if name not in figures and name != "all"]
    if unknown:
        parser.error(f"{unknown[0]!r} is no figure. Choose from: {', '.join(figures)}, all")
    if not asked.names:
        width = max(map(len, figures))
        for name, draw in figures.items():
            print(f"{name:{width}}  {(inspect.getdoc(draw) or '').splitlines()[0]}")
        return []
    written = []
    # each once, in the order asked
    for name in dict.fromkeys(figures if "all" in asked.names else asked.names):
        written.append(save(figures[name](), asked.out / f"{name}.png"))
        print(written[-1])
    return written
