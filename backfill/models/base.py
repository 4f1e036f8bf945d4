"""The declarative base; its metadata is the whole schema, and constraint names are the same everywhere."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

#: Storage of tables that grow with what is run: by default they were analysed only once a tenth of them had changed.
GROWING: Final = MappingProxyType({"autovacuum_analyze_scale_factor": 0.02})
#: The same where each row is updated several times: new versions find room beside the old ones, and these are cleared early.
OFTEN_UPDATED: Final = MappingProxyType({"fillfactor": 80, **GROWING, "autovacuum_vacuum_scale_factor": 0.05})


class Base(DeclarativeBase):
    """Base of every mapped class."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
