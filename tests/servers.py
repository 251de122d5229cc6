"""A server on loopback that answers as an OpenAI-compatible one, and misbehaves when
told to: each prompt says what happens at its first request, its second, and so on."""

import json
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class FaultServer(ThreadingHTTPServer):
    """The last user message is a script: `"500 cut fine #7"` is answered with a 500,
    then with half a body, and from then on with `answer to <the whole message>`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.requests = []  # (seconds, script, body, headers)
        self.busy = self.most_busy = 0

    def times(self, script: str) -> list[float]:
        """When this prompt was asked, in seconds after its first time."""
        times = [when for when, asked, *_ in self.requests if asked == script]
        return [when - times[0] for when in times]

    def handle_error(self, *_):  # a client that hangs up is part of the tests
        pass


@contextmanager
def fault_server():
    server = FaultServer()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def completion(text, finish_reason="stop", usage=USAGE, **message) -> dict:
    message = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**body, "choices": [choice], **({"usage": usage} if usage else {})}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body at once, not 40 ms apart

    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script = body["messages"][-1]["content"]
        with server.lock:
            step = sum(asked == script for _, asked, *_ in server.requests)
            server.requests.append((time.time(), script, body, self.headers))
            server.busy += 1
            server.most_busy = max(server.busy, server.most_busy)
        actions = script.split(" #")[0].split()
        try:
            self.act(actions[min(step, len(actions) - 1)], f"answer to {script}")
        finally:
            with server.lock:
                server.busy -= 1

    def act(self, action: str, answer: str) -> None:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        match action:
            case "fine":
                self.send(completion(answer))
            case "slow":
                time.sleep(0.1)
                self.send(completion(answer))
            case "wait":  # a busy server, with what it asks for in seconds ...
                self.fail(429, "slow down", {"Retry-After": "0.4"})
            case "date":  # ... as a date, which has whole seconds ...
                date = formatdate(time.time() + 2, usegmt=True)
                self.fail(429, "slow down", {"Retry-After": date})
            case "long":  # ... and for longer than the client waits by itself
                self.fail(429, "slow down", {"Retry-After": "1"})
            case "tomorrow":
                self.fail(429, "daily limit", {"Retry-After": "86400"})
            case "quota":
                self.fail(429, "pay first", code="insufficient_quota")
            case "echo":
                self.fail(500, f"bad key {key}, said 'Bearer {key}'")
            case "far":  # the key just where a long error is cut
                self.fail(400, "x" * 280 + key)
            case "say":
                self.send(completion(f"your key is {key}"))
            case "broken":  # its header announces JSON, the text is half of it
                self.send(json.dumps(completion(answer))[:60] + key)
            case "html":
                self.send(f"<html>log in, {key}</html>", kind="text/html")
            case "shape":
                self.send({"choices": [], "error": {"message": f"no model for {key}"}})
            case "cut":
                self.send(completion(answer), announced=10_000)
            case "reset":
                self.close_connection = True
            case "hang":
                self.server.closing.wait(30)
                self.close_connection = True
            case "trickle":
                self.send(completion(answer), pause=0.05)
            case "heads":  # even the headers never come to an end
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not self.server.closing.wait(0.05):
                    self.wfile.write(b"X-More: 1\r\n")
            case "empty":
                self.send(completion(" \n"))
            case "refuse":
                self.send(completion(None, refusal="I will not say that."))
            case "filter":
                self.send(completion("half an ", "content_filter"))
            case "flagged":
                self.fail(403, "your input was flagged")
            case "tool":
                self.send(completion(None, "tool_calls"))
            case "length":
                self.send(completion(answer, "length"))
            case "thinking":
                self.send(completion("<think>Let me see", "length"))
            case "think":
                self.send(completion(f"<think>Let me see.</think>\n{answer}"))
            case "reason":
                self.send(completion(answer, reasoning_content="Let me see."))
            case "half":  # one half of a character, as JSON may hold it
                self.send(completion("good \ud83d"))
            case "uncounted":
                self.send(completion(answer, usage=None))
            case status:
                self.fail(int(status), f"no ({key})")

    def fail(self, status, message, headers=(), code=None) -> None:
        error = {"error": {"message": message, "code": code}}
        self.send(error, status=status, headers=headers)

    def send(
        self,
        body,
        status=200,
        headers=(),
        kind="application/json",
        announced=None,
        pause=0.0,
    ) -> None:
        body = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(announced or len(body.encode())))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        if not pause:
            self.wfile.write(body.encode())
        for byte in body.encode() if pause else b"":
            self.wfile.write(bytes([byte]))
            time.sleep(pause)
        self.close_connection = announced is not None
