"""Stage 1 with a teacher behind an OpenAI-compatible address.

The `openai` client sends the requests and repeats those that fail in passing. Here is
what it leaves open: many at a time, a limit on the whole of an attempt, answers that
are none, and errors that say what to do.
"""

import asyncio
import ipaddress
import json
import os
import random
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from threading import Thread
from urllib.parse import urlsplit

import httpx2  # what the openai client sends with
import openai

from ..tracks import Track
from .teachers import Reply, Request, Sampling

TRIES = 3  # for an answer that is broken or empty, and for a long Retry-After
PAUSE = 1.0  # seconds before a broken or empty answer is asked for again
EMPTY = "the answer is empty"


class TeacherError(RuntimeError):
    """The teacher cannot be asked at all; the message says what to do."""


class ApiTeacher:
    """The model called `model` at `url`, for instance `https://host.example/v1`.

    The key is read from the environment variable `key_variable` and kept nowhere; a
    server on this machine needs none, for another without keys write "". At most
    `concurrency` requests are under way at a time. `timeout` seconds limit one attempt
    from the connection to the last byte, the server's queue included. After a time-out,
    a lost connection, or a busy (429) or ill (5xx) server the client tries again,
    `retries` times, after the `Retry-After` of the server (up to `longest_wait`
    seconds), else after a growing, random pause. After `patience` failed requests in a
    row the run stops: a night of failures helps nobody. `extra_body` holds more fields
    of the request, and goes into the manifest; None takes a field out:
    `{"max_tokens": None, "max_completion_tokens": 500}`.

    The thoughts of a reasoning model are no part of its answer, neither a
    `reasoning_content` beside the text nor what stands before `</think>` in it; they
    count as completion tokens and towards `max_new_tokens`. Tokens are counted as the
    server reports them, repeated answers included; 0 where it reports none. A server
    may ignore `seed`: only the local teacher promises the same sample twice.

    Raises `TeacherError` for an address or a key that cannot work.
    """

    def __init__(
        self,
        model: str,
        url: str,
        key_variable: str = "OPENAI_API_KEY",
        *,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 5,
        longest_wait: float = 600.0,
        patience: int = 20,
        extra_body: dict | None = None,
    ):
        if min(concurrency, patience) < 1 or timeout <= 0 or retries < 0:
            raise ValueError(
                "concurrency and patience must be at least 1, timeout above 0 and "
                "retries at least 0"
            )
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise TeacherError(f"{url!r} is no address like https://host.example/v1")
        if address.username or address.password or address.query:
            raise TeacherError(
                "the address may not hold a password, a key or a query, because it is "
                "shown and written to files; the key belongs in the environment"
            )
        self.model, self.url, self.key_variable = model, url, key_variable
        self.host, self.local = address.hostname, _is_this_machine(address.hostname)
        self.concurrency, self.timeout, self.retries = concurrency, timeout, retries
        self.longest_wait, self.patience = longest_wait, patience
        self.extra_body = dict(extra_body or {})
        if self._key() and address.scheme == "http" and not self.local:
            warnings.warn(
                f"the key travels to {self.host} unencrypted; use https", stacklevel=2
            )

    @classmethod
    def of(cls, track: Track, **settings) -> "ApiTeacher":
        """The teacher of a track that has a `teacher_url`; settings as above."""
        if not track.teacher_url:
            raise TeacherError(
                f"the teacher of track {track.name!r} has no address; set "
                "COURSE_TRACK=api, or load it with models.load_teacher"
            )
        return cls(track.teacher, track.teacher_url, track.teacher_key, **settings)

    def __repr__(self) -> str:
        return f"ApiTeacher({self.model!r}, {self.url!r})"

    def describe(self) -> dict:
        """What the answers depend on, for the manifest."""
        # A local server gets another port at every start.
        server = "this machine" if self.local else self.host
        return {"model": self.model, "server": server, "extra_body": self.extra_body}

    def replies(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        """Yield (position of the request, reply) as replies arrive, one a request.

        A request is pulled when it can be sent. Where `requests` ends, those under way
        are waited for; where the caller stops listening, they are broken off. Failures
        are replies with `error`. Raises `TeacherError` where no request can succeed,
        after the replies that are under way.
        """
        source = enumerate(requests)
        waiting = {}  # future -> position
        failed, stop = 0, None
        client = self._client()
        with _other_thread(client) as loop:
            while True:
                while not stop and len(waiting) < self.concurrency:
                    position, request = next(source, (None, None))
                    if request is None:
                        break
                    ask = self._ask(client, request, sampling)
                    waiting[asyncio.run_coroutine_threadsafe(ask, loop)] = position
                if not waiting:
                    break
                # Without a time-out, Ctrl-C would not get through on Windows.
                done, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    position, outcome = waiting.pop(future), future.result()
                    if isinstance(outcome, TeacherError):
                        stop = stop or outcome
                        continue
                    yield position, outcome
                    failed = failed + 1 if outcome.error else 0
                    if failed == self.patience:
                        stop = stop or TeacherError(
                            f"{failed} requests in a row failed, the last with: "
                            f"{outcome.error}. Mend that and run again: finished "
                            "answers are kept"
                        )
        if stop:
            raise stop

    async def _ask(
        self, client: openai.AsyncOpenAI, request: Request, sampling: Sampling
    ) -> Reply | TeacherError:
        """Ask until there is an answer, or a reason why there is none."""
        fields = {
            "temperature": sampling.sampling_temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": request.seed % 2**31,  # what every server can hold
            **self.extra_body,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        prompt_tokens = completion_tokens = 0
        for attempt in range(TRIES):
            outcome, pause = await self._once(client, request.messages, fields)
            if isinstance(outcome, TeacherError):
                return TeacherError(_clean(str(outcome), client.api_key)[:1000])
            prompt_tokens += outcome.prompt_tokens
            completion_tokens += outcome.completion_tokens
            if not pause or attempt == TRIES - 1:
                break
            await asyncio.sleep(pause * random.uniform(1, 1.25))
        return replace(
            outcome,
            text=_clean(outcome.text, client.api_key),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            error=_clean(outcome.error, client.api_key)[:300],
        )

    async def _once(
        self, client: openai.AsyncOpenAI, messages: list[dict], fields: dict
    ) -> tuple[Reply | TeacherError, float]:
        """What one call brings, and the seconds after which to try again (0: do not).

        The client has tried again already, except where the server asks to wait for
        more than two minutes, and where it sent something that is no answer.
        """
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, extra_body=fields
            )
            reply = _read(raw.text)
        except openai.APIStatusError as error:
            pause = _retry_after(error.response.headers)
            return self._refused(error, pause), pause
        except openai.APIConnectionError as error:
            return self._unreachable(error), 0
        except ValueError as error:
            return Reply.failed(str(error)), PAUSE
        return reply, PAUSE if reply.error == EMPTY else 0

    def _refused(
        self, error: openai.APIStatusError, pause: float
    ) -> Reply | TeacherError:
        """Why the server said no: about this request, or about all of them."""
        said = error.body.get("message") if isinstance(error.body, dict) else None
        said = f"{error.status_code}: {said or error.body or error.message}"
        advice = {
            401: f"{self.host} does not accept the key: set the environment variable "
            f"{self.key_variable or '(and name it in key_variable)'} to a valid one",
            402: f"nothing is left to pay {self.host} with: top up, then run again",
            403: f"the key in {self.key_variable} may not use {self.model!r}: allow it "
            f"at {self.host}, or choose another model",
            404: f"there is no model {self.model!r} at {self.url}: check the name and "
            "the address, which mostly ends in /v1",
        }.get(402 if error.code == "insufficient_quota" else error.status_code)
        if error.status_code == 403 and "flagged" in said:  # by a filter on the prompt
            advice = None
        if pause > self.longest_wait:
            advice = (
                f"{self.host} asks to wait for {pause / 60:,.0f} minutes: run again "
                "then, finished answers are kept"
            )
        return TeacherError(f"{advice} ({said})") if advice else Reply.failed(said)

    def _unreachable(self, error: openai.APIConnectionError) -> Reply | TeacherError:
        cause = error.__cause__
        if isinstance(
            cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError
        ):
            return TeacherError(
                f"no server answers at {self.url} ({cause or type(cause).__name__}): "
                "start it, or check the address and the network"
            )
        if isinstance(error, openai.APITimeoutError):
            return Reply.failed(f"no complete answer within {self.timeout:g} s")
        return Reply.failed(f"the connection broke: {cause}")

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip() if self.key_variable else ""
        if not key and self.key_variable and not self.local:
            raise TeacherError(
                f"{self.host} needs a key: put yours into the environment variable "
                f"{self.key_variable} before you start Jupyter, or in a cell with "
                f"`os.environ['{self.key_variable}'] = getpass.getpass()`"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise TeacherError(
                f"{self.key_variable} holds a space, a line break or a letter that no "
                "key has: copy the key again"
            )
        return key

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self._key() or "none",
            timeout=httpx2.Timeout(self.timeout, connect=min(10, self.timeout / 2)),
            max_retries=self.retries,
            # A proxy is the way to the web, not to this machine.
            http_client=_Http(self.timeout, trust_env=not self.local),
        )


@contextmanager
def _other_thread(client: openai.AsyncOpenAI) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own: the thread of a notebook has one already.

    At the end, also an early one, what is under way is cancelled.
    """
    loop = asyncio.new_event_loop()

    async def end() -> None:
        asks = asyncio.all_tasks() - {asyncio.current_task()}
        for ask in asks:
            ask.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        await client.close()

    def run() -> None:
        loop.run_forever()
        loop.run_until_complete(end())
        loop.close()

    thread = Thread(target=run, name="api-teacher", daemon=True)
    try:
        thread.start()
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        if thread.is_alive():  # it is not yet where its start was interrupted
            thread.join(timeout=2)  # at the end of Python other threads stand still


class _Http(httpx2.AsyncClient):
    """Limits the whole of an attempt; by itself httpx limits only each wait for bytes,
    and a server that sends one a second is never done."""

    def __init__(self, seconds: float, *, trust_env: bool):
        super().__init__(
            follow_redirects=True, trust_env=trust_env, limits=httpx2.Limits()
        )
        self.seconds = seconds

    async def send(self, request: httpx2.Request, **settings) -> httpx2.Response:
        try:
            async with asyncio.timeout(self.seconds):
                return await super().send(request, **settings)
        except TimeoutError:
            raise httpx2.ReadTimeout("too slow", request=request) from None


def answer_only(text: str) -> str:
    """The text without the thoughts of a reasoning model: what follows `</think>`."""
    thoughts, mark, answer = text.partition("</think>")
    if mark:
        return answer.strip()
    return "" if text.lstrip().startswith("<think>") else text.strip()


def _read(text: str) -> Reply:
    """A chat completion as a reply; `ValueError` where the text is none."""
    try:
        completion = json.loads(text)
        choice = completion["choices"][0]
        message = choice["message"]
        answer = answer_only(message.get("content") or "")
        refusal = message.get("refusal")
        reason = str(choice.get("finish_reason"))
        usage = completion.get("usage") or {}
        kinds = ("prompt_tokens", "completion_tokens")
        tokens = {kind: int(usage.get(kind) or 0) for kind in kinds}
    except Exception:  # whatever may be wrong with what a stranger's server sends
        raise ValueError(f"the server sent no chat completion: {text}") from None
    why = ""
    if refusal or reason == "content_filter":
        why = f"refused: {refusal or 'stopped by the content filter'}"
    elif "tool" in reason or "function" in reason:
        why = "the teacher called a tool instead of answering"
    elif "length" in reason and not answer:
        why = "cut before the answer began: raise max_new_tokens"
    elif not answer:
        why = EMPTY
    if why:
        return Reply.failed(why, **tokens)
    # Some servers write "model_length".
    return Reply(answer, "length" if "length" in reason else "stop", **tokens)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait: as a number or a date (RFC 9110), else 0."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0
    return seconds if seconds > 0 else 0  # "nan" too is 0


def _clean(text: str, key: str) -> str:
    """Text that can be stored: without the key, and without halves of characters."""
    if len(key) >= 8:  # shorter ones, such as "none", are no secrets
        text = text.replace(key, "[key]")
    return text.encode("utf-8", "replace").decode()


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
