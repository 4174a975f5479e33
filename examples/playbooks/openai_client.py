"""The official `openai` client, unchanged: python examples/playbooks/openai_client.py [BASE_URL]."""

from __future__ import annotations

import os
import sys

import openai


def main(base_url: str) -> None:
    """Ask once whole and once streamed, and print the sources."""
    client = openai.OpenAI(base_url=f"{base_url}/v1", api_key=os.environ.get("WHIS_KEY", "none"))
    question = "What does logon type 10 mean?"
    done = client.chat.completions.create(model="whis", messages=[{"role": "user", "content": question}])
    print(done.choices[0].message.content)
    for citation in (done.choices[0].message.model_extra or {})["whis"]["citations"]:
        print(f"  [{citation['n']}] {citation['title']}: {citation['quote']}")
    stream = client.chat.completions.create(
        model="whis", messages=[{"role": "user", "content": question}], stream=True
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            print(chunk.choices[0].delta.content, end="", flush=True)
    print()
    client.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8088")
