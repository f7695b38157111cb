"""Load and faults against 'sluice serve': serve_load.py SLUICE MODEL-FILE
[REQUESTS [CONNECTIONS [CASE...]]].

Starts servers of its own and prints TAP. With few requests it is a short case
of the test suite; .ci/long runs it whole. REQUESTS 2000 and CONNECTIONS 200 by
default. SLUICE_LOAD_SLOW: see serve_server.py.
"""
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
import serve_server
from serve_server import ask, slow

sluice, model = sys.argv[1:3]
n_requests = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
n_connections = int(sys.argv[4]) if len(sys.argv) > 4 else 200
wanted = sys.argv[5:]
whole = n_requests >= 1000
work = tempfile.mkdtemp(prefix="sluice-load-")
number = 0
failed = False


def Server(*options, file=model, **more):
    return serve_server.Server(sluice, file, *options, **more)


def head(length, path="/v1/completions"):
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}"
            "\r\n\r\n").encode()


def body(tokens, **more):
    return json.dumps({"prompt": "In the beginning", "max_tokens": tokens,
                       "min_tokens": tokens, **more}).encode()


def case(function):
    global number, failed
    if wanted and function.__name__ not in wanted:
        return
    number += 1
    try:
        function()
        print(f"ok {number} - {function.__name__}")
    except Exception as why:  # every failure is one line of TAP
        failed = True
        print(f"not ok {number} - {function.__name__}")
        print("# " + f"{type(why).__name__}: {why}".replace("\n", "\n# "))
    sys.stdout.flush()


@case
def none_is_lost_and_none_waits_long():
    sizes = (2, 4, 8, 16)
    seconds = {n: [] for n in sizes}
    others = {n: [] for n in sizes}  # that were answered while one waited:
    wrong = []                       # time that no busy machine stretches
    done = 0
    left = iter(range(n_requests))
    lock = threading.Lock()

    def client(seed):
        nonlocal done
        rng = random.Random(seed)
        c = s.connect(600)
        while True:
            with lock:
                k = next(left, None)
                before = done
            if k is None:
                break
            n = rng.choice(sizes)
            begin = time.monotonic()
            try:
                status, o = ask(c, n, seed=k)
                good = status == 200 and o["usage"]["completion_tokens"] == n
            except (OSError, ValueError, http.client.HTTPException) as why:
                good, o = False, repr(why)
            with lock:
                seconds[n].append(time.monotonic() - begin)
                others[n].append(done - before)
                done += 1
                if not good:
                    wrong.append(o)
        c.close()

    def look():
        """What others ask meanwhile, from threads that run no pass."""
        while not over.wait(0.05):
            for path in "/metrics", "/props", "/v1/models":
                assert s.get(path)[0] == 200

    # Nothing that it holds goes beyond its budget: it lives where there is no
    # more memory, pages of its file included. (Sanitizers have their own.)
    cgroup = None
    try:
        cgroup = serve_server.Cgroup(192 << 20) if slow == 1 else None
    except OSError as why:
        print(f"# not in a cgroup: {why}")
    over = threading.Event()
    with Server("--connections", "400", "--address-connections", "400",
                "--queue", "400", cgroup=cgroup) as s:
        threads = [threading.Thread(target=client, args=(i,))
                   for i in range(n_connections)]
        looker = threading.Thread(target=look)
        begin = time.monotonic()
        for t in threads + [looker]:
            t.start()
        for t in threads:
            t.join()
        took = time.monotonic() - begin
        over.set()
        looker.join()
        assert not wrong, (len(wrong), wrong[:2])
        assert sum(map(len, seconds.values())) == n_requests
        for n, v in seconds.items():
            waits = others[n]
            print(f"# {len(v)} of {n} tokens: median "
                  f"{statistics.median(v):.2f} s, longest {max(v):.2f} s; "
                  f"others meanwhile {statistics.median(waits):.0f}, at most "
                  f"{max(waits)}")
            assert max(waits) <= 3 * statistics.median(waits) + 8, \
                (n, max(waits), statistics.median(waits))
            assert not whole or max(v) <= 3 * statistics.median(v), (n, max(v))
        print(f"# {n_requests / took:.1f} requests/s, "
              f"{s.memory():.0f} MiB at most")
        if slow == 1:
            assert s.memory() <= 192, s.memory()
        s.wait_for(s.idle, 5)
        assert cgroup is None or cgroup.killed() == 0
        if cgroup:
            print("# within a cgroup of 192 MiB")
    if cgroup:
        cgroup.remove()


