"""A throw-away SLURM cluster on this machine: controller, two nodes, munge and, if wanted, accounting.

Everything lives in one folder and on ports of its own; daemons are children of this process and end by their pids. An
installed or running SLURM of the machine is not touched. Needs root and Debian's `slurm-wlm munge slurmdbd
mariadb-server` (see `.ci/run`).

Example, a shell in which sbatch, squeue and the loop talk to the cluster until it is left:
    python -m tests.slurm.cluster
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacct", "sacctmgr")
OPERATOR = "daemon"  # a user that every machine has
_SYSTEM_PATH = "/usr/sbin:/sbin"
_NODE_MEMORY_MB = 6000


def missing(accounting: bool = True) -> str | None:
    """Why no cluster can be brought up here; None where it can."""
    if os.geteuid() != 0:
        return "a throw-away SLURM needs root"
    path = os.environ["PATH"] + ":" + _SYSTEM_PATH
    wanted = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    absent = [name for name in wanted if shutil.which(name, path=path) is None]
    return f"not installed: {', '.join(absent)} (Debian: slurm-wlm munge slurmdbd mariadb-server)" if absent else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll until `condition()`; raises `TimeoutError` naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


class Cluster:
    """Daemons of one cluster under `folder`. Commands run with `environment`, which names its configuration."""

    def __init__(self, folder: Path, *, accounting: bool = True, cpus: int = 4, nodes: Sequence[str] = ("n1", "n2")):
        self.folder, self.accounting, self.cpus, self.nodes = folder, accounting, cpus, tuple(nodes)
        self.conf = folder / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen] = {}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(self.conf),
            "PATH": os.environ["PATH"] + ":" + _SYSTEM_PATH,
        }
        self._ports = {name: free_port() for name in ("slurmctld", "slurmdbd", "mariadb", *self.nodes)}

    def start(self) -> None:
        for name in ("state", "log", "munge", "database", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self._start_munge()
        self._write_configuration()
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        wait_for(lambda: self.idle_nodes() == set(self.nodes), "the nodes to be idle")

    def stop(self) -> None:
        """End all daemons and whatever their jobs left running."""
        with contextlib.suppress(Exception):
            self.run("scancel", "--user=root", "--signal=KILL", "--full")
            self.run("scancel", "--user=root")
            wait_for(lambda: not self.run("squeue", "-h").stdout.strip(), "jobs to end", 15)
        for name in reversed(list(self.daemons)):
            self.stop_daemon(name)

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=check)

    def run_as_operator(self, *command: str) -> None:
        """Run a command of the scheduler as another user than the jobs', one with an operator's rights."""
        self.run("setpriv", f"--reuid={OPERATOR}", "--clear-groups", *command, check=True)

    def limit_submitted_jobs(self, count: int) -> None:
        """So many jobs may a user have submitted; -1: any number."""
        self.run("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={count}", check=True)

    def idle_nodes(self) -> set[str]:
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %t").stdout.splitlines()
        return {line.split()[0] for line in lines if line.endswith(" idle")}

    # Daemons

    def start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        wait_for(lambda: "is UP" in self.run("scontrol", "ping").stdout, "slurmctld")

    def forget_jobs(self) -> None:
        """Restart the controller without its memory of jobs."""
        self.stop_daemon("slurmctld", signal.SIGKILL)
        for file in (self.folder / "state").glob("job_state*"):
            file.unlink()
        # Numbers go on elsewhere: nodes refuse a job with the number of one that they still know.
        with self.conf.open("a") as conf:
            conf.write("FirstJobId=1000\n")
        self.start_controller()

    def start_database_daemon(self) -> None:
        self._spawn("slurmdbd", "slurmdbd", "-D")
        wait_for(lambda: self.run("sacctmgr", "-n", "show", "cluster").returncode == 0, "slurmdbd")

    def start_node(self, node: str) -> None:
        self._spawn(node, "slurmd", "-D", "-f", str(self.conf), "-N", node)

    def stop_daemon(self, name: str, signum: int = signal.SIGTERM) -> None:
        daemon = self.daemons.pop(name)
        if daemon.poll() is None:
            daemon.send_signal(signum)
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def start_requeued(self, job_id: str, lost: str = "") -> None:
        """Wait until a job is back in the queue and spare it the two minutes that SLURM keeps such a job waiting.

        Where its node was `lost` the job may be running on another one before it has been seen in the queue.
        """

        def is_back() -> bool:
            state, _, node = self.run("squeue", "-h", "-j", job_id, "-o", "%T %N").stdout.strip().partition(" ")
            return state == "PENDING" or bool(lost and node and node != lost)

        wait_for(is_back, f"job {job_id} to be queued again", 150)
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    def start_all_requeued(self) -> None:
        """The same for all jobs that are waiting so now."""
        for line in self.run("squeue", "-h", "-t", "PENDING", "-o", "%i %r").stdout.splitlines():
            job_id, _, reason = line.partition(" ")
            if reason == "BeginTime":
                self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    def node_down(self, node: str) -> None:
        """As if the machine had died: its daemon and its jobs' processes are gone, the controller is told."""
        self.stop_daemon(node, signal.SIGKILL)
        self._kill_steps(node)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test", check=True)

    def node_up(self, node: str) -> None:
        self.start_node(node)
        self.run("scontrol", "update", f"nodename={node}", "state=resume")  # refused if it came back by itself

    def _kill_steps(self, node: str) -> None:
        """Kill this cluster's job processes on a node, known by the node and configuration in their environment."""
        wanted = (f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.conf}".encode())
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = (process / "environ").read_bytes().split(b"\0")
                if all(variable in variables for variable in wanted):
                    os.kill(int(process.name), signal.SIGKILL)

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / "log" / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                start_new_session=True,
            )

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.chmod(0o755)
        key = folder / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = {name: folder / name for name in ("socket", "pid", "log", "seed")}
        self._spawn(
            "munged",
            *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={files['socket']}"),
            *(f"--pid-file={files['pid']}", f"--log-file={files['log']}", f"--seed-file={files['seed']}"),
        )
        wait_for(files["socket"].exists, "munged")

    def _start_accounting(self) -> None:
        data, database_socket = self.folder / "database", self.folder / "database.socket"
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root", "--skip-test-db"],
            **{"env": self.environment, "check": True, "capture_output": True},
        )
        self._spawn(
            "mariadb",
            *("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={database_socket}"),
            *(
                "--bind-address=127.0.0.1",
                f"--port={self._ports['mariadb']}",
                f"--pid-file={self.folder / 'maria.pid'}",
            ),
            *("--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"),
        )
        client = ["mariadb", "--no-defaults", f"--socket={database_socket}", "--user=root", "-e"]
        wait_for(lambda: self.run(*client, "select 1").returncode == 0, "mariadb")
        password = secrets.token_hex(8)
        self.run(
            *client,
            "; ".join(
                f"create user 'slurm'@'{host}' identified by '{password}'; grant all on *.* to 'slurm'@'{host}'"
                for host in ("127.0.0.1", "localhost")
            ),
            check=True,
        )
        file = self.folder / "slurmdbd.conf"
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder / 'munge' / 'socket'}",
            "DbdAddr": "127.0.0.1",
            "DbdHost": socket.gethostname(),
            "DbdPort": self._ports["slurmdbd"],
            "SlurmUser": "root",
            "LogFile": self.folder / "log" / "slurmdbd.log",
            "PidFile": self.folder / "slurmdbd.pid",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": self._ports["mariadb"],
            "StorageUser": "slurm",
            "StoragePass": password,
            "StorageLoc": "accounting",
        }
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        file.chmod(0o600)
        self.start_database_daemon()
        self.run("sacctmgr", "-i", "add", "cluster", "throwaway", check=True)
        self.run("sacctmgr", "-i", "add", "account", "site", check=True)
        operator = ("user", OPERATOR, "account=site", "adminlevel=Operator")
        self.run("sacctmgr", "-i", "add", *operator, check=True)
        self.run("sacctmgr", "-i", "add", "user", "root", "account=site", check=True)

    def _write_configuration(self) -> None:
        settings = {
            "ClusterName": "throwaway",
            "SlurmctldHost": f"{socket.gethostname()}(127.0.0.1)",
            "SlurmctldPort": self._ports["slurmctld"],
            "SlurmUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder / 'munge' / 'socket'}",
            "CredType": "cred/munge",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool" / "%n",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.%n.pid",
            "SlurmctldLogFile": self.folder / "log" / "slurmctld.log",
            "SlurmdLogFile": self.folder / "log" / "slurmd.%n.log",
            "SlurmdParameters": "config_overrides",  # nodes with more cores than this machine
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SwitchType": "switch/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SchedulerParameters": "sched_interval=2,bf_interval=2,requeue_delay=1,batch_sched_delay=1",
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=1",
            "JobAcctGatherParams": "OverMemoryKill",
            "ReturnToService": 2,
            "KillWait": 5,
            "MinJobAge": 300 if self.accounting else 30,
            "SlurmdTimeout": 15,
            "SlurmctldTimeout": 10,
            "MessageTimeout": 20,
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
        }
        if self.accounting:
            settings |= {
                "AccountingStorageType": "accounting_storage/slurmdbd",
                "AccountingStorageEnforce": "limits",
                "AccountingStorageHost": "127.0.0.1",
                "AccountingStoragePort": self._ports["slurmdbd"],
                "AccountingStoragePass": self.folder / "munge" / "socket",
            }
        lines = [f"{key}={value}" for key, value in settings.items()]
        lines += [
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={self._ports[node]} "
            f"CPUs={self.cpus} RealMemory={_NODE_MEMORY_MB} State=UNKNOWN"
            for node in self.nodes
        ]
        every = ",".join(self.nodes)
        lines += [
            f"PartitionName=main Nodes={every} Default=YES PriorityTier=1 PreemptMode=REQUEUE",
            f"PartitionName=urgent Nodes={every} PriorityTier=10 PreemptMode=OFF",
        ]
        self.conf.write_text("\n".join(lines) + "\n")
        self.conf.chmod(0o644)


@contextlib.contextmanager
def throwaway_cluster(*, accounting: bool = True) -> Iterator[Cluster]:
    """A running cluster, gone afterwards with its folder. Raises `RuntimeError` where none can be brought up."""
    reason = missing(accounting)
    if reason:
        raise RuntimeError(reason)
    # A short path: sockets' paths are limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder, accounting=accounting)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    with throwaway_cluster() as running:
        print(f"SLURM_CONF={running.conf}; leave this shell to end the cluster", flush=True)
        subprocess.run([os.environ.get("SHELL", "bash")], env=running.environment, check=False)
