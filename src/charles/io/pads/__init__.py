"""Pads: where a player's predictions go. Behind one protocol: :class:`charles.io.pads.pad.Pad`."""
