"""One run of one program on a configuration in its own prefix."""

import glob
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time

TEMP_PATHS = "client_body_temp_path temp_body; proxy_temp_path temp_proxy;"
#: Debian's nginx has absolute paths for these built in, which an ordinary user cannot create.
TEMP_PATHS_NGINX = " fastcgi_temp_path temp_fastcgi; uwsgi_temp_path temp_uwsgi; scgi_temp_path temp_scgi;"


class Program:
    """A binary: `label` for people, `version` like "nginx/1.22.1", and what it needs to be told on line one."""

    def __init__(self, path, label):
        self.path, self.label = os.path.abspath(path), label
        done = subprocess.run([self.path, "-V"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.about = done.stdout.decode("utf-8", "replace")
        match = re.search(r"^\w+ version: ((\w+)/[\w.-]+)", self.about, re.M)
        if not match:
            raise SystemExit("compat: %s -V does not say its version:\n%s" % (path, self.about))
        self.version, self.name = match.group(1), match.group(2)
        self.is_nginx = self.name == "nginx"

    def stream_module(self):
        """(available, load_module line or "")."""
        if not self.is_nginx or re.search(r"--with-stream(\s|$)", self.about):
            return True, ""
        places = re.findall(r"--modules-path=(\S+)", self.about) + ["/usr/lib/nginx/modules"]
        for place in places:
            module = os.path.join(place, "ngx_stream_module.so")
            if os.path.exists(module):
                return True, "load_module %s; " % module
        return False, ""

    def temp_paths(self):
        return TEMP_PATHS + (TEMP_PATHS_NGINX if self.is_nginx else "")


def user_line():
    """The user directive, which is only for root."""
    if os.geteuid() != 0:
        return ""
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    return "user nobody %s; " % group


class Prefix:
    """A server's directory: nginx.conf, logs/, html/ with the suite's files."""

    def __init__(self, path):
        self.path = path

    def create(self, files):
        shutil.rmtree(self.path, ignore_errors=True)
        for name in ("", "logs", "html"):
            os.makedirs(os.path.join(self.path, name), exist_ok=True)
            os.chmod(os.path.join(self.path, name), 0o755)
        for name, content in files.items():
            target = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if name.endswith("/"):
                continue
            with open(target, "wb") as out:
                out.write(content.encode() if isinstance(content, str) else content)
            os.utime(target, (1700000000, 1700000000))
        for where, _, _ in os.walk(os.path.join(self.path, "html")):
            os.chmod(where, 0o755)

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="latin-1", newline="") as out:
            out.write(text)

    def logs(self):
        """Sizes of the log files by name."""
        return {os.path.basename(p): os.path.getsize(p) for p in glob.glob(os.path.join(self.path, "logs", "*.log"))}

    def read_from(self, name, offset):
        try:
            with open(os.path.join(self.path, "logs", name), "rb") as log:
                log.seek(offset)
                return log.read()
        except FileNotFoundError:
            return b""


class Server:
    """A running master process."""

    def __init__(self, program, prefix, barrier_port, barrier_http):
        self.program, self.prefix = program, prefix
        self.barrier_port, self.barrier_http = barrier_port, barrier_http
        self.process = None

    def command(self, *args):
        return [self.program.path, "-p", self.prefix.path + "/", "-c", "nginx.conf", "-e", "logs/error.log", *args]

    def start(self):
        """Starts and waits until a worker answers. RuntimeError says what it wrote when it did not start."""
        with open(os.path.join(self.prefix.path, "stderr"), "wb") as errors:
            self.process = subprocess.Popen(self.command("-g", "daemon off;"), stdin=subprocess.DEVNULL,
                                            stdout=errors, stderr=errors)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            if self.barrier():
                return
            time.sleep(0.005)
        with open(os.path.join(self.prefix.path, "stderr"), "rb") as errors:
            said = errors.read().decode("utf-8", "replace")
        code = self.process.poll()
        self.kill()
        raise RuntimeError("%s did not start (exit code %s):\n%s" % (self.program.label, code, said))

    def barrier(self):
        """One exchange on a port of its own: all that the worker had to do before is done when it answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.barrier_port), 2) as sock:
                if self.barrier_http:
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                data = b""
                while True:
                    more = sock.recv(4096)
                    if not more:
                        return bool(data)
                    data += more
        except OSError:
            return False

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """QUIT, and the exit code; "killed" when it took too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
        try:
            return self.process.wait(8)
        except subprocess.TimeoutExpired:
            self.kill()
            return "killed: QUIT did not end it"

    def kill(self):
        """Ends the master, politely first, so that its workers end with it."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
