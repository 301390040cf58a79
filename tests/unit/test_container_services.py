"""Server, worker and database as a compose file and as Quadlet files: each keeps the rules, and both say the same."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import Settings
from prefect.settings.legacy import _get_settings_fields

FOLDER = Path(__file__).parents[2] / "docs" / "how-to" / "container"
SERVICES = ("database", "server", "worker")
PORTS = {"server": 4200, "worker": 8080}  # of the health checks; the worker's is Prefect's own choice


def compose(text: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text or (FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return found


def unit(name: str) -> dict[str, list[str]]:
    """A Quadlet file's keys with their values, whichever section they stand in."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / "quadlet" / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def container_words() -> dict[str, str]:
    """What the Containerfile fixes: the last of each instruction."""
    lines = (FOLDER / "Containerfile").read_text(encoding="utf-8").splitlines()
    return dict(line.split(None, 1) for line in lines if re.match(r"[A-Z]+ ", line))


def settings() -> set[str]:
    return set(_get_settings_fields(Settings))


def faults(found: dict[str, Any]) -> list[str]:
    """Which rules a compose file breaks."""
    services, image = found["services"], container_words()
    (volume,) = ast.literal_eval(image["VOLUME"])
    ours = [services[name] for name in ("server", "worker")]
    told = {name: services[name].get("environment", {}) for name in SERVICES}
    mounts = [mount.split(":") for mount in services["worker"]["volumes"]]
    rules = {
        "ours is the image that the page builds": all(each["image"] == "decoct" for each in ours),
        "another image is named by whoever starts it": services["database"]["image"].startswith("${POSTGRES:?"),
        "each says whether it is well": all("healthcheck" in services[name] for name in SERVICES),
        "they start in order": [list(services[name].get("depends_on", {})) for name in SERVICES]
        == [[], ["database"], ["server"]]
        and all(c["condition"] == "service_healthy" for each in ours for c in each["depends_on"].values()),
        "nothing else is writable": all(services[name].get("read_only") for name in SERVICES),
        "no capability": all(services[name].get("cap_drop") == ["all"] for name in SERVICES),
        "the image's user, or another that is not root": all("user" not in each for each in ours)
        and services["database"]["user"] not in ("", "0", "root", "0:0"),
        "the workspace is the image's volume": ["decoct-work", volume] in mounts,
        "records are only read": [mount[-1] for mount in mounts if "/data" in mount] == ["ro"],
        "named volumes exist": {"decoct-work", "decoct-database"} == set(found["volumes"]),
        "worker and database reach nothing": all(
            services[name]["networks"] == ["inside"] for name in ("worker", "database")
        )
        and found["networks"]["inside"] == {"internal": True},
        "the page is this machine's alone": services["server"]["ports"] == ["127.0.0.1:4200:4200"],
        "no password stands in it": all(
            value.startswith("${DATABASE_PASSWORD:?")
            for each in told.values()
            for name, value in each.items()
            if "PASSWORD" in name
        ),
        "Prefect knows every setting": {name for name in {**told["server"], **told["worker"]} if name != "PREFECT_HOME"}
        <= settings(),
        "the worker asks the server": told["worker"]["PREFECT_API_URL"] == "http://server:4200/api",
    }
    return [rule for rule, held in rules.items() if not held]


