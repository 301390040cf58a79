"""Commands that let something leave the site."""
