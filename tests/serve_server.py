"""A 'sluice serve' at a free port, requests to it, and the chances of
'sluice logits': what serve_load.py, serve_same.py and serve_clients.py share.

SLUICE_LOAD_SLOW=N in the environment multiplies what has a time limit, for
programs built with sanitizers.
"""
import array
import http.client
import json
import math
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time

slow = float(os.environ.get("SLUICE_LOAD_SLOW", "1"))


class Cgroup:
    """One with so many bytes of memory; where none can be made, OSError."""

    def __init__(self, size):
        root = "/sys/fs/cgroup"
        one = os.path.exists(root + "/memory")
        self.path = f"{root}/{'memory/' if one else ''}sluice-{os.getpid()}"
        self.one = one
        os.mkdir(self.path)
        try:
            self.write("memory.limit_in_bytes" if one else "memory.max", size)
            if not one:
                self.write("memory.swap.max", 0)
            subprocess.run(["true"], preexec_fn=self.enter, check=True)
        except (OSError, subprocess.SubprocessError) as why:
            os.rmdir(self.path)
            raise OSError(why) from why

    def write(self, name, value):
        with open(f"{self.path}/{name}", "w", encoding="ascii") as f:
            f.write(str(value))

    def enter(self):
        self.write("cgroup.procs", os.getpid())

    def killed(self):
        """Processes that it had no memory for."""
        name = "memory.oom_control" if self.one else "memory.events"
        with open(f"{self.path}/{name}", encoding="ascii") as f:
            return sum(int(line.split()[1]) for line in f
                       if line.startswith("oom_kill "))

    def remove(self):
        os.rmdir(self.path)


class Server:
    """A server at a free port, which ends with its block."""

    def __init__(self, sluice, file, *options, ram=None, nofile=None,
                 cgroup=None):
        self.log = tempfile.NamedTemporaryFile("w+", encoding="utf-8")

        def limit():
            if nofile:
                resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
            if cgroup:
                cgroup.enter()

        # Sanitizers take more for themselves.
        ram = ram or ("192M" if slow == 1 else "512M")
        self.p = subprocess.Popen(
            [sluice, "serve", "-m", file, "--ram", ram, "--threads", "2",
             "--port", "0", *options],
            stderr=self.log, stdout=subprocess.DEVNULL,
            preexec_fn=limit if nofile or cgroup else None)
        self.port = None
        self.wait_for(self.listens, 30)
        self.wait_for(self.is_healthy, 60)

    def text(self):
        with open(self.log.name, encoding="utf-8") as f:
            return f.read()

    def listens(self):
        assert self.p.poll() is None, self.text()
        for line in self.text().splitlines():
            if "listening at" in line:
                self.port = int(line.rsplit(":", 1)[1])
        return self.port is not None

    def wait_for(self, what, seconds):
        until = time.monotonic() + seconds * slow
        while not what():
            assert time.monotonic() < until, f"not within {seconds} s: " \
                + self.text()[-2000:]
            time.sleep(0.05)

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port,
                                          timeout=timeout * slow)

    def raw(self):
        return socket.create_connection(("127.0.0.1", self.port), 60 * slow)

    def get(self, path):
        c = self.connect()
        try:
            c.request("GET", path)
            r = c.getresponse()
            return r.status, r.read().decode()
        finally:
            c.close()

    def is_healthy(self):
        assert self.p.poll() is None, self.text()
        return self.health() == 200

    def health(self):
        try:
            return self.get("/health")[0]
        except OSError:
            return 0

    def metric(self, name):
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith("sluice_" + name + " "):
                return float(line.split()[1])
        raise KeyError(name)

    def idle(self):
        return self.metric("texts_active") == 0 and \
            self.metric("queue_texts") == 0

    def memory(self):
        """The most that it had at a time, in MiB."""
        with open(f"/proc/{self.p.pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.p.wait(60 * slow)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        self.log.close()


def ask(c, tokens, **more):
    body = {"prompt": "In the beginning", "max_tokens": tokens,
            "min_tokens": tokens, **more}
    c.request("POST", "/v1/completions", json.dumps(body),
              {"Content-Type": "application/json"})
    r = c.getresponse()
    return r.status, json.loads(r.read())


def chances(sluice, file, request, ids):
    """log P of ids, one behind each row of what 'sluice logits' says to the
    request."""
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/in.json", "w", encoding="ascii") as f:
            json.dump(request, f)
        subprocess.run([sluice, "logits", "-q", "-m", file, "-i",
                        folder + "/in.json", "-o", folder + "/out.npy"],
                       check=True)
        with open(folder + "/out.npy", "rb") as f:
            data = f.read()
    header = 10 + int.from_bytes(data[8:10], "little")
    values = array.array("f", data[header:])
    vocab = len(values) // len(ids)
    assert len(values) == vocab * len(ids), (len(values), len(ids))
    found = []
    for row, i in enumerate(ids):
        v = values[row * vocab:(row + 1) * vocab]
        top = max(v)
        found.append(v[i] - top - math.log(sum(math.exp(x - top) for x in v)))
    return found
