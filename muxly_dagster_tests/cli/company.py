"""The company of the full example (docs/examples/full): everything that its muxly.yaml pulls from, on loopback, with something in it."""

import base64
import contextlib
import datetime as dt
import decimal
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pyarrow as pa

from muxly_dagster_tests.connectors.lab import Lab, lab
from muxly_dagster_tests.http.server import Asked, answer
from muxly_dagster_tests.peers import carrier
from muxly_dagster_tests.peers.bigquery import key_pair
from muxly_dagster_tests.peers.carrier import Carrier
from muxly_dagster_tests.peers.dropbox import Dropbox
from muxly_dagster_tests.peers.ga4 import Analytics, private_key
from muxly_dagster_tests.peers.gmail import Gmail
from muxly_dagster_tests.peers.helpdesk import Helpdesk
from muxly_dagster_tests.peers.hubspot import TOKEN, HubspotAccount
from muxly_dagster_tests.peers.onedrive import OneDrive
from muxly_dagster_tests.peers.salesforce import Organisation
from muxly_dagster_tests.peers.stripe import StripeAccount

PASSWORD = "p4ssw0rd-of-the-databases"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "full"

_SHOP = """
create table customers (id int primary key, email text, name text, updated_at timestamptz);
create table orders (id int primary key, customer_id int, total numeric(10,2), updated_at timestamptz);
insert into customers values (1, 'ada@shop.example', 'Ada', '2026-01-01'), (2, 'Grace@shop.example', 'Grace', '2026-01-02'),
  (3, 'linus@shop.example', 'Linus', '2026-01-03');
insert into orders values (10, 1, 349.00, '2026-01-05'), (11, 1, 89.50, '2026-01-06'), (12, 2, 549.00, '2026-01-07');
"""


class NearOneDrive(OneDrive):
    """Gives content itself, where Microsoft's redirects to one of the `hosts` that the manifest names: no stand-in can be one of those."""

    def answer(self, asked: Asked) -> bytes:
        *_, item, last = asked.path.split("/")
        if asked.method == "GET" and last == "content":
            return answer(200, self.contents[unquote(item)], Content_Type="text/plain", ETag='"1"')
        return super().answer(asked)


@dataclass
class Company:
    """The providers. `shop` and `warehouse` are databases by their URLs."""

    shop: str
    warehouse: str
    lab: Lab
    web: Analytics
    payments: StripeAccount
    crm: HubspotAccount
    wholesale: Organisation
    support: Helpdesk
    mail: Gmail
    parcels: Carrier
    contracts: OneDrive
    photos: Dropbox

    @property
    def environ(self) -> dict[str, str]:
        """What .env holds, and in place of each provider's public address that of its stand-in."""
        addresses = {
            "PAYMENTS__BASE_URL": self.payments.url,
            "CRM__BASE_URL": self.crm.server.url,
            "WEB__ENDPOINT": self.web.endpoint,
            "ADS__API_ENDPOINT": self.lab.bigquery.url,
            "ADS__STORAGE_ENDPOINT": self.lab.storage.url,
            "PARCELS__BASE_URL": self.parcels.url,
        }
        environ = {
            "SHOP_DATABASE_URL": self.shop,
            "WAREHOUSE_URL": self.warehouse,
            "STRIPE_KEY": self.payments.secrets[0],
            "HUBSPOT_TOKEN": TOKEN,
            "SALESFORCE_URL": self.wholesale.url,
            "SALESFORCE_CLIENT_ID": "app",
            "SALESFORCE_CLIENT_SECRET": "the-c0nsumer-secret",
            "GA4_PROPERTY": "1",
            "GA4_KEY": self.web.key("muxly@example.iam.gserviceaccount.com"),
            "BIGQUERY_KEY": self.lab.bigquery.key(),
            "HELPDESK_URL": self.support.url + self.support.base,
            "HELPDESK_TOKEN": self.support.secrets[0],
            "CARRIER_WEBHOOK_SECRET": f"whsec_{base64.b64encode(b'what-the-carrier-signs-with').decode()}",
            "CARRIER_KEY": carrier.KEY,
            "MICROSOFT_TENANT": "fjordkit.example",
        }
        for source, prefix, service in (
            ("MAIL", "GMAIL", self.mail),
            ("CONTRACTS", "MICROSOFT", self.contracts),
            ("PHOTOS", "DROPBOX", self.photos),
        ):
            addresses |= {f"{source}__BASE_URL": service.url + service.base, f"{source}__AUTH__TOKEN_URL": f"{service.url}/token"}
            _, refresh_token, client_secret, *_ = service.secrets
            environ |= {f"{prefix}_CLIENT_ID": "app", f"{prefix}_CLIENT_SECRET": client_secret, f"{prefix}_REFRESH_TOKEN": refresh_token}
        return environ | {f"MUXLY__SOURCES__{name}": address for name, address in addresses.items()}

    @property
    def secrets(self) -> set[str]:
        """What nobody may see, the tokens that were given out meanwhile among them."""
        services = (self.payments, self.wholesale, self.support, self.mail, self.contracts, self.photos)
        given = {secret for service in services for secret in service.secrets} | {*self.web.secrets, *self.lab.bigquery.tokens}
        keys = {key_pair("muxly")[0].splitlines()[5], private_key().splitlines()[5]}  # a line of each, since JSON writes line ends anew
        return given | keys | {TOKEN, carrier.KEY, PASSWORD}


