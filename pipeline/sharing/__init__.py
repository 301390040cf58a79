"""What leaves the site, and how the other side knows it is what was released: policy, gate, bundle, verify, receive.

Import the modules directly (`receive.verify`, ...): `verify` runs without numpy, torch or pydantic, so this file
imports nothing. Receivers need none of it: `from decoct import load`.
"""
