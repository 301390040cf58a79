"""Private condensation: noisy moments within an account, and the samples made from them."""
