#!/usr/bin/env python3
"""Checks deploy/: what it renders, what it asks of Prometheus, and the program with its settings.

    python3 scripts/check_deploy.py

- The Helm chart, with several values, and the Kustomize overlays are rendered; every document is held against
  Kubernetes' JSON schemas, or the models of KEDA, the Prometheus operator and KServe. What names something else (a
  claim, a port, labels) is held against that. The program reads each rendered configuration.
- promtool checks the alert rules and runs their tests.
- Prometheus reads two running servers, one of which refuses; then every query of the dashboard, the rules and the
  autoscaler has a result.

It needs target/release/rerankd (or --program), with the built-in model, and openssl. The tools are installed into
target/ci-tools/deploy, from Python's index and Debian's packages (200 MB; promtool and Prometheus may be on the PATH).
"""

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

import self_signed
from deploy_tools import TOOLS, clean, install, output

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "rerankd"
KUBERNETES = "1.37"
# Values that the chart is rendered with; none of them may leave a template's branch out.
VARIANTS = {
    "plain": [],
    "pvc": ["model.id=cross-encoder/ms-marco-MiniLM-L6-v2", "modelCache.kind=pvc", "modelCache.storageClass=fast",
            "autoscaling.kind=hpa", "keys.secret=rerankd", "hub.tokenSecret=rerankd", "model.revision=main"],
    "gpu": ["model.id=Qwen/Qwen3-Reranker-0.6B", "gpu.enabled=true", "gpu.runtimeClassName=nvidia",
            "autoscaling.kind=keda", "serviceMonitor.enabled=true", "rules.enabled=true", "model.dtype=bf16",
            "hub.endpoint=https://hub.example.com", "env[0].name=RUST_BACKTRACE", "env[0].value=x"],
    "baked": ["model.id=cross-encoder/ms-marco-MiniLM-L6-v2", "modelCache.kind=image", "networkPolicy.enabled=false",
              "podDisruptionBudget.enabled=false", "shutdown.pauseMs=2500", "shutdown.deadlineMs=60001",
              "nodeSelector.disk=ssd", "tolerations[0].key=gpu", "tolerations[0].operator=Exists",
              "imagePullSecrets[0].name=registry", "priorityClassName=high", "service.annotations.a=b",
              "podLabels.a=b", "podAnnotations.a=b"],
    "existing claim": ["model.id=a/b", "modelCache.kind=pvc", "modelCache.existingClaim=models", "fetch.enabled=false",
                       "networkPolicy.from[0].podSelector.matchLabels.app=search",
                       "networkPolicy.egress[0].ports[0].port=4317"],
    "tls": ["certificate.secret=rerankd-tls", "serviceMonitor.enabled=true", "serviceMonitor.tlsConfig.serverName=rerankd"],
    "health port": ["certificate.secret=rerankd-tls", "certificate.clientCaSecret=clients", "healthPort=8081", "serviceMonitor.enabled=true"],
}
# Values that the chart refuses.
REFUSED = ["modelCache.kind=nfs", "autoscaling.kind=vpa", "replica=3", "model.dtype=int4", "shutdown.pauseMs=-1",
           "autoscaling.load=high", "resources=4", "healthPort=8080", "certificate.clientCaSecret=clients",
           "healthPort=8081,certificate.clientCaSecret=clients", "certificate.secret=a,certificate.clientCaSecret=clients"]
# Metrics of others: Prometheus, cAdvisor.
FOREIGN = {"up", "container_memory_working_set_bytes", "container_spec_memory_limit_bytes"}

faults = []


def fault(where, text):
    faults.append(f"{where}: {text}")


# --- Schemas


def check_schema(where, document):
    import kubernetes_validate
    from cloudcoil.models.keda.v1alpha1 import ScaledObject
    from cloudcoil.models.prometheus_operator import v1 as operator

    where = f"{where}: {document['kind']}"
    models = {"ScaledObject": ScaledObject, "ServiceMonitor": operator.ServiceMonitor,
              "PrometheusRule": operator.PrometheusRule}
    if document["apiVersion"].startswith("serving.kserve.io/"):
        check_kserve(where, document)
    elif model := models.get(document["kind"]):
        try:
            parsed = model.model_validate(document)
        except ValueError as error:
            return fault(where, error)
        # What the model does not know is left out of it, and what has another type is changed.
        read = parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)
        compare(where, document, read)
    else:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except Exception as error:
            fault(where, error)


