"""What a receiver does with verified bundles: pool, evaluate, unpack, keep a record."""
