"""Makes the templates of the Helm chart from the kustomize base, so that the manifests are written only once.

`python deploy/chart.py` writes deploy/chart/templates; with `--check` it prints what differs, and fails. Chart.yaml, values.yaml
and values.schema.json are written by hand. Until the text is made, a value is a marker `@@...@@` in the document:

- `@@= EXPRESSION@@` is a scalar;
- `@@toYaml EXPRESSION@@` is a whole section;
- `@@block NAME@@`, as an item or as a key, is one of the texts in `BLOCKS`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
TEMPLATES: Final = HERE / "chart" / "templates"

Document = dict[str, Any]

HEAD: Final = "# Made by deploy/chart.py of deploy/kubernetes/base: `make chart` makes it anew.\n"

BLOCKS: Final = {
    "replicas": """{{- if not .Values.autoscaling.enabled }}
replicas: {{ .Values.replicas }}
{{- end }}""",
    "pod": """{{- with .Values.pod }}
{{- toYaml . | nindent INDENT }}
{{- end }}""",
    "annotations": """{{- with .Values.podAnnotations }}
{{- toYaml . | nindent INDENT }}
{{- end }}""",
    "labels": """{{- with .Values.podLabels }}
{{- toYaml . | nindent INDENT }}
{{- end }}""",
    "account": """{{- with .Values.serviceAccount.annotations }}
annotations:
  {{- toYaml . | nindent DEEPER }}
{{- end }}""",
    "metadata": """{{- if .Values.networkPolicy.metadata }}
- ports:
  - port: 80
  - port: 988
  to:
  - ipBlock:
      cidr: 169.254.169.252/30
{{- end }}""",
    "credentials_mount": """{{- if or .Values.credentials.secretName .Values.credentials.audience }}
- mountPath: /etc/antiphon-credentials
  name: credentials
  readOnly: true
{{- end }}""",
    "credentials_volume": """{{- if or .Values.credentials.secretName .Values.credentials.audience }}
- name: credentials
  projected:
    defaultMode: 288
    sources:
    {{- with .Values.credentials.secretName }}
    - secret:
        name: {{ . }}
    {{- end }}
    {{- with .Values.credentials.audience }}
    - serviceAccountToken:
        audience: {{ . | quote }}
        expirationSeconds: 3600
        path: token
    {{- end }}
{{- end }}""",
    "service": """{{- with .Values.service.annotations }}
annotations:
  {{- toYaml . | nindent DEEPER }}
{{- end }}
""".rstrip(),
    "scheme": """{{- if .Values.tls.secretName }}
scheme: HTTPS
{{- end }}""",
    "redis": """{{- with .Values.redisSecret.name }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.redisSecret.key }}
{{- end }}""",
    "tls_mount": """{{- if .Values.tls.secretName }}
