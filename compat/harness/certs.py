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


CA = "basicConstraints=critical,CA:TRUE"
#: name -> (extensions of an intermediate, extensions of a client's certificate by it)
PATHS = {
    "path-good": ([CA, "keyUsage=critical,keyCertSign"], ["basicConstraints=CA:FALSE", "extendedKeyUsage=clientAuth"]),
    "path-no-ca": (["basicConstraints=CA:FALSE"], []),
    "path-bare-ca": ([], []),
    "path-usage-only": (["keyUsage=keyCertSign"], []),
    "path-no-cert-sign": ([CA, "keyUsage=critical,digitalSignature"], []),
    "path-server": ([CA], ["extendedKeyUsage=serverAuth"]),
    "path-any-usage": ([CA], ["extendedKeyUsage=anyExtendedKeyUsage"]),
    "path-ca-server": ([CA, "extendedKeyUsage=serverAuth"], []),
    "path-encipherment": ([CA], ["keyUsage=keyEncipherment"]),
    "path-netscape": ([CA], ["nsCertType=server"]),
    "path-policies": ([CA, "policyConstraints=critical,requireExplicitPolicy:0", "inhibitAnyPolicy=critical,0"], []),
    "path-unknown": ([CA, "1.2.3.4=critical,DER:0500"], []),
    "path-names": ([CA, "nameConstraints=critical,permitted;DNS:ok.test,excluded;email:bad.test"],
                   ["subjectAltName=DNS:a.ok.test,email:u@good.test"]),
    "path-bad-dns": ([CA, "nameConstraints=critical,permitted;DNS:ok.test"], ["subjectAltName=DNS:a.other.test"]),
    "path-bad-email": ([CA, "nameConstraints=excluded;email:bad.test"], ["subjectAltName=email:u@bad.test"]),
    "path-uri": ([CA, "nameConstraints=permitted;URI:ok.test"], ["subjectAltName=URI:spiffe://ok.test/a"]),
    "path-bad-uri": ([CA, "nameConstraints=permitted;URI:.ok.test"], ["subjectAltName=URI:spiffe://ok.test/a"]),
    "path-bad-ip": ([CA, "nameConstraints=permitted;IP:10.0.0.0/255.0.0.0"], ["subjectAltName=IP:11.0.0.1"]),
    "path-bad-dn": ([CA, "nameConstraints=permitted;dirName:names"], []),
    "path-bad-cn": ([CA, "nameConstraints=permitted;DNS:ok.test"], []),
}


def serial_of(name):
    return 1000 + len(name)


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
        for name, (above, own) in PATHS.items():
            self._path(name, above, own)
        self._responses()

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
                      "-CAkey", self.path("ca.key"), "-set_serial", str(serial_of(name)), "-days", "30",
                      "-extfile", extensions, "-out", self.path(name + ".crt"))
        # A worker that is not root loads those whose names have variables.
        os.chmod(self.path(name + ".key"), 0o644)

    def _path(self, name, above, own):
        """NAME.crt is a client's certificate and the intermediate that it is by; the CA is the usual one."""
        self._sign(name + "-ca", "int.test", "ca", above)
        self._sign(name, "leaf.test", name + "-ca", own)
        with open(self.path(name + ".crt"), "a") as chain, open(self.path(name + "-ca.crt")) as intermediate:
            chain.write(intermediate.read())

    def _sign(self, name, cn, issuer, extensions):
        with open(self.path(name + ".ext"), "w") as out:
            out.write("subjectKeyIdentifier=none\n%s\n[names]\nO=other\n" % "\n".join(extensions))
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                      "-keyout", self.path(name + ".key"), "-out", self.path(name + ".csr"),
                      "-subj", "/O=compat/CN=" + cn)
        self._openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path(issuer + ".crt"),
                      "-CAkey", self.path(issuer + ".key"), "-set_serial", "7", "-days", "30",
                      "-extfile", self.path(name + ".ext"), "-out", self.path(name + ".crt"))

    def _responses(self):
        """What an OCSP responder says of the client's certificate: files NAME.ocsp."""
        serial = "%04X" % serial_of("client")
        states = {
            "good": "V\t491231000000Z\t\t%s\tunknown\t/CN=x\n" % serial,
            "revoked": "R\t491231000000Z\t250101000000Z\t%s\tunknown\t/CN=x\n" % serial,
            "unknown": "",
        }
        for name, line in states.items():
            with open(self.path("index.txt"), "w") as out:
                out.write(line)
            self._response(name, "client", "ca")
        self._response("other", "default", "ca")
        self._response("unentitled", "client", "client")
        with open(self.path("later.ocsp"), "wb") as out:
            out.write(bytes([0x30, 3, 0x0a, 1, 3]))

    def _response(self, name, about, signer):
        self._openssl("ocsp", "-issuer", self.path("ca.crt"), "-cert", self.path(about + ".crt"),
                      "-reqout", self.path("request.der"))
        self._openssl("ocsp", "-index", self.path("index.txt"), "-CA", self.path("ca.crt"),
                      "-rsigner", self.path(signer + ".crt"), "-rkey", self.path(signer + ".key"),
                      "-reqin", self.path("request.der"), "-respout", self.path(name + ".ocsp"), "-ndays", "30")

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
