# syntax=docker/dockerfile:1

# -- everything that is installed, in /opt/venv -------------------------------------------------------------------------
FROM python:3.11-slim AS build
ARG EXTRAS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml README.md ./
COPY backfill backfill
COPY workers workers
RUN /opt/venv/bin/pip install ".${EXTRAS:+[$EXTRAS]}"

# -- what runs ----------------------------------------------------------------------------------------------------------
FROM python:3.11-slim
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# the folders are made here so that volumes mounted on them belong to this user
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/backfill --shell /usr/sbin/nologin backfill \
    && install --directory --owner backfill --group backfill --mode 0750 /var/lib/backfill /run/backfill
COPY --from=build /opt/venv /opt/venv
COPY config/make-secrets.sh /usr/local/bin/make-secrets
COPY examples /srv/backfill/dags
ENV BACKFILL_HOME=/var/lib/backfill BACKFILL__CORE__DAGS_FOLDER=/srv/backfill/dags
WORKDIR /srv/backfill
USER 10001:10001
ENTRYPOINT ["backfill"]
CMD ["--help"]