@contextlib.contextmanager
def company(shop: str, warehouse: str) -> Iterator[Company]:
    """All of it for a while. `shop` and `warehouse` are addresses of empty Postgres databases, to which any password opens."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        found = Company(
            _with_password(shop),
            _with_password(warehouse),
            enter(lab()),
            enter(Analytics()),
            enter(StripeAccount()),
            enter(HubspotAccount()),
            enter(Organisation()),
            enter(Helpdesk()),
            enter(Gmail(refreshing=True)),
            enter(Carrier()),
            enter(NearOneDrive(refreshing=True)),
            enter(Dropbox(refreshing=True)),
        )
        _fill(found)
        yield found


def _fill(found: Company) -> None:
    """Give everybody something to tell."""
    with psycopg.connect(found.shop) as connection:
        connection.execute(_SHOP)
    spend = {
        "day": pa.array([dt.date(2026, 1, day) for day in (1, 2, 3)]),
        "campaign": ["winter", "winter", "sale"],
        "cost": pa.array([decimal.Decimal(cost) for cost in ("19.90", "20.10", "7.00")], pa.decimal128(10, 2)),
        "updated_at": pa.array([dt.datetime(2026, 1, day, 6, tzinfo=dt.UTC) for day in (2, 3, 4)], pa.timestamp("us", "UTC")),
    }
    found.lab.bigquery.put("marketing.spend", pa.table(spend))
    for channel, sessions in (("Direct", 5), ("Email", 7)):
        found.web.fact(found.web.today() - dt.timedelta(days=1), sessionDefaultChannelGroup=channel, sessions=sessions, keyEvents=1)
    found.payments.put(1, 2, text="from the shop")
    found.payments.write("charges", "ch_1", amount=34900)
    found.payments.write("charges", "ch_2", amount=8950)
    found.crm.define("contacts", email="string", firstname="string", lastname="string", lifecyclestage="string")
    found.crm.define("deals", dealname="string", amount="number", dealstage="string", closedate="datetime")
    found.crm.write("contacts", 1, email="ada@shop.example", firstname="Ada", lifecyclestage="customer")
    found.crm.write("deals", 7, dealname="Scouts", amount="12000", dealstage="closedwon")
    found.crm.write("deals", 8, dealname="School", amount="900", dealstage="open")
    found.wholesale.write("Account", 1, Name="Nordic Huts", AnnualRevenue=2_500_000, BillingCity="Bergen")
    found.wholesale.write("Account", 2, Name="Out of business", AnnualRevenue=0, BillingCity="Oslo")
    found.support.put(1, 2, text="open")
    found.support.put(3, text="closed")
    found.mail.put(1, 2, 3, text="blue")
    found.parcels.send(1, 2, 3)
    found.contracts.write("lease.txt", b"We rent the hall.", item="I!1")
    found.photos.make_folder("/Products")
    found.photos.write("/Products/tent.jpg", b"a tent")
    found.photos.write("/Private/diary.txt", b"nobody's business")


def _with_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    user, _, host = rest.partition("@")
    return f"{scheme}://{user.partition(':')[0]}:{PASSWORD}@{host}"


def write_example(folder: Path) -> Path:
    """The example's files, copied to where a project may leave its own."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".muxly", "archive"))
    return folder