- mountPath: /etc/antiphon-tls
  name: tls
  readOnly: true
{{- end }}""",
    "tls_volume": """{{- with .Values.tls.secretName }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 288
{{- end }}""",
}
"""Parts that depend on values. INDENT is the indent of the text, DEEPER that plus two."""


def value(path: str) -> str:
    """Return the marker of a scalar value."""
    return f"@@= .Values.{path}@@"


def section(path: str) -> str:
    """Return the marker of a section of values."""
    return f"@@toYaml .Values.{path}@@"


def block(name: str) -> str:
    """Return the marker of a text in `BLOCKS`."""
    assert name in BLOCKS, name
    return f"@@block {name}@@"


def _environment(container: Document) -> None:
    container["envFrom"][0]["secretRef"]["name"] = value("secretName")
    container["env"][0]["valueFrom"]["secretKeyRef"] = {"name": value("databaseSecret.name"), "key": value("databaseSecret.key")}
    container["env"].append(block("redis"))


def deployment(document: Document) -> None:
    """Mark what differs between installations: image, resources, secrets, TLS, replicas, where pods run."""
    document["spec"][block("replicas")] = None
    template = document["spec"]["template"]
    template["metadata"]["annotations"][block("annotations")] = None
    template["metadata"]["labels"][block("labels")] = None
    pod = template["spec"]
    pod[block("pod")] = None
    pod["terminationGracePeriodSeconds"] = value("terminationGracePeriodSeconds")
    pod["volumes"] += [block("tls_volume"), block("credentials_volume")]
    files, envoy = pod["initContainers"]
    (server,) = pod["containers"]
    files["image"] = server["image"] = value("image")
    envoy["image"] = "@@= .Values.envoyImage | default .Values.image@@"
    envoy["resources"], server["resources"] = section("resources.envoy"), section("resources.server")
    for container in (envoy, server):
        container["volumeMounts"].append(block("tls_mount"))
    server["volumeMounts"].append(block("credentials_mount"))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        envoy[probe]["httpGet"][block("scheme")] = None
    _environment(server)


def migration(document: Document) -> None:
    """Make the migration a hook that runs before the rest of the chart is installed or changed.

    So it has its own configuration, and no service account.
    """
    document["metadata"]["annotations"] = {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-weight": "0",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    pod = document["spec"]["template"]["spec"]
    del pod["serviceAccountName"]
    pod["volumes"][0]["configMap"]["name"] = "antiphon-migrate"
    pod["volumes"].append(block("tls_volume"))
    (container,) = pod["containers"]
    container["image"] = value("image")
    container["volumeMounts"].append(block("tls_mount"))
    _environment(container)


def configuration(document: Document) -> None:
    """Take the configuration from a section of the values."""
    document["data"] = {"antiphon.yaml": "@@= toYaml .Values.config | quote@@"}


def service(document: Document) -> None:
    """Mark how the edge is reached from outside."""
    document["metadata"][block("service")] = None
    document["spec"]["type"] = value("service.type")
    for port in document["spec"]["ports"]:  # with a certificate Envoy speaks TLS at both
        port["appProtocol"] = f'@@= empty .Values.tls.secretName | ternary "{port["appProtocol"]}" "https"@@'


def account(document: Document) -> None:
    """Mark what connects the pods' service account to an identity of a cloud."""
    document["metadata"][block("account")] = None


def policy(document: Document) -> None:
    """Mark whether the cloud's metadata service may be reached."""
    document["spec"]["egress"].append(block("metadata"))


def autoscaler(document: Document) -> None:
    """Mark the smallest and the largest number of replicas."""
    for bound in ("minReplicas", "maxReplicas"):
        document["spec"][bound] = value(f"autoscaling.{bound}")


EDITS: Final[dict[tuple[str, str], Callable[[Document], None]]] = {
    ("Deployment", "antiphon"): deployment,
    ("Job", "antiphon-migrate"): migration,
    ("ConfigMap", "antiphon-config"): configuration,
    ("Service", "antiphon"): service,
    ("ServiceAccount", "antiphon"): account,
    ("NetworkPolicy", "antiphon"): policy,
    ("HorizontalPodAutoscaler", "antiphon"): autoscaler,
}

CONDITIONS: Final = {
    "Job": "migrate.enabled",
    "HorizontalPodAutoscaler": "autoscaling.enabled",
    "PodDisruptionBudget": "podDisruptionBudget.enabled",
    "NetworkPolicy": "networkPolicy.enabled",
}
"""By kind: the value that must be true for the document to be included."""


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that writes texts of several lines as blocks."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def text(document: Document) -> str:
    """Return the template of a document with markers."""
    dumped = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=2**16)
    lines = []
    for line in dumped.splitlines():
        found = re.fullmatch(r"( *)(?:(- )|(.*: ))?(?:\? )?'@@(=|toYaml|block) (.+?)@@'(: null)?", line)
        if found is None:
            lines.append(line)
            continue
        indent, item, key, kind, what, _ = found.groups()
        depth = len(indent)
        match kind:
            case "=":
                lines.append(f"{indent}{item or ''}{key or ''}{{{{ {what} }}}}")
            case "toYaml":
                lines.append(f"{indent}{key}{{{{- toYaml {what} | nindent {depth + 2} }}}}")
            case _:
                made = BLOCKS[what].replace("INDENT", str(depth)).replace("DEEPER", str(depth + 2))
                lines += [indent + one for one in made.splitlines()]
    return "\n".join(lines) + "\n"


def templates() -> dict[str, str]:
    """Return the templates by file name."""
    kubectl = Path(sys.executable).parent / "kubectl"
    made = subprocess.run([kubectl, "kustomize", HERE / "kubernetes" / "base"], check=True, capture_output=True, text=True).stdout
    if "{{" in made or "@@" in made:
        raise SystemExit("The manifests have {{ or @@, which stands for values in a template")
    documents = list(yaml.safe_load_all(made))
    texts = {}
    for document in documents:
        kind, name = document["kind"], document["metadata"]["name"]
        if edit := EDITS.get((kind, name)):
            edit(document)
        body = text(document)
        if condition := CONDITIONS.get(kind):
            body = f"{{{{- if .Values.{condition} }}}}\n{body}{{{{- end }}}}\n"
        name = re.sub(r"-[a-z0-9]{10}$", "", name) if kind == "ConfigMap" else name
        texts[f"{kind.lower()}-{name}.yaml"] = HEAD + body
    # The configuration of the migrations, which run first.
    hook: Document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "antiphon-migrate"}}
    hook["metadata"]["annotations"] = {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-weight": "-1",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    configuration(hook)
    texts["configmap-antiphon-migrate.yaml"] = f"{HEAD}{{{{- if .Values.migrate.enabled }}}}\n{text(hook)}{{{{- end }}}}\n"
    return texts


def main() -> int:
    """Write the templates; with `--check` only print those that differ, and return 1 if there are any."""
    wanted = templates()
    there = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.yaml")} if TEMPLATES.is_dir() else {}
    changed = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if "--check" in sys.argv[1:]:
        for name in changed:
            print(f"deploy/chart/templates/{name} is not what deploy/chart.py makes: run `make chart`")
        return 1 if changed else 0
    TEMPLATES.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in wanted:
            (TEMPLATES / name).write_text(wanted[name], encoding="utf-8")
        else:
            (TEMPLATES / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
