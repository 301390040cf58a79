"""Attacks on condensed sets and on the models that train on them."""
