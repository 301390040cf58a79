"""Plug-ins of a site's own, one of each kind."""
