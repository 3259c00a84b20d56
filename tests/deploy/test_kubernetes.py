"""The Kubernetes manifests as kustomize builds them: valid by the API's own schema, and saying what they should."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.settings import Settings
from tests.deploy.files import DEPLOY, compose, from_yaml, tool
from tests.support.installed import installed
from tests.support.redis_server import RedisServer

VERSIONS = ("1.33", "1.37")


COMPONENTS = sorted(path.parent.name for path in (DEPLOY / "kubernetes").glob("*/kustomization.yaml"))


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    return manifests_of(DEPLOY / "kubernetes")


def manifests_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The built manifests by kind, those of Redis as "KIND redis"; config maps by name."""
    kubectl = installed("kubectl", "kubernetes-client")
    built = tool(kubectl, "kustomize", folder)
    assert built.returncode == 0, built.stderr
    found: dict[str, dict[str, Any]] = {}
    for manifest in yaml.load_all(built.stdout, yaml.CSafeLoader):
        kind = manifest["kind"]
        name = manifest["metadata"]["name"].rsplit("-", 1)[0]
        of_redis = manifest["metadata"]["name"] == "redis"
        found[f"ConfigMap {name}" if kind == "ConfigMap" else f"{kind} redis" if of_redis else kind] = manifest
    return found


def test_valid_by_the_schema(manifests: dict[str, dict[str, Any]]) -> None:
    for version in VERSIONS:
        for manifest in manifests.values():
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_found(manifests: dict[str, dict[str, Any]]) -> None:
    wrong = from_yaml(yaml.safe_dump(manifests["Deployment"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize("chosen", [*([name] for name in COMPONENTS), COMPONENTS], ids=" ".join)
def test_what_a_cluster_may_need_beside_it(
    manifests: dict[str, dict[str, Any]], chosen: list[str], tmp_path: Path
) -> None:
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    file = tmp_path / "kubernetes" / "kustomization.yaml"
    plain = file.read_text()
    assert f"[{', '.join(['runtime-class', 'engine-cache', 'several-gpus'])}]" in plain and len(COMPONENTS) == 3
    file.write_text(plain.replace("components: []", f"components: [{', '.join(chosen)}]"))
    found = manifests_of(tmp_path / "kubernetes")
    for version in VERSIONS:
        for manifest in found.values():
            kubernetes_validate.validate(manifest, version, strict=True)
            assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "touchline"
    pod = found["Deployment"]["spec"]["template"]["spec"]
    before = manifests["Deployment"]["spec"]["template"]["spec"]
    containers: list[dict[str, Any]] = pod["initContainers"] + pod["containers"]
    export, triton, gateway = containers
    assert pod != before
    assert pod.get("runtimeClassName") == ("nvidia" if "runtime-class" in chosen else None)
    if "several-gpus" in chosen:
        gpus = {container["resources"]["limits"]["nvidia.com/gpu"] for container in (export, triton)}
        (number,) = gpus
        environment = {entry["name"]: entry["value"] for entry in gateway["env"]}
        settings = Settings(
            _env_file=None, device="cuda", gpus=environment["GPUS"], prefetch_frames=int(environment["PREFETCH_FRAMES"])
        )
        assert settings.gpu_count == int(number) > 1
        (shm,) = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "shm"]
        slots = settings.concurrent_challenges * settings.slots_per_challenge
        assert int(shm.removesuffix("Gi")) * 2**30 > 2 * slots * settings.slot_frames * 576 * 1024 * 3
    if "engine-cache" in chosen:
        (models,) = [volume for volume in pod["volumes"] if volume["name"] == "models"]
        claim = models["persistentVolumeClaim"]["claimName"]
        assert found["PersistentVolumeClaim"]["metadata"]["name"] == claim
        for container in (export, triton):
            (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
            assert mount["subPathExpr"] == "$(NODE_NAME)"
            assert "NODE_NAME" in [entry["name"] for entry in container["env"]], "of this container, or it is no path"


def test_all_is_there_in_one_namespace(manifests: dict[str, dict[str, Any]]) -> None:
    kinds = {"Namespace", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}
    assert kinds <= set(manifests)
    for manifest in manifests.values():
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "touchline"


def test_export_then_triton_then_gateway_and_the_other_way_round(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    export, triton = pod["initContainers"]
    (gateway,) = pod["containers"]
    assert (export["name"], triton["name"], gateway["name"]) == ("export", "triton", "gateway")
    # A sidecar starts before the container and ends after it.
    assert triton["restartPolicy"] == "Always"
    assert "restartPolicy" not in export
    assert triton["startupProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/health"
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/availability"
    wait = int(gateway["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] > Settings(_env_file=None).challenge_timeout_s + wait + 30
    assert triton["args"] == compose("gpu")["services"]["triton"]["command"]


def test_gateway_and_triton_share_memory_and_user(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in (pod["initContainers"][1], pod["containers"][0]):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert "runAsUser" not in container["securityContext"]
    assert pod["securityContext"]["runAsUser"] == 1000


def test_containers_meet_the_restricted_standard(manifests: dict[str, dict[str, Any]]) -> None:
    assert manifests["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    redis = manifests["Deployment redis"]["spec"]["template"]["spec"]
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    for spec in (pod, redis):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in (*pod["volumes"], *redis["volumes"])}
    for container in (*pod["initContainers"], *pod["containers"], *redis["containers"]):
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= volumes
        assert ("hotkey" in mounted) == (container["name"] == "gateway")
    gpus = {
        container["name"]: container["resources"]["limits"].get("nvidia.com/gpu") for container in pod["initContainers"]
    }
    assert gpus == {"export": "1", "triton": "1"}


def test_settings_are_the_gateways_own(manifests: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    given = manifests["ConfigMap gateway-settings"]["data"]
    gateway = manifests["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    given |= {entry["name"]: entry["value"] for entry in gateway["env"]}
    assert given.keys() <= {name.upper() for name in Settings.model_fields}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    (hotkey,) = [mount["mountPath"] for mount in gateway["volumeMounts"] if mount["name"] == "hotkey"]
    assert str(settings.hotkey_file.parent) == hotkey
    exported = set(manifests["ConfigMap export-settings"]["data"]) | {"HF_TOKEN"}
    assert exported == set(compose("gpu")["services"]["export"]["environment"])


def test_one_release_of_nvidias_images(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    images = {container["name"]: container["image"] for container in (*pod["initContainers"], *pod["containers"])}
    services = compose("gpu")["services"]
    assert images["triton"] == services["triton"]["image"]
    assert images["export"] == services["export"]["image"]
    assert manifests["ConfigMap export-settings"]["data"]["NGC_TAG"] == services["export"]["environment"]["NGC_TAG"]


def test_selectors_find_the_pods(manifests: dict[str, dict[str, Any]]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels
    assert (
        manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        == manifests["Deployment"]["metadata"]["name"]
    )


def test_the_gateways_reach_their_redis_and_nobody_else_does(
    manifests: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    labels = manifests["Deployment redis"]["spec"]["template"]["metadata"]["labels"]
    miner = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        manifests["Deployment redis"]["spec"]["selector"]["matchLabels"],
        manifests["Service redis"]["spec"]["selector"],
        manifests["NetworkPolicy redis"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= miner.items()
    port = {"port": 6379, "protocol": "TCP"}
    (way_out,) = [rule for rule in manifests["NetworkPolicy"]["spec"]["egress"] if port in rule["ports"]]
    assert way_out["to"] == [{"podSelector": {"matchLabels": labels}}]
    (way_in,) = manifests["NetworkPolicy redis"]["spec"]["ingress"]
    assert way_in == {"from": [{"podSelector": {"matchLabels": miner}}], "ports": [port]}
    assert "egress" not in manifests["NetworkPolicy redis"]["spec"]
    url = manifests["ConfigMap gateway-settings"]["data"]["NONCE_REDIS_URL"]
    assert url == f"redis://{manifests['Service redis']['metadata']['name']}:{port['port']}"
    # Two would each know half of the nonces.
    assert manifests["Deployment redis"]["spec"]["replicas"] == 1
    assert manifests["Deployment redis"]["spec"]["strategy"] == {"type": "Recreate"}

    (container,) = manifests["Deployment redis"]["spec"]["template"]["spec"]["containers"]
    program, *flags = container["args"]
    assert program == "redis-server"
    assert container["image"] == compose("gpu")["services"]["redis"]["image"]
    with RedisServer(tmp_path / "log", *flags, "--dir", str(tmp_path)) as server:
        told = tool("redis-cli", "-p", str(server.port), "config", "get", "maxmemory*", "appendonly", "protected-mode")
        probe = container["readinessProbe"]["exec"]["command"]
        assert tool(probe[0], "-p", str(server.port), *probe[1:]).stdout == "PONG\n"
    assert {"noeviction", "yes", "no"} <= set(told.stdout.split())


def test_scaling_by_queue_time(manifests: dict[str, dict[str, Any]]) -> None:
    (metric,) = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
    values = from_yaml((DEPLOY / "kubernetes" / "prometheus-adapter-values.yaml").read_text())
    assert metric["pods"]["metric"]["name"] == values["rules"]["custom"][0]["name"]["as"]
    assert "replicas" not in manifests["Deployment"]["spec"], "an apply would undo the autoscaler's number"


def test_a_video_cannot_point_into_the_cluster(manifests: dict[str, dict[str, Any]]) -> None:
    blocks = [
        to["ipBlock"]
        for rule in manifests["NetworkPolicy"]["spec"]["egress"]
        for to in rule["to"]
        if "ipBlock" in to and to["ipBlock"]["cidr"] == "0.0.0.0/0"
    ]
    (block,) = blocks
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(block["except"])
