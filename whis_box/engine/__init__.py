"""libllama and nothing else: CPU backend, weights, lanes, grammar, the child process and its supervisor.

Invariant: only `worker` (a child process) ever holds a llama object; everything else talks to it through
frames.
"""