def test_the_compose_file_keeps_its_rules() -> None:
    assert faults(compose()) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (
            "    image: decoct\n    entrypoint: [prefect]\n    command: [worker",
            "    image: x\n    command: [worker",
            "ours",
        ),
        ("${POSTGRES:?name the image of PostgreSQL by its digest}", "postgres:latest", "another image"),
        ("server: {condition: service_healthy}", "server: {condition: service_started}", "they start"),
        ("read_only: true", "read_only: false", "nothing else"),
        ("cap_drop: [all]", "cap_drop: []", "no capability"),
        ('"999:999"', '"0:0"', "the image's user"),
        ("decoct-work:/work", "decoct-work:/elsewhere", "the workspace"),
        (":/data:ro", ":/data", "records"),
        ("inside: {internal: true}", "inside: {}", "worker and database"),
        ("127.0.0.1:4200:4200", "4200:4200", "the page"),
        ("POSTGRES_PASSWORD: ${DATABASE_PASSWORD:?make one up}", "POSTGRES_PASSWORD: secret", "no password"),
        ("PREFECT_SERVER_DATABASE_HOST", "PREFECT_SERVER_DATABASE_HOSTS", "Prefect knows"),
        ("http://server:4200/api", "http://server:4300/api", "the worker asks"),
    ],
)
def test_each_rule_would_be_missed(old: str, new: str, rule: str) -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    assert old in text
    assert [broken for broken in faults(compose(text.replace(old, new))) if broken.startswith(rule)]


@pytest.mark.parametrize("name", SERVICES)
def test_the_quadlet_files_say_what_the_compose_file_says(name: str) -> None:
    service, own = compose()["services"][name], unit(f"decoct-{name}.container")
    told = dict(pair.split("=", 1) for pair in own.get("Environment", []))
    secret = {value.rpartition("target=")[2] for value in own.get("Secret", [])}
    assert told == {key: value for key, value in service["environment"].items() if "PASSWORD" not in key}
    assert secret == {key for key in service["environment"] if "PASSWORD" in key}
    assert own.get("Exec", [""])[0].split() == service.get("command", [])
    assert own.get("Entrypoint") == service.get("entrypoint")
    assert own["Tmpfs"] == service["tmpfs"]
    assert [each.removeprefix("decoct-").removesuffix(".network") for each in own["Network"]] == service["networks"]
    mounts = [each.replace(".volume:", ":").replace("/srv/export:", "${DATA}:") for each in own.get("Volume", [])]
    assert mounts == [re.sub(r"\$\{DATA:.*?\}", "${DATA}", each) for each in service.get("volumes", [])]
    assert own["ContainerName"] == [name]  # by which the others find it
    assert (own["ReadOnly"], own["DropCapability"], own["NoNewPrivileges"]) == (["true"], ["all"], ["true"])
    assert own.get("PublishPort", []) == service.get("ports", [])
    assert own["Image"] == ["docker.io/library/postgres@sha256:DIGEST" if name == "database" else "localhost/decoct"]
    (healthy,) = own["HealthCmd"]
    assert shlex.split(healthy) == service["healthcheck"]["test"][1:]
    limits = service["healthcheck"]
    assert [own[f"Health{key.capitalize()}"] for key in ("interval", "timeout", "retries")] == [
        [str(limits[key])] for key in ("interval", "timeout", "retries")
    ]
    after = [f"decoct-{each}.service" for each in service.get("depends_on", {})]
    assert own.get("Requires", []) == own.get("After", []) == after
    assert own["Notify"] == ["healthy"]
    for used in (*own["Network"], *(each.split(":")[0] for each in own.get("Volume", []) if ".volume" in each)):
        assert (FOLDER / "quadlet" / used).exists()


@pytest.mark.parametrize(("name", "port"), PORTS.items())
def test_a_health_check_asks_the_port_that_is_served(name: str, port: int) -> None:
    service = compose()["services"][name]
    code = service["healthcheck"]["test"][-1]
    ast.parse(code)
    assert f"http://127.0.0.1:{port}/" in code
    assert name == "worker" or str(port) in service["command"]
    assert name == "server" or "--with-healthcheck" in service["command"]


def test_both_networks_and_the_volumes_are_alike() -> None:
    assert unit("decoct-inside.network") == {"Internal": ["true"]}
    assert unit("decoct-page.network") == {}
    for volume in compose()["volumes"]:
        assert unit(f"{volume}.volume") == {"VolumeName": [volume]}
