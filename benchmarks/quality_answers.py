"""QA: a language model answers from the context that the memory gives for the question."""

import argparse
import json
import os
import time

from benchmarks.quality_client import Http, RefusedError
from benchmarks.quality_options import PUBLIC_LLM_URL

TRIES_MAX = 5
WAIT_S = 0.5

OK, BUSY, FAILED = 200, 429, 500

PROMPT = """Answer the question from the context below, which is what a memory kept of earlier conversations. Use \
nothing but the context, and be brief. If it does not hold the answer, reply exactly: I don't know

Context:
{context}

Question: {question}
Answer:"""


class Answerer:
    """A language model behind any server that speaks OpenAI's chat protocol."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Connect to nothing yet.

        Raises:
            RefusedError: OpenAI's own server was meant, and there is no key.
        """
        key = os.environ.get(options.llm_api_key_env, "")
        if not key and options.llm_base_url == PUBLIC_LLM_URL:
            raise RefusedError(
                f"{options.llm_api_key_env} is not set: set it, name another variable with --llm-api-key-env, or a "
                "server that needs no key with --llm-base-url"
            )
        self._http = Http(options.llm_base_url, options.timeout_secs)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._model = options.llm_model

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def answer(self, question: str, context: str) -> str:
        """Return what the model says.

        Raises:
            RefusedError: It says nothing, also after retries.
        """
        prompt = PROMPT.format(context=context, question=question)
        asked = {"model": self._model, "temperature": 0, "messages": [{"role": "user", "content": prompt}]}
        wait_s = WAIT_S
        for tries_left in reversed(range(TRIES_MAX)):
            status, body = self._http.send("POST", "/chat/completions", asked, self._headers)
            if status == OK:
                return _text(body)
            if not tries_left or (status != BUSY and status < FAILED):
                raise RefusedError(f"the language model answered {status}: {body[:300].decode(errors='replace')}")
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("the last try returns or raises")


def _text(body: bytes) -> str:
    try:
        return str(json.loads(body)["choices"][0]["message"]["content"] or "").strip()
    except (ValueError, KeyError, IndexError, TypeError):
        raise RefusedError(f"the language model sent no answer: {body[:300].decode(errors='replace')}") from None
