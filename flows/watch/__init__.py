"""The watch page over a workspace's runs."""
