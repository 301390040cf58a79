"""Downstream models that utility, grouping, audit and condensation train: what a receiver would use.

Import the modules (`networks`, `training`, `classical`, `panel`); nothing heavy is loaded here.
"""
