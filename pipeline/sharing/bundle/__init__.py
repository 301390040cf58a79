"""What leaves: the files of a bundle, from an audited release to signed bytes."""
