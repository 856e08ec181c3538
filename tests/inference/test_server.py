"""tlfast serve: the answers are the classifier's, good requests go on being answered, bad ones get a reason."""

from __future__ import annotations

import asyncio
import html
import http.client
import io
import json
import logging
import os
import re
import signal
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.datastructures import Headers
from starlette.requests import Request

from tests.helpers.serving import IMAGE, ask, serving_at
from tlfast.core import errors
from tlfast.inference import batching, uploads
from tlfast.inference import server as server_module
from tlfast.inference.host_check import allow_hosts
from tlfast.inference.request_log import JsonHandler

BOUNDARY = "frontier"
LIMITS = uploads.Limits(body=200_000, files=4, pixels=1_000_000, seconds=1.0)


@pytest.fixture(scope="module")
def port(classifier):
    with serving_at(classifier, limits=LIMITS) as (port, _):
        yield port


def png(seed=0, size=(40, 30)):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def form(*files, field="file"):
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def test_answers_are_the_classifiers(port, classifier):
    status, answer = ask(port, "POST", "/predict", form(("a.png", png(1)), ("ü b.png", png(2, (9, 50)))), FORM)
    assert status == 200 and answer["run"] == "r" and [p["name"] for p in answer["predictions"]] == ["a.png", "ü b.png"]
    for predicted, data in zip(answer["predictions"], (png(1), png(2, (9, 50))), strict=True):
        assert predicted["probabilities"] == pytest.approx(classifier.predict(data).probabilities, abs=1e-6)
    status, answer = ask(port, "POST", "/predict?top=1", png(1), IMAGE)
    assert status == 200 and len(answer["predictions"][0]["probabilities"]) == 1


def test_a_large_form_needs_no_temporary_folder(classifier, monkeypatch):
    def refuse(*args, **options):
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    data = png(size=(800, 700))
    assert len(data) > 1_500_000  # more than the form parser keeps in memory by default
    with serving_at(classifier) as (port, _):
        assert ask(port, "POST", "/predict", form(("a.png", data)), FORM)[0] == 200


def test_what_else_it_says(port):
    assert ask(port, path="/healthz") == (200, {"status": "ok"})
    status, model = ask(port, path="/model")
    assert status == 200 and model["classes"] == ["ant", "bee", "cat"] and model["info"]["size"] == "32"
    status, described = ask(port, path="/openapi.json")
    assert status == 200 and set(described["paths"]) == {"/predict", "/model", "/health", "/metrics"}
    status, docs = ask(port, path="/docs")
    assert status == 200 and "POST /predict" in docs
    status, page = ask(port)
    assert status == 200 and "<main>" in page
    for text in (page, docs):
        assert 'src="http' not in text and 'href="http' not in text and "@import" not in text


def jpeg():
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(3, (200, 200)))).save(buffer, "JPEG")
    return buffer.getvalue()


def bomb():
    """A header that promises 30,000 x 30,000 pixels."""
    data = bytearray(png())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


