"""Observers: callbacks that show or send what happens."""
