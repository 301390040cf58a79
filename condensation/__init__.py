"""From the training stays to a few synthetic samples: one loop, one file per method.

Import the modules (`kernel_matching`, `distribution_matching`, `coresets`, `private`, `moments`, ...); nothing heavy is
loaded here.
"""
