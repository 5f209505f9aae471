"""An Exim of the machine's own package, run without privileges on a port of its own: takes mails over TLS, delivers them into folders."""

import contextlib
import email
import email.policy
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import cast

from muxly_dagster_tests.peers.certificate import Certificate

_PATIENCE = 30.0
_NOBODY = 65534

_CONFIG = """
primary_hostname = mail.acme.example
exim_path = {folder}/exim
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/pid
exim_user = {user}
exim_group = {user}
never_users =
local_interfaces = 127.0.0.1
tls_advertise_hosts = *
tls_certificate = {cert}
tls_privatekey = {key}
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
message_size_limit = 200K
domainlist local_domains = acme.example
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = acl_data

begin acl
acl_rcpt:
  deny !authenticated = *
       message = sign in first
  deny domains = !+local_domains
       message = relay not permitted
  deny !verify = recipient
       message = unknown user
  accept
acl_data:
  accept

begin routers
known:
  driver = accept
  domains = +local_domains
  local_parts = ada : bob
  transport = folder

begin transports
folder:
  driver = appendfile
  directory = {folder}/mail/$local_part_data
  maildir_format
  create_directory
  user = {user}
  group = {user}

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{{eq{{$auth2}}{{{username}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


def found() -> bool:
    """Whether this machine has Exim."""
    return _program() is not None


def _program() -> str | None:
    return shutil.which("exim4", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@dataclass(frozen=True, slots=True)
class Exim:
    """A running server. ada@acme.example and bob@acme.example have mailboxes there."""

    folder: Path
    port: int
    username: str
    password: str

    def mailbox(self, name: str, count: int) -> list[EmailMessage]:
        """The mails of one person, by their subject, as soon as there are `count` of them."""
        inbox = self.folder / "mail" / name / "new"
        deadline = time.monotonic() + _PATIENCE
        while len(files := list(inbox.glob("*"))) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(files)} of {count} mails came; Exim says: {self.log()}")
            time.sleep(0.02)
        mails = [cast(EmailMessage, email.message_from_bytes(file.read_bytes(), policy=email.policy.default)) for file in files]
        return sorted(mails, key=lambda mail: str(mail["Subject"]))

    def log(self) -> str:
        """What it wrote about its work."""
        return "\n".join(file.read_text() for file in (self.folder / "log").glob("*"))


@contextlib.contextmanager
def running(folder: Path, certificate: Certificate, username: str, password: str) -> Iterator[Exim]:
    """Exim in a folder of its own, until the block ends. Started by root, it runs as nobody."""
    user = _NOBODY if os.geteuid() == 0 else os.geteuid()
    program = _program()
    assert program is not None
    for name in ("spool", "log", "mail"):
        (folder / name).mkdir(parents=True)
    shutil.copyfile(program, folder / "exim")  # without the bit that makes it root
    (folder / "exim").chmod(0o755)
    shutil.copyfile(certificate.cert, folder / "cert.pem")
    shutil.copyfile(certificate.key, folder / "key.pem")
    said = _CONFIG.format(folder=folder, user=user, cert=folder / "cert.pem", key=folder / "key.pem", username=username, password=password)
    (folder / "config").write_text(said)
    if user != os.geteuid():
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, user, user)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [str(folder / "exim"), "-C", str(folder / "config"), "-bdf", "-oX", str(port)]
    own = {"user": user, "group": user, "extra_groups": []} if user != os.geteuid() else {}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True, **own)  # type: ignore[call-overload]
    try:
        _wait_until_it_answers(port, process, folder)
        yield Exim(folder, port, username, password)
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"Exim did not come up: {(folder / 'output').read_text()}")
        time.sleep(0.02)
