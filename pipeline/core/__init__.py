"""What everybody in the house speaks: types, protocols, config, errors, digests, seeds, secrets."""
