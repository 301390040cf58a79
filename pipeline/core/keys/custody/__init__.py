"""Who may hold a key: passphrases, the institutions it was given to, and the log of it all.

Submodules are imported where they are used; age (pyrage) only inside functions.
"""
