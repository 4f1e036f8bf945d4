#!/bin/sh
# Makes the secrets of compose.yaml in a folder, at the first start; those that are there stay.
# Readable by their owner and its group, which the containers share.
set -eu
umask 027
cd "$1"

secret() {
    if [ ! -s "$1" ]; then
        head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > ".$1"
        mv ".$1" "$1"
    fi
    cat "$1"
}

write() {
    printf '%s\n' "$2" > ".$1"
    mv ".$1" "$1"
}

secret secret_key > /dev/null
secret flower_password > /dev/null
write database_url "postgresql://backfill:$(secret database_password)@postgres:5432/backfill"
write broker_url "redis://:$(secret broker_password)@valkey:6379/0"
write valkey.conf "requirepass $(secret broker_password)"
