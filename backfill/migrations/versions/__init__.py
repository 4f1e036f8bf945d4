"""One script for each version of the schema, in the order of `backfill.migrations.REVISIONS`; never changed once released."""
