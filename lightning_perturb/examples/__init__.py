"""Methods of Table 1 of the taxonomy that train no network, as programs: ``python -m lightning_perturb.examples.x``.

Each module says its place in the taxonomy, ``COORDINATES``, by which ``lightning-perturb zoo`` finds it.
"""
