"""What the comparison itself must get right: python3 -m unittest discover -s compat -t compat -p '*_test.py'."""

import unittest

from harness import h2, main, wire
from harness.normal import Normaliser, Side

DATE = b"Date: Sun, 22 Nov 2026 05:00:00 GMT\r\n"


def page(signature):
    body = b"<html>\r\n<hr><center>" + signature + b"</center>\r\n</html>\r\n"
    return (b"HTTP/1.1 404 Not Found\r\nServer: " + signature + b"\r\n" + DATE + b"Content-Type: text/html\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)), body


class Signatures(unittest.TestCase):
    def setUp(self):
        self.nginx = Normaliser(Side("nginx", "nginx/1.22.1", "nginx/1.22.1"), "/tmp/p")
        self.nxr = Normaliser(Side("nxr", "nxr/0.1.0", "nginx/1.22.1"), "/tmp/p")

    def test_error_pages_and_their_lengths_are_equal(self):
        for theirs, ours in ((b"nginx/1.22.1", b"nxr/0.1.0"), (b"nginx", b"nxr")):
            self.assertEqual(self.nginx.http(b"".join(page(theirs))), self.nxr.http(b"".join(page(ours))))

    def test_length_of_a_head_answer(self):
        self.assertEqual(self.nginx.http(page(b"nginx/1.22.1")[0], True), self.nxr.http(page(b"nxr/0.1.0")[0], True))

    def test_access_log_size_follows_the_page(self):
        head, body = page(b"nxr/0.1.0")
        self.nxr.http(head + body)
        line = self.nxr.access(b'127.0.0.1 - - [22/Nov/2026:05:00:00 +0000] "GET / HTTP/1.1" 404 %d "-" "-"\n' % len(body))
        self.assertEqual(line, ['127.0.0.1 - - [TIME] "GET / HTTP/1.1" 404 %d "-" "-"' % (len(body) + 3)])

    def test_a_wrong_signature_stays_visible(self):
        self.assertNotEqual(self.nginx.http(b"".join(page(b"nginx/1.22.1"))), self.nxr.http(b"".join(page(b"other/1"))))

    def test_header_order_and_case_matter(self):
        one = b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nContent-Length: 0\r\n\r\n"
        for other in (one.replace(b"A: 1\r\nB: 2", b"B: 2\r\nA: 1"), one.replace(b"A: 1", b"a: 1"), one.replace(b"A: 1", b"A:1")):
            self.assertNotEqual(self.nginx.http(one), self.nginx.http(other))

    def test_error_lines(self):
        line = b'2026/11/22 05:00:00 [error] 12#12: *7 open() "/tmp/p/html/x" failed (2: No such file or directory)\n'
        self.assertEqual(self.nginx.errors(line), ['[error] *N open() "PREFIX/html/x" failed (2: No such file or directory)'])
        self.assertEqual(self.nginx.errors(b"2026/11/22 05:00:00 [notice] 12#12: start worker processes\n"), [])

    def test_program_name_before_a_level(self):
        self.assertEqual(self.nxr.output(b'nxr: [emerg] unknown directive "nxr" in /tmp/p/nginx.conf:1\n'),
                         self.nginx.output(b'nginx: [emerg] unknown directive "nxr" in /tmp/p/nginx.conf:1\n'))


class Wire(unittest.TestCase):
    def test_chunks(self):
        self.assertEqual(wire.dechunk(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\nrest"), (b"abcde", 30))
        self.assertEqual(wire.dechunk(b"3\r\nab"), (None, None))
        with self.assertRaises(ValueError):
            wire.dechunk(b"xyz\r\n")

    def test_interim_answers_come_alone(self):
        parsed, rest = wire.read_response(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual((parsed.status, rest), (100, b"HTTP/1.1 204 No Content\r\n\r\n"))


class Hpack(unittest.TestCase):
    def test_huffman_examples(self):
        """RFC 7541, appendix C.4 and C.6."""
        self.assertEqual(h2.huffman(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")), b"www.example.com")
        self.assertEqual(h2.huffman(bytes.fromhex("d07abe941054d444a8200595040b8166e082a62d1bff")), b"Mon, 21 Oct 2013 20:13:21 GMT")

    def test_dynamic_table(self):
        """RFC 7541, appendix C.3.1 and C.3.2."""
        decoder = h2.Decoder()
        decoder.decode(bytes.fromhex("828684410f7777772e6578616d706c652e636f6d"))
        self.assertEqual(decoder.decode(bytes.fromhex("828684be58086e6f2d6361636865"))[-2:],
                         [(":authority", "www.example.com"), ("cache-control", "no-cache")])


class Differences(unittest.TestCase):
    def test_an_entry_must_explain_exactly(self):
        entry = main.load_differences()[0].__class__("s/c", "client", "why", ("old", "new"))
        used = set()
        self.assertEqual(main.compare("s/c", {"client": ["old a"]}, {"client": ["new a"]}, [entry], used), [])
        self.assertEqual(used, {entry})
        self.assertTrue(main.compare("s/c", {"client": ["old a"]}, {"client": ["new b"]}, [entry], used))
        self.assertTrue(main.compare("s/c", {}, {"error.log": ["[error] more"]}, [entry], used))


if __name__ == "__main__":
    unittest.main()