@case
def what_is_asked_and_said_stays_within_the_budget():
    """Bodies whose trees are many times as large, and answers with chances, all
    at a time, in the least budget: each is answered, or refused with numbers."""
    options = ("--parallel", "4", "--ctx", "512")
    n = 48 if whole else 12
    told = subprocess.run([sluice, "serve", "-m", model, "--ram", "1M",
                           "--port", "0", *options], capture_output=True,
                          encoding="utf-8", check=False).stderr
    least = int(re.search(r"\(--ram (\d+)K\)", told)[1])

    def of(n, item):
        return b"[" + b",".join([item] * n) + b"]"

    many = b'{"max_tokens":1,"prompt":'
    talk = {"messages": [{"role": "user", "content": "a"}], "logprobs": True}
    bodies = [
        ("/v1/completions", many + of(600000, b"8000") + b"}"),
        ("/v1/completions", many + of(800000, b"8000") + b"}"),
        ("/v1/completions", many + b'"a","metadata":' + of(90000, b"{}") +
         b"}"),
        ("/v1/completions", many + of(250000, b'"a"') + b"}"),
        ("/v1/completions", many + b'"' + b"a" * 4000000 + b'"}'),
        ("/v1/chat/completions", b'{"messages":' + of(
            30000, b'{"role":"user","content":""}') + b"}"),
        ("/tokenize", b'{"prompt":"' + b"a" * 131000 + b'"}'),
        ("/detokenize", b'{"tokens":' + of(131000, b"8000") + b"}"),
    ]
    bodies *= 2 if whole else 1
    asked = [(path, json.dumps(what).encode()) for path, what in (
        ("/v1/completions", {"prompt": "a", "n": n, "max_tokens": 12,
                             "logprobs": 20}),
        ("/v1/completions", {"prompt": "b", "n": n, "max_tokens": 12,
                             "logprobs": 20, "stream": True}),
        ("/v1/chat/completions", {**talk, "n": n, "max_tokens": 12,
                                  "top_logprobs": 20}),
        ("/v1/chat/completions", {**talk, "n": 128, "max_tokens": 300,
                                  "top_logprobs": 20}))]
    got = {}
    lock = threading.Lock()

    def client(k, path, what):
        c = s.connect(600)
        c.request("POST", path, what)
        r = c.getresponse()
        said = r.status, r.read()
        c.close()
        with lock:
            got[k] = said

    cgroup = None
    try:
        cgroup = serve_server.Cgroup(least << 10) if slow == 1 else None
    except OSError as why:
        print(f"# not in a cgroup: {why}")
    with Server(*options, ram=f"{least}K", cgroup=cgroup) as s:
        threads = [threading.Thread(target=client, args=(k, *of))
                   for k, of in enumerate(bodies + asked)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        refused = [f"{status}: {text[:300]}" for status, text in got.values()
                   if status not in (200, 400, 413, 503)]
        assert not refused and len(got) == len(threads), refused
        full, streamed, talked, large = (got[len(bodies) + k]
                                         for k in range(4))
        assert full[0] == streamed[0] == talked[0] == 200, got
        assert len(json.loads(full[1])["choices"]) == n
        for choice in json.loads(full[1])["choices"]:
            chances = choice["logprobs"]
            size = len(chances["tokens"])
            assert size > 0
            assert all(len(v) == size for v in chances.values())
        for choice in json.loads(talked[1])["choices"]:
            assert all(len(t["top_logprobs"]) == 20
                       for t in choice["logprobs"]["content"])
        assert streamed[1].endswith(b"data: [DONE]\n\n")
        assert large[0] == 400 and b"--keep-answers" in large[1], large
        assert b"--keep-answers" in got[1][1] and got[1][0] == 413, got[1]
        print(f"# {s.memory():.0f} MiB at most, of {least / 1024:.0f}")
        assert slow > 1 or s.memory() <= least / 1024, s.memory()
        s.wait_for(s.idle, 5)
        assert cgroup is None or cgroup.killed() == 0
        if cgroup:
            print(f"# within a cgroup of {least / 1024:.0f} MiB")
    if cgroup:
        cgroup.remove()


@case
def clients_that_die_leave_nothing_behind():
    with Server("--idle", "3") as s:
        half = body(200, stream=True)
        for k in range(3 if not whole else 20):
            for what in (b"", b"POST /v1/comp", head(len(half))[:-2],
                         head(len(half)), head(len(half)) + half[:10],
                         head(len(half)) + half):
                c = s.raw()
                c.sendall(what)
                if k % 2:  # as those that are killed: reset
                    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 b"\1\0\0\0\0\0\0\0")
                if what.endswith(half) and k % 3:
                    c.recv(100)
                c.close()
        s.wait_for(s.idle, 5)
        assert ask(s.connect(), 2)[0] == 200
        assert s.metric("requests_gone_total") > 0


