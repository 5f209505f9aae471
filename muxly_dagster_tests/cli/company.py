"""The company of the full example (docs/examples/full): everything that its muxly.yaml pulls from, on loopback, with something in it."""

import contextlib
import datetime as dt
import decimal
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pyarrow as pa

from muxly_dagster_tests.connectors.lab import Lab, lab
from muxly_dagster_tests.peers import carrier
from muxly_dagster_tests.peers.carrier import Carrier
from muxly_dagster_tests.peers.dropbox import Dropbox
from muxly_dagster_tests.peers.ga4 import Analytics
from muxly_dagster_tests.peers.gmail import Gmail
from muxly_dagster_tests.peers.helpdesk import Helpdesk
from muxly_dagster_tests.peers.hubspot import TOKEN, HubspotAccount
from muxly_dagster_tests.peers.onedrive import OneDrive
from muxly_dagster_tests.peers.salesforce import Organisation
from muxly_dagster_tests.peers.stripe import StripeAccount

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "full"

_SHOP = """
create table customers (id int primary key, email text, name text, updated_at timestamptz);
create table orders (id int primary key, customer_id int, total numeric(10,2), updated_at timestamptz);
insert into customers values (1, 'ada@shop.example', 'Ada', '2026-01-01'), (2, 'Grace@shop.example', 'Grace', '2026-01-02'),
  (3, 'linus@shop.example', 'Linus', '2026-01-03');
insert into orders values (10, 1, 349.00, '2026-01-05'), (11, 1, 89.50, '2026-01-06'), (12, 2, 549.00, '2026-01-07');
"""


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
        mail, contracts, photos = (each.connector().model_dump()["auth"] for each in (self.mail, self.contracts, self.photos))
        addresses = {
            "PAYMENTS__BASE_URL": self.payments.url,
            "CRM__BASE_URL": self.crm.server.url,
            "WEB__ENDPOINT": self.web.endpoint,
            "ADS__API_ENDPOINT": self.lab.bigquery.url,
            "ADS__STORAGE_ENDPOINT": self.lab.storage.url,
            "PARCELS__BASE_URL": self.parcels.url,
        }
        for name, service, auth in (("MAIL", self.mail, mail), ("CONTRACTS", self.contracts, contracts), ("PHOTOS", self.photos, photos)):
            addresses |= {f"{name}__BASE_URL": service.url + service.base, f"{name}__AUTH__TOKEN_URL": auth["token_url"]}
        environ = {
            "SHOP_DATABASE_URL": self.shop,
            "WAREHOUSE_URL": self.warehouse,
            "STRIPE_KEY": self.payments.secrets[0],
            "HUBSPOT_TOKEN": TOKEN,
            "SALESFORCE_URL": self.wholesale.url,
            "SALESFORCE_CLIENT_ID": "app",
            "SALESFORCE_CLIENT_SECRET": self.wholesale.secrets[-1],
            "GA4_PROPERTY": "1",
            "GA4_KEY": self.web.key("muxly@example.iam.gserviceaccount.com"),
            "BIGQUERY_KEY": self.lab.bigquery.key(),
            "HELPDESK_URL": self.support.url + self.support.base,
            "HELPDESK_TOKEN": self.support.token,
            "CARRIER_KEY": carrier.KEY,
            "MICROSOFT_TENANT": "fjordkit.example",
        }
        for name, auth in (("GMAIL", mail), ("MICROSOFT", contracts), ("DROPBOX", photos)):
            for each in ("client_id", "client_secret", "refresh_token"):
                found = auth[each]
                environ[f"{name}_{each.upper()}"] = found if isinstance(found, str) else found.get_secret_value()
        return environ | {f"MUXLY__SOURCES__{name}": address for name, address in addresses.items()}
