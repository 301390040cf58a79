"""How the audit is run: the scene of every artefact, what attacks may call, and the audit of other tables."""
