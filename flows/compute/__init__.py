"""Where the stages that are maps run: this process, processes of this machine, or a Dask scheduler's workers.

`maps` cuts the work and gives it out; `pieces` is what a worker checks before it makes one.
"""
