"""Every failure a user can meet: one sentence, one exit code, never a patient's value."""

from __future__ import annotations


class DecoctError(Exception):
    """Base of all errors Decoct raises on purpose; the message is one sentence fit for a log."""

    exit_code = 1


class UsageError(DecoctError):
    """The command line asks for something that cannot be done."""

    exit_code = 2


class ConfigError(DecoctError):
    """The configuration is malformed or contradicts itself."""

    exit_code = 10


class DataError(DecoctError):
    """Input data, or a data contract on it, is broken; names file, column, count and rule."""

    exit_code = 11


class UtilityError(DecoctError):
    """A model trained on the condensed set stays below the configured floor."""

    exit_code = 12


class LeakageError(DecoctError):
    """The audit found more leakage than the policy allows, or its controls failed."""

    exit_code = 13


class ReleaseRefused(DecoctError):
    """The gate, a signature or a receiver's check says no."""

    exit_code = 14


class EnvironmentProblem(DecoctError):
    """The machine is not fit: disk, memory, permissions, a missing or broken dependency."""

    exit_code = 15


class NotInstalled(EnvironmentProblem, ImportError):
    """A library of an extra is not installed; also an `ImportError`, as `import` statements raise it."""


class TookTooLong(EnvironmentProblem):
    """A stage of a scheduled run was at work for longer than the configuration lets it; another try would be, too."""


class DriftError(DecoctError):
    """The cohort has drifted too far from the last accepted one; names what, never whose."""

    exit_code = 16


class BudgetError(DecoctError):
    """The site's privacy budget does not cover what was asked, or its ledger cannot be trusted; nothing was drawn."""

    exit_code = 17


class Held(DecoctError):
    """The night ends here on purpose: nothing is wrong, and nothing new is to be released."""

    exit_code = 0
