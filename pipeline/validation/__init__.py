"""Is it sound (data contracts), and does a model learn from it (utility)?

Import the modules (`contracts`, `utility`, `metrics`); nothing heavy is loaded here.
"""
