"""The deployment files: they name what there is, and leave a stop the time that it may take."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from cashier.payments.budgets import longest_run_ms
from cashier.settings.loader import load
from cashier.settings.schema import Configuration
from tests.operations.known_metrics import faults_of
from tests.operations.promql import parse
from tests.support.programs import required_program

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config/deploy"
CLUSTER = FOLDER / "kubernetes"
MANIFESTS = {
    (manifest["kind"], manifest["metadata"]["name"]): manifest
    for manifest in yaml.safe_load_all((CLUSTER / "cashier.yaml").read_text("utf-8"))
}
POD: dict[str, Any] = MANIFESTS["Deployment", "cashier"]["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
UNIT = FOLDER / "cashier.service"
CONTAINER_FILE = FOLDER / "Containerfile"


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    """That of the pods, with the environment of the deployment and keys in a file."""
    for variable in CONTAINER["env"]:
        value = "redis://cache:6379/0" if variable["name"].endswith("URL") else variable["name"] * 2
        monkeypatch.setenv(variable["name"], value)
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0" * 8, "alg": "HS256"}]}))
    text = (CLUSTER / "cashier.toml").read_text("utf-8")
    file = tmp_path / "cashier.toml"
    file.write_text(text.replace("/etc/cashier-keys", str(tmp_path)))
    return load(str(file))


def longest_stop_s(configuration: Configuration) -> float:
    settings = configuration.settings
    server = settings.server
    return server.shutdown_delay_s + server.drain_s + longest_run_ms(settings.accept_in_effect) / 1000


def test_a_stop_has_the_time_that_it_may_take(configuration: Configuration) -> None:
    seconds = longest_stop_s(configuration)
    assert seconds < POD["terminationGracePeriodSeconds"] < 1.5 * seconds
    assert f"TimeoutStopSec={POD['terminationGracePeriodSeconds']}\n" in UNIT.read_text("utf-8")


def test_pods_use_the_ports_and_files_of_their_configuration(configuration: Configuration) -> None:
    settings = configuration.settings
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": settings.server.port, "operations": settings.operations.port}
    assert CONTAINER["resources"]["requests"]["cpu"] == str(settings.server.workers)
    mounts = [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    text = (CLUSTER / "cashier.toml").read_text("utf-8")
    read = [*re.findall(r'"(/etc/[^"]+)"', text), CONTAINER["args"][2]]
    assert all(str(Path(path).parent) in mounts for path in read)
    assert {variable["name"] for variable in CONTAINER["env"]} == set(re.findall(r'"\$\{([A-Z_]+)\}"', text))
    generated = yaml.safe_load((CLUSTER / "kustomization.yaml").read_text("utf-8"))["configMapGenerator"]
    assert generated == [{"name": "cashier", "files": ["cashier.toml"]}]


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_ask_endpoints_that_exist(probe: str) -> None:
    asked = CONTAINER[probe]["httpGet"]
    assert asked["path"] == ("/readyz" if probe == "readinessProbe" else "/healthz")
    assert asked["port"] == "http"


def test_a_pod_is_out_of_service_before_it_refuses_connections(configuration: Configuration) -> None:
    probe = CONTAINER["readinessProbe"]
    out_after_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert out_after_s < configuration.settings.server.shutdown_delay_s


def test_pods_have_no_right_that_they_do_not_need() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["automountServiceAccountToken"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    secrets = [variable["valueFrom"]["secretKeyRef"] for variable in CONTAINER["env"]]
    assert all(secret["name"] == "cashier" for secret in secrets)


def test_every_selector_finds_the_pods() -> None:
    labels = MANIFESTS["Deployment", "cashier"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        MANIFESTS["Deployment", "cashier"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["Service", "cashier"]["spec"]["selector"],
        MANIFESTS["Service", "cashier-operations"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget", "cashier"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy", "cashier"]["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in POD["topologySpreadConstraints"]),
    ]
    assert all(selector == labels for selector in selectors)


def test_the_autoscaler_reads_a_metric_that_exists() -> None:
    rule = yaml.safe_load((CLUSTER / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]["custom"][0]
    metrics = MANIFESTS["HorizontalPodAutoscaler", "cashier"]["spec"]["metrics"]
    assert rule["name"]["as"] == metrics[1]["pods"]["metric"]["name"]
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", "").replace(" by (<<.GroupBy>>)", "")
    assert faults_of(parse(query)) == []


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
RUN_BY = [*PROJECT["project"]["dependencies"], *EXTRAS["dns"], *EXTRAS["otel"]]


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [("requirements.lock", RUN_BY), ("requirements-build.lock", PROJECT["build-system"]["requires"])],
)
def test_a_lock_has_a_hashed_version_of_each_dependency(lock: str, requirements: list[str]) -> None:
    text = _text(FOLDER / lock)
    locked = re.findall(r"^([a-z0-9-]+)==([^\s;]+)[^\n]*\n((?:    --hash=sha256:[0-9a-f]{64}[^\n]*\n)+)", *text)
    versions = {name: version for name, version, _ in locked}
    assert len(versions) == len(re.findall(r"^[a-z0-9-]+==", *text))
    for required in map(Requirement, requirements):
        assert required.specifier.contains(versions[required.name]), f"{required}: write the lock again"


def _text(path: Path) -> tuple[str, re.RegexFlag]:
    return _lines(path.read_text("utf-8"))


def _lines(text: str) -> tuple[str, re.RegexFlag]:
    return text, re.MULTILINE


def test_the_image_is_made_of_files_that_its_context_has() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", *_text(CONTAINER_FILE))
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for path in (path for paths in copied for path in paths.split()):
        assert (ROOT / path).exists()
        assert f"!{path}" in ignored


def test_the_image_starts_without_compiling_and_installs_only_what_has_a_hash() -> None:
    """The base has no bytecode, and a read-only file system keeps none."""
    text = CONTAINER_FILE.read_text("utf-8")
    build, _, run = text.partition("\nFROM python:${PYTHON}\n")
    assert re.search(r"compileall .*/opt/cashier$", *_lines(build))
    assert re.search(r"^RUN python -m compileall .*/usr/local/lib$", *_lines(run))
    installs = re.findall(r"pip .*?(?:install|wheel) .*$", *_lines(build.partition("\nFROM ")[2]))
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or "--no-build-isolation" in install or "--no-index" in install


class Health(BaseHTTPRequestHandler):
    """As long as the server's `healthy` is true."""

    def do_GET(self) -> None:
        healthy = self.path == "/healthz" and self.server.healthy  # type: ignore[attr-defined]
        self.send_response(200 if healthy else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


def test_the_health_check_asks_the_process_itself_and_no_proxy() -> None:
    """A daemon may give all its containers the address of a proxy."""
    text = CONTAINER_FILE.read_text("utf-8")
    command = json.loads(re.search(r"^HEALTHCHECK .*\n  CMD (\[.*\])$", *_lines(text))[1])  # type: ignore[index]
    environment = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        here = [sys.executable, *(word.replace("8080", str(server.server_port)) for word in command[1:])]
        exits = []
        for server.healthy in (True, False):  # type: ignore[attr-defined]
            exits.append(subprocess.run(here, env=environment, capture_output=True, check=False).returncode)
        server.shutdown()
    assert exits == [0, 1]


@pytest.mark.peers
def test_the_manifests_are_valid() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for manifest in MANIFESTS.values():
        kubernetes_validate.validate(manifest, "1.30", strict=True)


@pytest.mark.peers
def test_the_container_file_has_no_findings(request: pytest.FixtureRequest) -> None:
    command = [required_program(request, "hadolint"), "--no-color", str(CONTAINER_FILE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.peers
def test_the_unit_has_no_findings(tmp_path: Path) -> None:
    """systemd is not on every machine. Another program stands in for that of the unit."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "cashier.service"
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/cashier/bin/cashier", "/bin/true"))
    checked = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