BAD = {
    "empty body": (422, b"", IMAGE),
    "empty form": (422, b"", FORM),
    "form without parts": (422, f"--{BOUNDARY}--\r\n".encode(), FORM),
    "empty file": (422, form(("a.png", b"")), FORM),
    "text": (422, b"hello", IMAGE),
    "text in a form": (422, form(("a.png", b"hello")), FORM),
    "truncated png": (422, png()[:200], IMAGE),
    "truncated jpeg": (422, jpeg()[:300], IMAGE),
    "one bad of two": (422, form(("a.png", png()), ("b.png", png()[:99])), FORM),
    "bomb": (422, bomb(), IMAGE),
    "too many pixels": (422, png(0, (1, 1))[:8] + bomb()[8:], IMAGE),
    "wrong field": (422, form(("a.png", png()), field="picture"), FORM),
    "no content type": (415, png(), {}),
    "json": (415, b"{}", {"Content-Type": "application/json"}),
    "html": (415, b"<p>", {"Content-Type": "text/html"}),
    "form without a boundary": (422, form(("a.png", png())), {"Content-Type": "multipart/form-data"}),
    "wrong boundary": (422, form(("a.png", png())), {"Content-Type": "multipart/form-data; boundary=other"}),
    "form that ends early": (422, form(("a.png", png()))[:40], FORM),
    "form of noise": (422, bytes(range(256)) * 4, FORM),
    "too many files": (413, form(*[(f"{i}.png", png()) for i in range(5)]), FORM),
    "too large": (413, b"x" * 300_000, IMAGE),
    "too large form": (413, form(("a.png", b"x" * 300_000)), FORM),
    "svg": (422, b"<svg xmlns='http://www.w3.org/2000/svg'/>", {"Content-Type": "image/svg+xml"}),
    "pickle": (422, b"\x80\x04N.", {"Content-Type": "application/octet-stream"}),
    "text field of that name": (422, f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--{BOUNDARY}--\r\n'.encode(), FORM),
    "name with a path": (422, form(("../../etc/passwd", b"root")), FORM),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_gets_a_reason_and_harms_nobody(port, kind):
    wanted, body, headers = BAD[kind]
    status, answer = ask(port, "POST", "/predict", body, headers)
    assert (status, list(answer)) == (wanted, ["error"]) and len(answer["error"]) > 5, answer
    assert ask(port, "POST", "/predict", png(1), IMAGE)[0] == 200


@pytest.mark.parametrize(("method", "path", "wanted"), [
    ("GET", "/predict", 405), ("PUT", "/predict", 405), ("POST", "/", 405), ("GET", "/../../etc/passwd", 404), ("GET", "/page.html", 404),
    ("POST", "/predict?top=0", 422), ("POST", "/predict?top=x", 422), ("POST", "/predict?top=-1", 422), ("POST", "/predict?top=", 422),
])  # fmt: skip
def test_wrong_addresses_and_parameters(port, method, path, wanted):
    status, answer = ask(port, method, path, png(), IMAGE)
    assert status == wanted and answer["error"]


def test_a_large_number_of_classes_is_all_of_them(port):
    assert len(ask(port, "POST", "/predict?top=" + "9" * 500, png(), IMAGE)[1]["predictions"][0]["probabilities"]) == 3


def raw(port, data, wait=5.0):
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while block := connection.recv(65536):
                answer += block
        except TimeoutError:
            pass
    return answer


def test_a_slow_sender_is_told_so_while_others_are_served(port):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(raw, port, head)
        assert ask(port, "POST", "/predict", png(1), IMAGE)[0] == 200
        answer = slow.result()
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive within 1 seconds" in answer


@pytest.mark.parametrize("sent", [b"", b"POST /pre", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Ty", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_arrive_is_not_waited_for(port, sent):
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(raw, port, sent)
        assert ask(port, "POST", "/predict", png(1), IMAGE)[0] == 200
        answer = slow.result()
    assert answer.startswith(b"HTTP/1.1 408") and b"the request headers did not arrive within 1 seconds" in answer


def test_a_head_without_an_end_is_cut_off(port):
    assert raw(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000, 3).startswith(b"HTTP/1.1 431")
    assert ask(port, path="/healthz")[0] == 200


def test_a_connection_may_bring_many_requests_at_its_leisure(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for _ in range(4):  # longer in all than a head may take
        connection.request("POST", "/predict", png(1), IMAGE)
        response = connection.getresponse()
        assert response.status == 200 and response.read()
        time.sleep(0.4)
    connection.sock.sendall(b"GET /hea")
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 408")
    connection.close()


def test_a_hundred_megabytes_are_refused_before_they_are_sent(port):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 104857600\r\n\r\n"
    assert raw(port, head, 0.9).startswith(b"HTTP/1.1 413")


def test_more_than_was_announced_is_cut_off(port):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"4000\r\n" + b"x" * 0x4000 + b"\r\n" for _ in range(20))
    assert raw(port, head + chunks, 2).startswith(b"HTTP/1.1 413")


def test_junk_instead_of_http(port):
    assert raw(port, b"\x16\x03\x01junk\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert ask(port, path="/healthz")[0] == 200


def test_many_at_once_are_all_answered_as_alone(port, classifier):
    alone = [classifier.predict(png(seed)).probabilities for seed in range(8)]

    def request(i):
        status, answer = ask(port, "POST", "/predict", png(i % 8), IMAGE)
        assert status == 200
        return answer["predictions"][0]["probabilities"]

    with ThreadPoolExecutor(32) as pool:
        for i, answer in enumerate(pool.map(request, range(200))):
            assert answer == pytest.approx(alone[i % 8], abs=1e-6)


def test_decoded_images_wait_for_memory(classifier, monkeypatch):
    monkeypatch.setattr(server_module, "MemoryBudget", lambda: batching.MemoryBudget(limit=1))  # one image at a time
    files = [(f"{seed}.png", png(seed)) for seed in range(20)]
    with serving_at(classifier) as (port, _):
        status, answer = ask(port, "POST", "/predict", form(*files), FORM)
        assert status == 200 and [p["name"] for p in answer["predictions"]] == [name for name, _ in files]


def test_bodies_of_requests_wait_for_memory(classifier, monkeypatch):
    monkeypatch.setattr(server_module, "MemoryBudget", lambda: batching.MemoryBudget(limit=1))  # one request at a time
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc"
    begun = []
    read_files = server_module.read_files

    async def record(request, *arguments):
        begun.append(request.headers["content-length"])
        return await read_files(request, *arguments)

    monkeypatch.setattr(server_module, "read_files", record)
    with serving_at(classifier, limits=uploads.Limits(seconds=1.0)) as (port, _), ThreadPoolExecutor(2) as pool:
        slow = pool.submit(raw, port, head)
        while not begun:
            time.sleep(0.01)
        waiting = pool.submit(ask, port, "POST", "/predict", png(), IMAGE)
        assert slow.result().startswith(b"HTTP/1.1 408") and begun == ["1000", str(len(png()))][: len(begun)]
        assert waiting.result()[0] == 200 and len(begun) == 2


@pytest.mark.parametrize(("headers", "size"), [({"content-length": "7"}, 7), ({"content-length": "101"}, 0), ({}, 100)])
def test_a_body_of_unknown_size_may_be_as_large_as_the_limit(headers, size):
    assert uploads.count_body_bytes(Request({"type": "http", "headers": Headers(headers).raw}), uploads.Limits(body=100)) == size


@pytest.mark.parametrize(("mode", "bytes_per_pixel"), [("RGB", 8), ("RGBA", 20), ("I;16", 28)])
def test_the_memory_for_decoding_depends_on_the_mode(mode, bytes_per_pixel):
    file = io.BytesIO()
    Image.new(mode, (30, 20)).save(file, "PNG")
    assert server_module._measure_upload(file.getvalue(), 600) == 600 * bytes_per_pixel


def test_a_memory_budget_is_kept_and_admits_one_image_of_any_size():
    async def decode(sizes):
        budget, most = batching.MemoryBudget(limit=1000), []

        async def hold(size):
            async with budget.reserve(size):
                most.append(budget.used)
                await asyncio.sleep(0)

        await asyncio.gather(*map(hold, sizes))
        assert budget.used == 0
        return most

    assert max(asyncio.run(decode([400] * 7))) == 800
    assert asyncio.run(decode([5000, 300, 5000])) == [5000, 300, 5000]


def test_memory_that_only_the_decoding_needs_is_given_back():
    async def decode():
        budget = batching.MemoryBudget(limit=1000)
        async with budget.reserve(900) as keep:
            keep(300)
            async with budget.reserve(700):  # which waits for more memory otherwise
                assert budget.used == 1000
        assert budget.used == 0

    asyncio.run(asyncio.wait_for(decode(), 10))


def test_the_example_of_the_page_of_the_api(classifier):
    with serving_at(classifier, token="secret", root_path="/plants") as (port, _):
        _, docs = ask(port, path="/docs")
    assert html.unescape(re.search("<pre>(.*?)</pre>", docs)[1]) == (
        f'curl -F file=@photo.jpg -H "Authorization: Bearer TOKEN" "http://127.0.0.1:{port}/plants/predict?top=3"'
    )


def test_serving_in_a_notebook(classifier):
    """A cell runs within an event loop; its interruption stops the server."""
    answers = []

    def started(url):
        def request_and_interrupt():
            answers.append(ask(int(url.rsplit(":", 1)[1]), path="/healthz"))
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=request_and_interrupt).start()

    async def cell():
        server_module.serve(server_module.Service(classifier), "127.0.0.1", 0, started)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(cell())
    loop.close()
    assert answers == [(200, {"status": "ok"})]


def test_a_token(classifier):
    with serving_at(classifier, token="wörd") as (port, _):
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "wrong"}):
            assert ask(port, "POST", "/predict", png(), {**IMAGE, **headers})[0] == 401
            assert ask(port, path="/model", headers=headers)[0] == 401
        assert ask(port, path="/healthz")[0] == ask(port)[0] == 200
        assert ask(port, path="/model", headers={"Authorization": "bearer wörd".encode()})[0] == 200
        assert ask(port, path="/model", headers={"Authorization": "Basic wörd".encode()})[0] == 401
        assert ask(port, "POST", "/predict", png(), {**IMAGE, "Authorization": "Bearer wörd".encode()})[0] == 200


@pytest.mark.parametrize(("limits", "wanted"), [({"requests": 2}, 503), ({"per_client": 2}, 429)])
def test_too_many_at_once_are_refused_and_later_ones_served(classifier, limits, wanted):
    with serving_at(classifier, limits=uploads.Limits(seconds=1.5, **limits)) as (port, _), ThreadPoolExecutor(2) as pool:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc"
        slow = [pool.submit(raw, port, head) for _ in range(2)]
        time.sleep(0.5)
        status, answer = ask(port, "POST", "/predict", png(), IMAGE)
        assert status == wanted and "requests" in answer["error"]
        assert all(each.result().startswith(b"HTTP/1.1 408") for each in slow)
        assert ask(port, "POST", "/predict", png(), IMAGE)[0] == 200


def test_stopping_finishes_what_has_begun(classifier, monkeypatch):
    begun = threading.Event()
    predict_batch = batching._predict_batch

    def slowly(*arguments):
        begun.set()
        time.sleep(0.7)
        return predict_batch(*arguments)

    monkeypatch.setattr(batching, "_predict_batch", slowly)
    with serving_at(classifier) as (port, server), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, port, "POST", "/predict", png(), IMAGE)
        assert begun.wait(5)
        server.should_exit = True
        assert answer.result()[0] == 200


def test_stopping_does_not_wait_for_stalled_uploads(classifier, monkeypatch):
    monkeypatch.setattr(uploads, "STOPPING_SECONDS", 0.2)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc"
    with serving_at(classifier) as (port, server), ThreadPoolExecutor(20) as pool:
        slow = [pool.submit(raw, port, head) for _ in range(20)]
        while len(server.server_state.tasks) < 20:
            time.sleep(0.01)
        server.should_exit = True
        answers = [each.result() for each in slow]
    assert all(answer.startswith(b"HTTP/1.1 503") and b"the server is stopping" in answer for answer in answers)  # no 408 after 20 s


def test_a_second_ctrl_c_stops_at_once_without_tracebacks(classifier, capsys):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc"
    with serving_at(classifier) as (port, server), socket.create_connection(("127.0.0.1", port)) as stalled:
        stalled.sendall(head)
        for _ in range(1000):
            if server.server_state.tasks:
                break
            time.sleep(0.01)
        assert server.server_state.tasks
        server.handle_exit(signal.SIGINT, None)
        server.handle_exit(signal.SIGINT, None)
    assert capsys.readouterr().err == ""


def test_figures_for_prometheus(classifier):
    with serving_at(classifier, root_path="/plants", token="secret") as (port, _):
        known = {**IMAGE, "Authorization": "Bearer secret"}
        assert ask(port, path="/metrics")[0] == 401
        label = ask(port, "POST", "/plants/predict", png(), known)[1]["predictions"][0]["label"]
        assert ask(port, "POST", "/predict", b"no image", known)[0] == 422
        assert ask(port, path="/wp-login.php")[0] == 404
        status, text = ask(port, path="/metrics", headers=known)
    values = {sample.name + str(sorted(sample.labels.values())): sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert status == 200 and values[f"tlfast_images_total['{label}']"] == 1 and sum(value for name, value in values.items() if "images_total" in name) == 1
    assert values["tlfast_requests_total['/plants/predict', '200']"] == values["tlfast_requests_total['/predict', '422']"] == 1
    assert values["tlfast_requests_total['404', 'other']"] == 1 and values["tlfast_requests_in_progress[]"] == 0
    assert values["tlfast_request_seconds_count['/plants/predict']"] == 1


def test_health_needs_no_token(classifier):
    with serving_at(classifier, token="secret") as (port, _):
        assert ask(port, path="/health") == ask(port, path="/healthz") == (200, {"status": "ok"})


LOCAL = allow_hosts("127.0.0.1", ["plants.example.org"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "Plants.example.org:443"}, 200),
        ({"Host": "evil.example.org"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://evil.example.org"}, 403),
        ({"Host": "localhost:8000", "Origin": "null"}, 403),
    ],
    ids=str,
)
def test_other_hosts_and_other_sites_are_refused(classifier, headers, status):
    with serving_at(classifier, hosts=LOCAL) as (port, _):
        answered, body = ask(port, "POST", "/predict", png(), {**IMAGE, **headers})
        assert answered == status and ("error" in body) == (status == 403)


@pytest.mark.parametrize(("host", "names", "expected"), [
    ("0.0.0.0", [], set()), ("192.168.1.2", [], set()), ("::1", [], {"localhost", "127.0.0.1", "::1"}),
    ("127.0.1.1", [], {"localhost", "127.0.0.1", "127.0.1.1", "::1"}), ("LOCALHOST", [], {"localhost", "127.0.0.1", "::1"}),
])  # fmt: skip
def test_allowed_hosts(host, names, expected):
    assert allow_hosts(host, names) == expected


def test_behind_a_proxy_all_addresses_work_with_and_without_the_root_path(classifier):
    with serving_at(classifier, root_path="/plants/v1") as (port, _):
        for prefix in ("", "/plants/v1"):
            assert ask(port, path=f"{prefix}/healthz") == (200, {"status": "ok"})
            assert ask(port, "POST", f"{prefix}/predict", png(), IMAGE)[0] == 200
            status, page = ask(port, path=f"{prefix}/")
            assert status == 200 and 'fetch("predict"' in page and not re.search(r"""(fetch\(|href=|src=)["']/""", page)
        assert ask(port, path="/openapi.json")[1]["servers"] == [{"url": "/plants/v1"}]
        assert ask(port, path="/other/healthz")[0] == 404
    for wrong in ("plants", "/plants/", "/a b", "/"):
        with pytest.raises(errors.UsageError, match="--root-path"):
            server_module.Service(classifier, root_path=wrong)


def test_each_request_has_an_id_and_a_line_in_the_log(classifier, monkeypatch):
    lines = []
    with serving_at(classifier, log=lines.append) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        ids = []
        for headers in ({"X-Request-ID": "from-the-proxy.1"}, {"X-Request-ID": 'no id "\\'}, {}):
            connection.request("POST", "/predict?top=1", png(), {**IMAGE, **headers})
            response = connection.getresponse()
            response.read()
            ids.append(response.getheader("X-Request-ID"))
        monkeypatch.setattr(server_module, "rank_classes", lambda *arguments: 1 / 0)
        assert ask(port, "POST", "/predict", png(), IMAGE)[0] == 500
        assert ask(port, "POST", "/predict", b"no image", IMAGE)[0] == 422
    logged = [json.loads(line) for line in lines]
    assert ids[0] == "from-the-proxy.1" and len(set(ids)) == 3 and all(re.fullmatch(r"[\w.-]+", each) for each in ids)
    assert [entry["id"] for entry in logged[:3]] == ids
    assert [entry["status"] for entry in logged] == [200, 200, 200, 500, 422]
    assert {(entry["client"], entry["method"], entry["path"]) for entry in logged} == {("127.0.0.1", "POST", "/predict")}
    assert all(0 < entry["seconds"] < 60 and entry["time"].endswith("+00:00") for entry in logged)


def test_messages_of_other_packages_are_lines_of_json():
    lines, logger = [], logging.Logger("python_multipart.multipart")
    logger.addHandler(JsonHandler(lines.append))
    logger.info("a part has begun")
    logger.warning("expected character %d\nat index 2", 45)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("failed")
    first, second = map(json.loads, lines)
    assert (first["level"], first["logger"]) == ("warning", "python_multipart.multipart") and first["message"] == "expected character 45\nat index 2"
    assert "ZeroDivisionError" in second["message"] and second["time"].endswith("+00:00")


def test_a_taken_port_is_an_error(classifier):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(errors.UsageError, match="cannot listen on 127.0.0.1"):
        server_module.serve(server_module.Service(classifier), "127.0.0.1", taken.getsockname()[1])


def test_a_host_with_an_empty_part_is_an_error(classifier):
    with pytest.raises(errors.UsageError, match=r"cannot listen on 192.168..5:0 \("):
        server_module.serve(server_module.Service(classifier), "192.168..5", 0, lambda url: None)
