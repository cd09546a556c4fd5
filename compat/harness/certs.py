"""Certificates for one run, made with the openssl command: a CA and what it signs."""

import os
import ssl
import subprocess

#: file name -> (subject CN, subjectAltName)
LEAVES = {
    "default": ("default.test", "DNS:default.test"),
    "a": ("a.test", "DNS:a.test,DNS:www.a.test"),
    "b": ("b.test", "DNS:b.test,DNS:*.b.test"),
    "backend": ("backend.test", "DNS:backend.test,DNS:localhost"),
    "client": ("client one", "email:one@client.test"),
}


class Certs:
    """Paths are `dir`/NAME.crt and NAME.key; the CA is ca.crt."""

    def __init__(self, directory):
        self.dir = directory
        os.makedirs(directory, exist_ok=True)
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-keyout", self.path("ca.key"), "-out", self.path("ca.crt"), "-days", "30",
                      "-subj", "/O=compat/CN=compat CA")
        for name, (cn, alt) in LEAVES.items():
            self._leaf(name, cn, alt)

    def path(self, name):
        return os.path.join(self.dir, name)

    def _leaf(self, name, cn, alt):
        extensions = self.path(name + ".ext")
        with open(extensions, "w") as out:
            out.write("subjectAltName=%s\nbasicConstraints=CA:FALSE\n" % alt)
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-keyout", self.path(name + ".key"), "-out", self.path(name + ".csr"),
                      "-subj", "/O=compat/CN=" + cn)
        self._openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path("ca.crt"),
                      "-CAkey", self.path("ca.key"), "-set_serial", str(1000 + len(name)), "-days", "30",
                      "-extfile", extensions, "-out", self.path(name + ".crt"))
        # A worker that is not root loads those whose names have variables.
        os.chmod(self.path(name + ".key"), 0o644)

    def server_context(self, name="backend", alpn=(), client_ca=False):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(name + ".crt"), self.path(name + ".key"))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if client_ca:
            context.load_verify_locations(self.path("ca.crt"))
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, alpn=(), cert=None, maximum=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.path("ca.crt"))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if cert:
            context.load_cert_chain(self.path(cert + ".crt"), self.path(cert + ".key"))
        if maximum:
            context.maximum_version = maximum
        return context

    @staticmethod
    def _openssl(*args):
        done = subprocess.run(["openssl", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError("openssl %s: %s" % (args[0], done.stdout.decode("utf-8", "replace")))
