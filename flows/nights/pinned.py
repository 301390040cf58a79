"""The programs that a configuration names, pinned: who may edit a night's file does not thereby run as the site.

    keys/night.pin     run -> digests of its configuration and of the programs in it, beside the keys

A command for notices and plug-ins are run under the site's account. The first night pins what its configuration names,
and so does `decoct schedule`; a night that finds others begins nothing, and tells nobody by them. What else has changed
in the file is said, and goes on.
"""

from __future__ import annotations

import json
from typing import Any, Final

from flows.progress import say
from flows.workspace.job import Job
from pipeline.core.config import Config
from pipeline.core.config.data import OtherSource
from pipeline.core.config.tables import Plugin
from pipeline.core.digest import digest_json
from pipeline.core.errors import ConfigError, EnvironmentProblem
from pipeline.core.files.noted import read_noted, replace_noted
from pipeline.core.keys.custody.keyring import keys_of
from pipeline.validation.site_contract import project_code

FILE: Final = "night.pin"
WHAT: Final = "the nights' pins"


def programs(config: Config) -> dict[str, Any]:
    """What the configuration has run: [night]'s commands, plug-ins, a reader of others, a contract's project."""
    tables: dict[str, Plugin] = {f"encode.{name}": table for name, table in config.encode.items()}
    tables |= {f"condense.{name}": table for name, table in config.condense.items()}
    plugins = {name: table.model_dump(mode="json") for name, table in tables.items() if table.kind == "plugin"}
    reader = config.source.kind if isinstance(config.source, OtherSource) else ""
    found = {"notify_command": list(config.night.notify_command), "plugins": plugins, "reader": reader}
    project = {} if config.cohort.contract is None else project_code(config.cohort.contract)
    asked = list(config.night.records_command)
    return found | ({"contract": project} if project else {}) | ({"records_command": asked} if asked else {})


def pin(config: Config) -> None:
    """From now on nights of this configuration run these programs.

    Raises:
        EnvironmentProblem: the disk refuses, or the pins cannot be read.
    """
    keys = keys_of(config.workspace)

    def with_this(before: bytes | None) -> bytes:
        return json.dumps({**_read(before), config.name: _digests(config)}).encode()

    replace_noted(keys, keys / FILE, WHAT, with_this)


def require_pinned(config: Config) -> None:
    """The configuration names the programs that were pinned; where nothing was, they are pinned now.

    Raises:
        ConfigError: it names others. EnvironmentProblem: as `pin`.
    """
    known, now = _pins(config).get(config.name), _digests(config)
    if known is not None and known.get("programs") != now["programs"]:
        raise ConfigError(
            "the configuration names other programs than when it was scheduled, and none of them was run: read "
            "the commands in [night], the plug-ins and the contract's great_expectations.yml, then say so once: "
            "decoct night --new-programs, or schedule again"
        )
    if known is not None and known != now:
        say("  the configuration has changed since the last night; the programs that it names are the same")
    if known != now:
        pin(config)


def _digests(config: Config) -> dict[str, str]:
    whole = Job(config, config.workspace, resume=True).config_digest
    return {"config": whole, "programs": digest_json(programs(config))}


def _pins(config: Config) -> dict[str, Any]:
    keys = keys_of(config.workspace)
    return _read(read_noted(keys, keys / FILE, WHAT))


def _read(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        found = json.loads(data)
        if isinstance(found, dict) and all(isinstance(each, dict) for each in found.values()):
            return found
    except ValueError:
        pass
    raise EnvironmentProblem(f"{WHAT} are damaged; remove keys/{FILE}, then: decoct log lost keys/{FILE}")
