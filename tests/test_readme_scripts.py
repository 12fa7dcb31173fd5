"""The scripts of the README's page on several machines, as they stand there, with stand-ins for what is not at hand."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlkit import runs
from dlkit.train import checkpoints

pytestmark = pytest.mark.slow

README = (Path(__file__).parent.parent / "README.md").read_text()
SCRIPTS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)

STEPS = 1500
# In place of a residual net on CIFAR-10: so many steps that there is time to stop them.
SMALL = [
    "mlp", "--limit", "50", "--batch-size", "20", "--steps", str(STEPS), "--seed", "3", "--set", "model.hidden=[8]",
    "--set", "data.size=8", "--set", "train.checkpoint_every=50", "--set", "train.evaluate_every=500",
]  # fmt: skip

# Does what it is told with a small net on the digits, which lie in no folder of prepared data.
DLKIT = """#!{python}
import os, sys
words = sys.argv[1:]
with open("{log}", "a") as log:
    print(*words, file=log)
at = words.index("--data-dir")
del words[at : at + 2]
if words[1:4] == ["resnet18", "--data", "cifar10"]:
    words[1:4] = {small!r}
os.execv("{python}", ["{python}", "-m", "dlkit", *words])
"""

# Names the hosts of the job, as Slurm does.
SCONTROL = """#!/bin/sh
[ "$*" = "show hostnames node[0-1]" ] && printf 'node0\\nnode1\\n'
"""

# Starts a task on each node of the job, which here are ports of this machine, and notes their processes.
SRUN = """#!{python}
import os, socket, subprocess, sys
option, *command = sys.argv[1:]
assert option == "--cpus-per-task=16", option
cluster, nodes = os.environ["CLUSTER"], ("node0", "node1")
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in nodes]
for node, free in zip(nodes, sockets):
    cluster = cluster.replace(f"{{node}}:2222", f"127.0.0.1:{{free.getsockname()[1]}}")
for free in sockets:
    free.close()
environments = [os.environ | {{"CLUSTER": cluster, "SLURM_NODEID": str(number)}} for number in range(len(nodes))]
tasks = [subprocess.Popen(command, env=environment) for environment in environments]
with open("{tasks}", "w") as noted:
    print(*(task.pid for task in tasks), file=noted)
sys.exit(max(task.wait() for task in tasks))
"""


def script(comment):
    """The script of the README that has this comment."""
    (found,) = [each for each in SCRIPTS if comment in each]
    return found


@pytest.fixture
def site(tmp_path):
    """What the scripts need: a shared folder with `train.sh`, and the programs that they call."""
    programs, shared = tmp_path / "bin", tmp_path / "shared"
    programs.mkdir()
    shared.mkdir()
    places = {"python": sys.executable, "log": tmp_path / "log", "tasks": tmp_path / "tasks"}
    for name, text in {
        "dlkit": DLKIT.format(small=SMALL, **places), "scontrol": SCONTROL, "srun": SRUN.format(**places)
    }.items():  # fmt: skip
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name, comment in (("train.sh", "# /shared/train.sh"), ("job.sh", "#SBATCH")):
        (shared / name).write_text(script(comment).replace("/shared", str(shared)))
    return tmp_path


def test_two_machines_that_are_told_who_they_are(site):
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = [free.getsockname()[1] for free in (first, second)]
    text = script("# On the machine 10.0.0.1, the chief.").replace("/shared", str(site / "shared"))
    for host, port in zip(("10.0.0.1", "10.0.0.2"), ports, strict=True):
        assert f'"{host}:2222"' in text
        text = text.replace(f'"{host}:2222"', f'"127.0.0.1:{port}"')
    assert text.count('"index": 0}') == 1
    machines = [
        subprocess.Popen(
            ["bash", "-c", text.replace('"index": 0}', f'"index": {number}}}')],
            env={**os.environ, "PATH": f"{site / 'bin'}:{os.environ['PATH']}"},
            stderr=subprocess.PIPE,
            text=True,
            cwd=site,
        )
        for number in range(2)
    ]
    told = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert told[1] == "", "the chief speaks"
    run = runs.open_run(site / "shared" / "runs" / "mlp_digits-1")
    assert run.checkpoints()[-1] == f"step-{STEPS}"
    assert run.info["devices"].startswith("2 workers x CPU")


def submitted(site):
    """A job of two nodes."""
    slurm = {"SLURM_JOB_NODELIST": "node[0-1]", "SLURM_CPUS_PER_TASK": "16"}
    return subprocess.Popen(
        ["bash", site / "shared" / "job.sh"],
        env={**os.environ, **slurm, "PATH": f"{site / 'bin'}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=site,
    )


def test_a_job_whose_time_is_up_goes_on_when_it_is_submitted_again(site):
    run = site / "shared" / "runs" / "resnet18_cifar10"
    job = submitted(site)
    deadline = time.monotonic() + 120
    while not checkpoints.steps(run / "checkpoints"):
        assert time.monotonic() < deadline, "no checkpoint"
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    for task in (site / "tasks").read_text().split():  # as `--signal=USR1@120` has Slurm do it
        os.kill(int(task), signal.SIGUSR1)
    _, error = job.communicate(timeout=120)
    assert job.returncode == 128 + signal.SIGUSR1, error
    (last,) = re.findall(rf"^error: interrupted after step (\d+), saved in {run}$", error, re.MULTILINE)
    assert int(last) == checkpoints.steps(run / "checkpoints")[-1] < STEPS

    job = submitted(site)
    _, error = job.communicate(timeout=300)
    assert job.returncode == 0, error
    found = runs.open_run(run)
    assert found.checkpoints()[-1] == f"step-{STEPS}"
    assert found.info["attempt"] == 2
    assert found.info["devices"].startswith("2 workers x CPU")
    assert "result" in found.info
    shared = site / "shared"
    begin = f"train resnet18 --data cifar10 --data-dir {shared}/data --runs-dir {shared}/runs --name resnet18_cifar10"
    go_on = f"train --resume {run} --data-dir {shared}/data"
    assert (site / "log").read_text().splitlines() == [begin, begin, go_on, go_on]