def compare(where, said, read):
    if isinstance(said, dict) and isinstance(read, dict):
        for key in said:
            if key not in read:
                fault(where, f"there is no field {key}")
            else:
                compare(f"{where}.{key}", said[key], read[key])
    elif isinstance(said, list) and isinstance(read, list):
        for place, (one, other) in enumerate(zip(said, read, strict=True)):
            compare(f"{where}[{place}]", one, other)
    elif said != read:
        fault(where, f"{said!r} is read as {read!r}")


class KServe:
    """The fields of KServe's objects and their types, from the classes of its Python client."""

    def __init__(self):
        self.classes = {}
        with zipfile.ZipFile(TOOLS / "kserve.zip") as package:
            for name in package.namelist():
                if name.startswith("kserve/models/v1"):
                    for node in ast.parse(package.read(name)).body:
                        if isinstance(node, ast.ClassDef):
                            self.classes[node.name] = self.fields(node)

    @staticmethod
    def fields(node):
        tables = {target.id: ast.literal_eval(part.value) for part in node.body if isinstance(part, ast.Assign)
                  for target in part.targets if target.id in ("openapi_types", "attribute_map")}
        return {tables["attribute_map"][name]: kind for name, kind in tables["openapi_types"].items()}

    def check(self, where, value, kind):
        basic = {"str": str, "int": int, "bool": bool, "float": (int, float)}
        if inner := re.fullmatch(r"list\[(.*)\]", kind):
            for place, entry in enumerate(value if isinstance(value, list) else fault(where, "is no list") or []):
                self.check(f"{where}[{place}]", entry, inner[1])
        elif kind in basic:
            if not isinstance(value, basic[kind]):
                fault(where, f"{value!r} is no {kind}")
        elif kind == "V1Container":
            check_pod(where, [value])
        elif fields := self.classes.get(kind):
            for key, entry in value.items() if isinstance(value, dict) else fault(where, f"is no {kind}") or []:
                if key in fields:
                    self.check(f"{where}.{key}", entry, fields[key])
                else:
                    fault(where, f"there is no field {key}")


def check_kserve(where, document):
    version = document["apiVersion"].split("/")[1].capitalize()
    kind = version + document["kind"]
    server = KServe()
    if kind not in server.classes:
        return fault(where, f"KServe has no {kind}")
    server.check(where, document, kind)


