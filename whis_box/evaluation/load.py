"""Load for a text generator: prompts of our own shaped like the box's, and a closed loop that sends them.

Invariant: the same seed gives the same requests, so two generators can be compared on equal work.
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from whis_box.engine.protocol import GenerateRequest
from whis_box.errors import WhisError
from whis_box.prompts import chat

Shape = Literal["rag", "plain"]

SYSTEM = (
    "You are a SOC analyst's assistant. You judge one alert from the numbered passages and from nothing "
    "else. Answer with one JSON object: the verdict, the severity, the numbers of the passages you used, "
    "and one short reason. A verdict that closes an alert needs a passage that says so."
)
SCHEMA = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["true_positive", "benign_true_positive", "false_positive", "needs_review"]},
        "severity": {"enum": ["informational", "low", "medium", "high", "critical"]},
        "passages": {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "minItems": 1, "maxItems": 2},
        "reason": {"type": "string", "minLength": 20, "maxLength": 80},
    },
    "required": ["verdict", "severity", "passages", "reason"],
    "additionalProperties": False,
}
SUBJECTS = (
    "a service account logs on interactively",
    "the audit log is cleared",
    "a scheduled task runs a script from a profile folder",
    "an office program starts a shell",
    "a new service points to a temporary folder",
    "many logons fail from one address",
    "a tool reads the memory of lsass.exe",
    "a firewall rule opens a port",
)
REMARKS = (
    "Check the account's owner before anything else, because administrators do this during maintenance.",
    "It counts as an attack when the same host shows a second unusual event within the hour.",
    "Backup software does the same every night; its process is signed and its path never changes.",
    "Compare the parent process with the baseline of the last thirty days and note the difference.",
    "Isolate the host when the file's hash is unknown and the account has rights on a server.",
)
HOSTS = ("ws-017", "srv-db-02", "dc-01", "ws-233", "mail-01", "jump-04")
PLAIN_TOKENS = 64


@dataclass(frozen=True)
class Served:
    """One answered request; times as the caller saw them."""

    ttft_s: float
    total_s: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    text: str = ""


@dataclass(frozen=True)
class Load:
    """What one level of concurrency gave."""

    concurrency: int
    n_requests: int
    n_failed: int
    seconds: float
    served: tuple[Served, ...]

    @property
    def requests_per_s(self) -> float:
        """Answered requests per second."""
        return len(self.served) / self.seconds

    @property
    def ttft_p50_s(self) -> float:
        """Median time to the first text."""
        return statistics.median(one.ttft_s for one in self.served)

    def tokens_per_s(self) -> float:
        """Completion tokens per second, of all requests together."""
        return sum(one.completion_tokens for one in self.served) / self.seconds

    def as_dict(self) -> dict[str, float]:
        """One row of the table."""
        latencies = sorted(one.total_s for one in self.served)
        prompt = sum(one.prompt_tokens for one in self.served)
        return {
            "concurrency": self.concurrency,
            "requests": self.n_requests,
            "failed": self.n_failed,
            "requests_per_s": round(self.requests_per_s, 3),
            "alerts_per_hour": round(3600 * self.requests_per_s),
            "completion_tokens_per_s": round(self.tokens_per_s(), 1),
            "ttft_p50_s": round(self.ttft_p50_s, 3),
            "total_p50_s": round(statistics.median(latencies), 3),
            "total_p95_s": round(latencies[int(0.95 * (len(latencies) - 1))], 3),
            "prompt_tokens_mean": round(prompt / len(self.served), 1),
            "cached_share": round(sum(one.cached_tokens for one in self.served) / prompt, 3),
        }


def requests(shape: Shape, count: int, seed: int, deadline_s: float = 600.0) -> list[GenerateRequest]:
    """`rag`: one system prompt, four passages of 24 in stable order, an alert, JSON out. `plain`: no text in
    common, free output of a fixed length."""
    rng = random.Random(f"{shape}:{seed}")
    if shape == "plain":
        return [
            GenerateRequest(
                (
                    ("<|im_start|>user\n", True),
                    (_unshared(rng), False),
                    ("<|im_end|>\n<|im_start|>assistant\n", True),
                ),
                max_tokens=PLAIN_TOKENS,
                deadline_s=deadline_s,
            )
            for _ in range(count)
        ]
    passages = [_passage(number) for number in range(24)]
    grammar = "start: %json " + json.dumps({**SCHEMA, "x-guidance": {"whitespace_flexible": False}})
    made = []
    for _ in range(count):
        topic = rng.randrange(
            6
        )  # alerts of one kind find the same passages, with one of their own now and then
        chosen = sorted(
            {4 * topic, 4 * topic + 1, 4 * topic + 2, rng.choice((4 * topic + 3, rng.randrange(24)))}
        )
        shown = "\n".join(f"[{n}] {passages[one]}" for n, one in enumerate(chosen, start=1))
        prompt = chat(SYSTEM, f"Passages:\n{shown}\n\nAlert:\n{_alert(rng, topic)}")
        made.append(GenerateRequest(prompt, grammar, max_tokens=96, deadline_s=deadline_s))
    return made


def _passage(number: int) -> str:
    rng = random.Random(number)
    subject, host = SUBJECTS[number % len(SUBJECTS)], rng.choice(HOSTS)
    remarks = " ".join(rng.sample(REMARKS, 2))
    return f"Event {4600 + number}: on {host} this means that {subject}. {remarks}"


def _alert(rng: random.Random, topic: int) -> str:
    fields = {
        "rule": f"Rule {topic}: {SUBJECTS[topic]}",
        "host": rng.choice(HOSTS),
        "user": f"user{rng.randrange(1000)}",
        "process": f"C:\\Users\\Public\\{rng.randrange(10**6)}.exe",
        "source_ip": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
        "count": rng.randrange(1, 500),
    }
    return "\n".join(f"{name}: {value}" for name, value in fields.items())


def _unshared(rng: random.Random) -> str:
    words = [rng.choice(REMARKS).split()[rng.randrange(6)] + str(rng.randrange(100)) for _ in range(170)]
    return f"{rng.randrange(10**9)} " + " ".join(words)


def run(send: Callable[[GenerateRequest], Served], load: Sequence[GenerateRequest], concurrency: int) -> Load:
    """Send every request, `concurrency` at a time, each as soon as one is answered."""
    waiting = list(reversed(load))
    served: list[Served] = []
    failed = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal failed
        while True:
            with lock:
                if not waiting:
                    return
                request = waiting.pop()
            try:
                one = send(request)
            except WhisError:
                with lock:
                    failed += 1
                continue
            with lock:
                served.append(one)

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(concurrency, len(load), failed, time.perf_counter() - started, tuple(served))
