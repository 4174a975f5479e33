"""Whis Box: a SOC copilot that is one folder.

Nothing here may reach a network: the switches below keep libraries that know a model hub from asking it, and
onnxruntime, whose Linux wheel reports its use to its maker, from doing so.
"""

import os

# Set before any library that reads them is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

__version__ = "0.1.0"