def check_pod(where, containers):
    check_schema(where, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": containers}})


# --- What is rendered


def documents(text):
    import yaml

    return [document for document in yaml.safe_load_all(text) if document]


def check_rendered(where, all_documents, program):
    for document in all_documents:
        check_schema(where, document)
    found = {}
    for document in all_documents:
        found.setdefault(document["kind"], {})[document["metadata"]["name"]] = document
    (deployment,) = found["Deployment"].values()
    spec = deployment["spec"]["template"]["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = {"the deployment": deployment["spec"]["selector"]["matchLabels"]}
    for kind, selector in [("Service", ["selector"]), ("PodDisruptionBudget", ["selector", "matchLabels"]),
                           ("NetworkPolicy", ["podSelector", "matchLabels"])]:
        for document in found.get(kind, {}).values():
            part = document["spec"]
            for key in selector:
                part = part[key]
            selectors[kind] = part
    for constraint in spec["topologySpreadConstraints"]:
        selectors["the spread"] = constraint["labelSelector"]["matchLabels"]
    for name, selector in selectors.items():
        if not selector or not selector.items() <= labels.items():
            fault(where, f"{name} selects {selector}, the pods have {labels}")
    for monitor in found.get("ServiceMonitor", {}).values():
        (service,) = found["Service"].values()
        if not monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items():
            fault(where, "the ServiceMonitor does not select the service")
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in found.get(kind, {}).values():
            if scaler["spec"]["scaleTargetRef"]["name"] != deployment["metadata"]["name"]:
                fault(where, f"the {kind} scales another deployment")
            if "replicas" in deployment["spec"]:
                fault(where, f"the deployment and its {kind} both say how many replicas there are")
    check_ports(where, found, spec)
    check_volumes(where, found, spec)
    check_containers(where, found, spec, program)


def check_ports(where, found, spec):
    """Whoever names a port names one that there is."""
    (container,) = spec["containers"]
    ports = {port["name"] for port in container["ports"]}
    asked = {f"the {name}": container[name]["httpGet"]["port"] for name in container if name.endswith("Probe")}
    (service,) = found["Service"].values()
    asked |= {f"the service's {port['name']}": port["targetPort"] for port in service["spec"]["ports"]}
    for policy in found.get("NetworkPolicy", {}).values():
        for rule in policy["spec"]["ingress"]:
            asked |= {"the network policy": port["port"] for port in rule["ports"]}
    for name, port in asked.items():
        if port not in ports:
            fault(where, f"{name} names the port {port}, the container has {ports}")
    of_service = {port["name"] for port in service["spec"]["ports"]}
    for monitor in found.get("ServiceMonitor", {}).values():
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in of_service:
                fault(where, f"the ServiceMonitor names the port {endpoint['port']}, the service has {of_service}")


def check_volumes(where, found, spec):
    volumes = {volume["name"] for volume in spec["volumes"]}
    for volume in spec["volumes"]:
        if config := volume.get("configMap"):
            if config["name"] not in found.get("ConfigMap", {}):
                fault(where, f"there is no ConfigMap {config['name']}")
        if claim := volume.get("persistentVolumeClaim"):
            name = claim["claimName"]
            if name not in found.get("PersistentVolumeClaim", {}) and name != "models":
                fault(where, f"there is no claim {name}")
    for container in spec["containers"] + spec.get("initContainers", []):
        for mount in container["volumeMounts"]:
            if mount["name"] not in volumes:
                fault(where, f"{container['name']} mounts {mount['name']}, which is no volume")


def check_containers(where, found, spec, program):
    for container in spec["containers"] + spec.get("initContainers", []):
        security = spec["securityContext"] | container["securityContext"]
        if not (security["runAsNonRoot"] and security["readOnlyRootFilesystem"]
                and not security["allowPrivilegeEscalation"] and security["capabilities"] == {"drop": ["ALL"]}):
            fault(where, f"{container['name']} may do more than it must")
        environment = {entry["name"]: entry.get("value", "secret") for entry in container["env"]}
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (config,) = [config["data"]["rerankd.toml"] for config in found["ConfigMap"].values()]
            keys = folder / "keys"
            keys.write_text("me secret-of-the-check\n")
            file = folder / "rerankd.toml"
            file.write_text(config.replace("/etc/rerankd/keys/keys", str(keys)))
            # In place of a model from the hub, and of a GPU, what is at hand.
            here = {"RERANKD__MODEL__ID": "builtin", "RERANKD__MODEL__REVISION": "", "RERANKD__ENGINE__DEVICE": "cpu",
                    "RERANKD__AUTH__KEYS_FILE": str(keys)}
            certificate, key = self_signed.pair(folder)
            here |= {"RERANKD__TLS__CERT_FILE": certificate, "RERANKD__TLS__KEY_FILE": key,
                     "RERANKD__TLS__CLIENT_CA_FILE": certificate}
            environment |= {name: value for name, value in here.items() if name in environment}
            words = [str(file) if word.endswith("rerankd.toml") else word for word in container["args"]]
            more = ["--check-config"] if words[0] == "serve" else []
            done = subprocess.run([program, *words, *more], env=clean() | environment, capture_output=True, text=True)
            if done.returncode or "warn" in done.stderr.lower():
                fault(where, f"rerankd {' '.join(words + more)}: {done.stdout}{done.stderr}")
            elif words[0] == "serve":
                printed = output(program, *words, "--print-config", env=clean() | environment)
                shutdown = tomllib.loads(printed)["shutdown"]
                needed = (shutdown["pause_ms"] + shutdown["deadline_ms"]) / 1000
                if spec["terminationGracePeriodSeconds"] < needed + 1:
                    fault(where, f"terminationGracePeriodSeconds is too short for {needed} s")


def render(values):
    sets = [word for value in values for word in ("--set", value)]
    return subprocess.run(["helm", "template", "r", CHART, "--namespace", "search", "--kube-version", KUBERNETES, *sets],
                          capture_output=True, text=True)


def check_helm(program):
    """The queries of the autoscaler come back."""
    output("helm", "lint", "--strict", CHART)
    queries = []
    for name, values in VARIANTS.items():
        done = render(values)
        if done.returncode:
            fault(f"helm ({name})", done.stderr)
            continue
        rendered = documents(done.stdout)
        check_rendered(f"helm ({name})", rendered, program)
        for document in rendered:
            if document["kind"] == "ScaledObject":
                queries += [trigger["metadata"]["query"] for trigger in document["spec"]["triggers"]]
    for value in REFUSED:
        if render([value]).returncode == 0:
            fault("helm", f"the chart lets {value} pass")
    chart = documents((CHART / "Chart.yaml").read_text())[0]
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    if chart["appVersion"] != version:
        fault("helm", f"appVersion is {chart['appVersion']}, the program's version {version}")
    return queries


def check_kustomize(program):
    for overlay in [DEPLOY / "kustomize" / "base", *sorted((DEPLOY / "kustomize" / "overlays").iterdir())]:
        check_rendered(f"kustomize ({overlay.name})", documents(output("kubectl", "kustomize", overlay)), program)


def check_plain():
    for file in sorted((DEPLOY / "kserve").glob("*.yaml")):
        for document in documents(file.read_text()):
            check_schema(file.name, document)
    (compose,) = documents((DEPLOY / "compose" / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(".") and not (DEPLOY / "compose" / source).exists():
                fault("compose", f"{name} mounts {source}, which is not there")
            if not source.startswith(".") and source not in compose["volumes"]:
                fault("compose", f"{name} mounts {source}, which is no volume")


# --- Prometheus


def panels(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def named(query):
    """The metrics that a query names, without what is a rule's or a label's."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|(?:by|without|on)\s*\([^)]*\)', "", query)
    words = set(re.findall(r"(?<![\w:])(?:rerankd|process|container)_\w+", bare))
    return words | ({"up"} if re.search(r"\bup\{", bare) else set())


def check_names(queries):
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    known = FOREIGN | set(re.findall(r"`(\w+)` \| (?:counter|gauge)", page))
    for name in re.findall(r"`(\w+)` \| histogram", page):
        known |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    for where, query in queries:
        for name in named(query) - known:
            fault(where, f"there is no metric {name}")


def check_rules(queries):
    folder = DEPLOY / "prometheus"
    output("promtool", "check", "rules", folder / "rules.yml")
    output("promtool", "test", "rules", "rules_test.yml", cwd=folder)
    output("promtool", "check", "config", "--syntax-only", DEPLOY / "compose" / "prometheus.yml")
    tested = (folder / "rules_test.yml").read_text()
    (rules,) = documents((folder / "rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            name = rule.get("alert") or rule["record"]
            queries.append((name, rule["expr"]))
            if not re.search(rf"\b{name}\b", tested):
                fault("rules_test.yml", f"{name} is not tested")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target" / "release" / "rerankd")
    program = parser.parse_args().program.resolve()
    install()
    # It needs what was installed.
    from deploy_live import without_result

    if not program.exists():
        sys.exit(f"{program} is not there: cargo build --release")
    queries = [("the autoscaler", text) for text in check_helm(program)]
    check_kustomize(program)
    check_plain()
    dashboard = json.loads((DEPLOY / "grafana" / "rerankd.json").read_text())
    queries += [(f"the panel {title!r}", text) for title, text in panels(dashboard)]
    check_rules(queries)
    check_names(queries)
    own = [(where, text) for where, text in queries if not named(text) & (FOREIGN - {"up"})]
    for where, text in without_result(program, DEPLOY / "prometheus" / "rules.yml", own):
        fault(where, f"has no result from running servers: {text}")
    print("\n".join(faults) or f"deploy/ is in order: {len(VARIANTS)} values of the chart, {len(queries)} queries")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
