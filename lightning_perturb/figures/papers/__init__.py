"""Figures of the papers that need no run of one's own.

A module here with a public ``draw()`` that returns a Figure is one figure of ``lightning-perturb figures``: its name is
the module's, its listing the first line of ``draw``'s docstring. Modules whose names begin with ``_`` are none.
"""