@case
def garbage_and_floods_are_refused():
    with Server() as s:
        before = s.memory()
        rng = random.Random(1)
        for k in range(5 if not whole else 50):
            c = s.raw()
            try:
                c.sendall(rng.randbytes(3000) if k % 2 else
                          b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20000)
                c.shutdown(socket.SHUT_WR)
                c.recv(1000)
            except OSError:
                pass
            c.close()
        for headers in ({}, {"Transfer-Encoding": "chunked"}):
            c = s.connect()
            block = b" " * 65536
            total = 100 << 20 if whole else 16 << 20
            c.request("POST", "/v1/completions",
                      (block for _ in range(total // len(block))),
                      headers or {"Content-Length": str(total)},
                      encode_chunked=bool(headers))
            r = c.getresponse()
            assert r.status == 413
            assert "--max-body" in json.loads(r.read())["error"]["message"]
            c.close()
        assert s.health() == 200
        assert s.memory() - before < 40 * slow, (s.memory(), before)


@case
def readers_that_do_not_read_hold_up_nobody():
    with Server() as s:
        held = []
        for _ in range(6):
            c = s.raw()
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            whole_body = body(400, stream=True, logprobs=20)
            c.sendall(head(len(whole_body)) + whole_body)
            held.append(c)
        begin = time.monotonic()
        assert ask(s.connect(), 4)[0] == 200
        assert time.monotonic() - begin < 20 * slow
        s.wait_for(s.idle, 60)  # their answers are complete all the same
        data = b""
        held[0].settimeout(20 * slow)
        while b"[DONE]" not in data[-100:]:
            more = held[0].recv(65536)
            assert more, data[-300:]
            data += more
        for c in held:
            c.close()
        assert s.health() == 200


@case
def readers_that_dawdle_are_closed():
    """One that takes nothing, and one that always takes a little, of an answer
    that is there. What fits into the buffers of sockets counts as taken: small
    segments make those small."""
    path = "/v1/chat/completions"
    talk = json.dumps({
        "messages": [{"role": "user", "content": "a"}], "stream": True,
        "max_tokens": 40, "min_tokens": 40, "n": 8, "seed": 1,
        "logprobs": True, "top_logprobs": 20}).encode()
    with Server("--idle", "3") as s:
        c = s.connect(600)
        c.request("POST", path, talk)
        size = len(c.getresponse().read())
        for rate in 0, 25000:  # bytes a second
            c = socket.socket()
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
            c.connect(("127.0.0.1", s.port))
            c.sendall(head(len(talk), path) + talk)
            c.settimeout(0.1)
            gone = s.metric("requests_gone_total")
            begin = time.monotonic()
            took = 0

            def closed():
                nonlocal took
                room = int(rate * (time.monotonic() - begin)) - took
                try:
                    took += len(c.recv(room)) if room > 0 else 0
                except OSError:
                    pass
                assert took < size * 3 // 4, (took, size)
                return s.metric("requests_gone_total") > gone
            s.wait_for(closed, 60)
            print(f"# {rate} bytes/s: closed after "
                  f"{time.monotonic() - begin:.1f} s, {took} of {size} bytes")
            c.close()


@case
def connections_have_a_limit():
    """From an address that nobody else uses: one that asked after the server's
    health may not be forgotten yet."""
    with Server("--connections", "64", "--address-connections", "8") as s:
        def connect(host):
            return socket.create_connection(("127.0.0.1", s.port), 60 * slow,
                                            (host, 0))
        held = [connect("127.0.0.3") for _ in range(8)]
        for c in held:
            c.sendall(b"GET /he")
        more = connect("127.0.0.3")
        more.settimeout(20 * slow)
        try:
            assert more.recv(10) == b""
        except ConnectionResetError:
            pass
        with connect("127.0.0.2") as other:
            other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 200")
        for c in held:
            c.sendall(b"alth HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert c.recv(100).startswith(b"HTTP/1.1 200")
            c.close()
        s.wait_for(lambda: s.health() == 200, 10)


@case
def sockets_that_are_idle_are_closed():
    # Each connection has its part of the budget.
    with Server("--idle", "1", "--connections", "2000",
                "--address-connections", "2000", ram="384M") as s:
        held = []
        for _ in range(1000 if whole else 100):
            held.append(s.raw())
        assert ask(s.connect(), 2)[0] == 200
        for c in held:
            c.settimeout(10 * slow)
            assert c.recv(10) == b""
            c.close()
        assert s.health() == 200


@case
def no_descriptor_left_is_survived():
    with Server("--idle", "2", "--connections", "400",
                "--address-connections", "400", nofile=64) as s:
        held = []
        for _ in range(100):
            c = s.raw()
            held.append(c)
        time.sleep(0.3)
        for c in held:
            c.close()
        s.wait_for(lambda: s.health() == 200, 10)
        assert ask(s.connect(), 2)[0] == 200


@case
def a_signal_lets_what_runs_end_and_a_second_does_not():
    for twice in False, True:
        with Server("--drain", "60") as s:
            got = []

            def client():
                try:
                    got.append(ask(s.connect(), 400, n=8))
                except (OSError, http.client.HTTPException, ValueError) as why:
                    got.append(why)

            t = threading.Thread(target=client)
            t.start()
            s.wait_for(lambda: s.metric("texts_active") > 0, 10)
            s.p.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            if twice:
                begin = time.monotonic()
                s.p.send_signal(signal.SIGTERM)
                assert s.p.wait(20 * slow) == 0
                assert time.monotonic() - begin < 3 * slow
                t.join()
                assert not isinstance(got[0], tuple) or got[0][0] == 503, got
            else:
                if s.p.poll() is None and not got:
                    assert s.health() == 503
                t.join()
                assert got[0][0] == 200, got
                assert s.p.wait(20 * slow) == 0


@case
def a_disk_that_fails_is_told_and_lived_through():
    copy = os.path.join(work, "model.gguf")
    shutil.copyfile(model, copy)
    size = os.path.getsize(copy)
    with Server(ram="least", file=copy) as s:
        got = []

        def client():
            got.append(ask(s.connect(), 400))

        t = threading.Thread(target=client)
        t.start()
        s.wait_for(lambda: s.metric("texts_active") > 0, 10)
        # What lies behind is read over and over; it is gone now.
        os.truncate(copy, size // 3)
        t.join()
        status, o = got[0]
        assert status in (500, 503), got
        assert "model.gguf" in o["error"]["message"], o
        assert s.health() == 503
        status, o = ask(s.connect(), 2)
        assert status == 503 and "cannot be used" in o["error"]["message"], o

        def put(name):
            with open(name, "rb") as f, open(copy, "r+b") as to:
                shutil.copyfileobj(f, to)
                to.truncate()

        # Another model is not taken for it.
        other = os.path.join(work, "other.gguf")
        subprocess.run([sluice, "synth", "tiny", "-Q", "-o", other],
                       check=True)
        put(other)
        s.wait_for(lambda: "any more" in ask(s.connect(), 2)[1]["error"]
                   ["message"], 30)
        assert s.health() == 503
        put(model)
        s.wait_for(lambda: s.health() == 200, 30)
        assert ask(s.connect(), 2)[0] == 200


print(f"1..{number}")
shutil.rmtree(work)
sys.exit(failed)
