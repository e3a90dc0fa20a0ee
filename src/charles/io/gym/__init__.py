"""Environments of Gymnasium as games: any with a Box of actions, CarRacing with an expert."""
