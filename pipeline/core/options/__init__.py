"""What methods can be told, each option once: its name, default, bounds and meaning.

The configuration's tables, the classes' constructors and what is told of an artefact are all made of these.
"""
