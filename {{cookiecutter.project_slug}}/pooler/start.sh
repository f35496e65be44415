#!/bin/sh
# Refuses what PostgreSQL cannot give, and writes what is known at the start only: sizes, and passwords, into memory.
set -eu
umask 077
needed=$((PGBOUNCER_POOL_SIZE + DB_RESERVED_CONNECTIONS))
if [ "$needed" -gt "$POSTGRES_MAX_CONNECTIONS" ]; then
    echo "PgBouncer does not start: PGBOUNCER_POOL_SIZE $PGBOUNCER_POOL_SIZE + $DB_RESERVED_CONNECTIONS in reserve =" \
        "$needed database connections, but POSTGRES_MAX_CONNECTIONS is $POSTGRES_MAX_CONNECTIONS: lower the former, or" \
        "raise the latter." >&2
    exit 1
fi
{
    cat /etc/pgbouncer/pgbouncer.ini
    printf 'max_client_conn = %d\ndefault_pool_size = %d\n' "$DB_MAX_CONNECTIONS" "$PGBOUNCER_POOL_SIZE"
} >/tmp/pgbouncer.ini
for role in app:database_password owner:migration_password; do
    # A quote in a password is written twice.
    printf '"%s" "%s"\n' "${role%:*}" "$(sed 's/"/""/g' "/run/secrets/${role#*:}")"
done >/tmp/users.txt
exec pgbouncer /tmp/pgbouncer.ini
