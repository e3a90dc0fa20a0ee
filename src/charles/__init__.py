"""Charles: live imitation learning of games from pixels.

The rooms and who may call whom are drawn in ``docs/design.md``. Importing this package imports
neither JAX nor a game, so that collectors start fast and stay small.
"""

__version__ = "0.1.0"
