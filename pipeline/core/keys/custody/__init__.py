"""Who may hold a key: passphrases, the institutions it was given to, custodians with shares, and the log of it all.

Submodules are imported where they are used; age (pyrage) and SLIP-39 (shamir_mnemonic) only inside functions.
"""
